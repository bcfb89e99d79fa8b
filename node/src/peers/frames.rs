//! Frames on a byte stream: each a length in four bytes, big endian, and a [`Frame`] in protobuf.
//!
//! A peer stream shares its port with gRPC and is told from it by its first bytes. HTTP/2 below it would add windows,
//! streams and another framing of which it uses nothing, and cost more than all the rest of a small message.

use super::client::FRAME_BYTES_MAX;
use crate::ring_state::RingState;
use annulus_proto::v1::{Frame, Hello};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use uuid::Uuid;

/// What a peer stream begins with. HTTP/2 begins otherwise. The last byte is the version of what follows.
pub(super) const PREFACE: [u8; 8] = *b"annulus\x02";

const LENGTH_BYTES: usize = 4;
/// Room for one read, in bytes.
const READ_BYTES: usize = 64 << 10;
/// A frame that is longer gets its room as it comes, so that a length alone takes no memory, in bytes.
const ROOM_BYTES_MAX: usize = 1 << 20;
/// Frames are written together up to this many bytes.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// A buffer that has grown beyond this is given back, in bytes.
const KEEP_BYTES_MAX: usize = 4 << 20;

/// Why a frame was not read or written. The stream cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The socket's.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is longer than any frame may be.
    #[error("a frame of {bytes} bytes is too long")]
    Length {
        /// How long.
        bytes: usize,
    },
    /// It is no frame.
    #[error(transparent)]
    Decode(#[from] prost::DecodeError),
}

/// What each side says first: who it is, and whom it means.
pub(super) fn greeting(ring: &RingState, meant: Uuid) -> Frame {
    let bytes = |uuid: Uuid| Bytes::copy_from_slice(uuid.as_bytes());
    let hello =
        Hello { cluster: bytes(ring.cluster()), incarnation: bytes(ring.incarnation()), meant: bytes(meant) };
    Frame { epoch: ring.epoch(), hello: Some(hello), ..Frame::default() }
}

/// Reads frames. What they carry are slices of what was read.
pub(super) struct FrameReader<R> {
    io: R,
    read: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader of what comes after the preface.
    pub(super) fn new(io: R) -> Self {
        Self { io, read: BytesMut::new() }
    }

    /// The next frame; `None`: the other side has ended the stream. Nothing is lost if this is dropped before its end.
    ///
    /// # Errors
    /// [`FrameError`].
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            let wanted = match self.read.first_chunk::<LENGTH_BYTES>() {
                None => READ_BYTES,
                Some(length) => {
                    let bytes = u32::from_be_bytes(*length) as usize;
                    if bytes > FRAME_BYTES_MAX {
                        return Err(FrameError::Length { bytes });
                    }
                    if let Some(missing) = (LENGTH_BYTES + bytes).checked_sub(self.read.len()).filter(|n| *n > 0) {
                        missing.clamp(READ_BYTES, ROOM_BYTES_MAX)
                    } else {
                        self.read.advance(LENGTH_BYTES);
                        return Ok(Some(Frame::decode(self.read.split_to(bytes).freeze())?));
                    }
                }
            };
            if self.read.capacity() - self.read.len() < wanted / 4 {
                self.read.reserve(wanted);
            }
            if self.io.read_buf(&mut self.read).await? == 0 {
                return if self.read.is_empty() {
                    Ok(None)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
        }
    }
}

/// Writes frames.
pub(super) struct FrameWriter<W> {
    io: W,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// A writer on a stream that has seen the preface, or is about to from this side.
    pub(super) fn new(io: W) -> Self {
        Self { io, buffer: BytesMut::new() }
    }

    /// Writes the preface before the first frame.
    pub(super) fn begin(&mut self) {
        self.buffer.extend_from_slice(&PREFACE);
    }

    /// Adds a frame to what is to be written.
    ///
    /// # Errors
    /// When it is too long; the stream is of no use then.
    pub(super) fn add(&mut self, frame: &Frame) -> Result<(), FrameError> {
        let bytes = frame.encoded_len();
        let length = u32::try_from(bytes).ok().filter(|_| bytes <= FRAME_BYTES_MAX);
        self.buffer.reserve(LENGTH_BYTES + bytes);
        self.buffer.put_u32(length.ok_or(FrameError::Length { bytes })?);
        frame.encode_raw(&mut self.buffer);
        Ok(())
    }

    /// Writes what was added. If this is dropped before its end, the rest is written next time.
    ///
    /// # Errors
    /// The socket's.
    pub(super) async fn flush(&mut self) -> Result<(), FrameError> {
        self.io.write_all_buf(&mut self.buffer).await?;
        self.io.flush().await?;
        if self.buffer.capacity() > KEEP_BYTES_MAX {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    /// Writes frames as they come, those that have queued up together, until no more can come.
    ///
    /// # Errors
    /// [`FrameError`].
    pub(super) async fn write_all(mut self, mut frames: mpsc::Receiver<Frame>) -> Result<(), FrameError> {
        while let Some(frame) = frames.recv().await {
            self.add(&frame)?;
            while self.buffer.len() < WRITE_BYTES_MAX {
                let Ok(frame) = frames.try_recv() else { break };
                self.add(&frame)?;
            }
            self.flush().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use annulus_proto::v1::{Reply, reply};
    use bytes::Bytes;

    fn frame(id: u64, bytes: usize) -> Frame {
        let result = Some(reply::Result::Object(Bytes::from(vec![7; bytes])));
        Frame { epoch: id, replies: vec![Reply { id, result }], ..Frame::default() }
    }

    #[tokio::test]
    async fn frames_arrive_in_order_through_a_narrow_pipe_and_so_does_the_end() {
        let sizes = [0, 1, 100, READ_BYTES, 3 * READ_BYTES + 1, 5, ROOM_BYTES_MAX * 2, 0];
        let (near, far) = tokio::io::duplex(1000);
        let (sender, frames) = mpsc::channel(2);
        let writing = tokio::spawn(FrameWriter::new(near).write_all(frames));
        let sending = tokio::spawn(async move {
            for (id, bytes) in (0..).zip(sizes) {
                sender.send(frame(id, bytes)).await.unwrap();
            }
        });
        let mut reader = FrameReader::new(far);
        for (id, bytes) in (0..).zip(sizes) {
            assert_eq!(reader.next().await.unwrap().unwrap(), frame(id, bytes));
        }
        sending.await.unwrap();
        writing.await.unwrap().unwrap();
        assert!(reader.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_too_long_cut_off_or_no_frame_is_an_error() {
        let read = async |bytes: &[u8]| FrameReader::new(bytes).next().await;
        let too_long = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
        assert!(matches!(read(&too_long).await, Err(FrameError::Length { .. })));
        assert!(matches!(read(&[0, 0, 0, 9, 1, 2]).await, Err(FrameError::Io(_))));
        assert!(matches!(read(&[0, 0]).await, Err(FrameError::Io(_))));
        assert!(matches!(read(&[0, 0, 0, 2, 0xff, 0xff]).await, Err(FrameError::Decode(_))));
        assert!(matches!(read(&[]).await, Ok(None)));
        assert_eq!(read(&[0, 0, 0, 0]).await.unwrap().unwrap(), Frame::default());
    }
}

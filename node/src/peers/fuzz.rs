//! Bytes from anyone on a peer stream.

use super::frames::{FrameError, FrameReader, FrameWriter};
use annulus_fuzz::{Noise, damaged, fuzz, within};
use annulus_proto::v1::{
    Coordinate, Coordinated, Failure, Frame, Hello, Hint, Read, ReadHint, Reply, Request, Same, StaleEpoch,
    Stored, coordinate, reply, request::Operation,
};
use bytes::Bytes;
use futures::FutureExt;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// A stream that comes in reads of these lengths, then whole.
struct Pieces<'a> {
    bytes: &'a [u8],
    lengths: Vec<usize>,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let length = self.lengths.pop().unwrap_or(usize::MAX).min(self.bytes.len()).min(buf.remaining());
        let (piece, rest) = self.bytes.split_at(length);
        buf.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

fn bytes(noise: &mut Noise) -> Bytes {
    let length = *noise.pick(&[0, 1, 16, 100, 3000]);
    noise.bytes(length).into()
}

fn request(noise: &mut Noise) -> Request {
    let causality = match noise.below(3) {
        0 => None,
        1 => Some(coordinate::Causality::Overwrite(true)),
        _ => Some(coordinate::Causality::Context(bytes(noise))),
    };
    let operation = match noise.below(6) {
        0 => None,
        1 => Some(Operation::Store(bytes(noise))),
        2 => Some(Operation::Read(Read { known: noise.one_in(2).then(|| noise.any()) })),
        3 => Some(Operation::Hint(Hint { incarnation: bytes(noise), object: bytes(noise) })),
        4 => Some(Operation::ReadHint(ReadHint { incarnation: bytes(noise) })),
        _ => Some(Operation::Coordinate(Coordinate {
            value: noise.one_in(2).then(|| bytes(noise)),
            expires_at_ms: noise.one_in(2).then(|| noise.number()),
            causality,
            replicas: noise.below(9) as u32,
            strict: noise.one_in(2),
            change: noise.one_in(2).then(|| bytes(noise)),
        })),
    };
    Request { id: noise.number(), key: bytes(noise), since: noise.number(), operation }
}

fn reply(noise: &mut Noise) -> Reply {
    let result = match noise.below(7) {
        0 => reply::Result::Stored(Stored {}),
        1 => reply::Result::Object(bytes(noise)),
        2 => reply::Result::Coordinated(Coordinated {
            timestamp: noise.number(),
            context: bytes(noise),
            existed: noise.one_in(2),
            outcome: bytes(noise),
        }),
        3 => reply::Result::StaleEpoch(StaleEpoch { epoch: noise.number() }),
        4 => reply::Result::Failure(Failure { code: noise.below(9) as i32, message: "é".repeat(noise.below(9)) }),
        5 => reply::Result::Same(Same {}),
        _ => return Reply { id: noise.number(), result: None },
    };
    Reply { id: noise.number(), result: Some(result) }
}

fn frame(noise: &mut Noise) -> Frame {
    Frame {
        epoch: noise.number(),
        hello: noise.one_in(3).then(|| Hello {
            cluster: bytes(noise),
            incarnation: bytes(noise),
            meant: bytes(noise),
        }),
        requests: (0..noise.below(4)).map(|_| request(noise)).collect(),
        replies: (0..noise.below(4)).map(|_| reply(noise)).collect(),
        ring: bytes(noise),
        ring_wanted: noise.one_in(2),
    }
}

fn written(frames: &[Frame]) -> Vec<u8> {
    let mut io = Vec::new();
    let mut writer = FrameWriter::new(&mut io);
    frames.iter().for_each(|frame| writer.add(frame).unwrap());
    writer.flush().now_or_never().unwrap().unwrap();
    io
}

/// Every frame of a stream and how it ended, in a bounded room.
fn read(bytes: &[u8], lengths: Vec<usize>) -> (Vec<Frame>, Result<(), String>) {
    // Room for reading is made by the mebibyte at most; an empty message takes two bytes and becomes a struct.
    let room = (3 << 20) + 300 * bytes.len();
    within(room, || {
        let mut reader = FrameReader::new(Pieces { bytes, lengths });
        let mut frames = Vec::new();
        loop {
            match reader.next().now_or_never().expect("the bytes are all there") {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, Ok(())),
                Err(error) => return (frames, Err(name(&error).to_owned())),
            }
        }
    })
}

fn name(error: &FrameError) -> &'static str {
    match error {
        FrameError::Io(_) => "ended",
        FrameError::Length { .. } => "length",
        FrameError::Decode(_) => "decode",
    }
}

#[test]
fn any_stream_of_frames_is_read_alike_however_it_comes_and_in_bounded_room() {
    fuzz("frames", |noise| {
        let frames: Vec<Frame> = (0..1 + noise.below(3)).map(|_| frame(noise)).collect();
        let good = written(&frames);
        assert_eq!(read(&good, Vec::new()), (frames, Ok(())));
        let other = written(&[frame(noise)]);
        let mut bytes = damaged(noise, &good, &other);
        if noise.one_in(4) {
            // A length that promises much.
            let length = (noise.number() as u32).to_be_bytes();
            drop(bytes.splice(..4.min(bytes.len()), length));
        }
        let longest = *noise.pick(&[2, 50, 5000]);
        let lengths = (0..noise.below(2000)).map(|_| 1 + noise.below(longest)).collect();
        let whole = read(&bytes, Vec::new());
        assert_eq!(read(&bytes, lengths), whole);
        let again = written(&whole.0);
        assert_eq!(read(&again, Vec::new()), (whole.0, Ok(())), "what was read is written the same way");
    });
}

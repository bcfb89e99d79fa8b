//! Replies on their way out: small ones gathered in one buffer, large values passed on without a copy.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Values from this length on are written from where they are, in bytes.
const PASS_ON_BYTES_MIN: usize = 8 << 10;
/// Most pieces handed to the socket at once.
const SLICES_MAX: usize = 32;
/// A gathering buffer larger than this is given back when it is empty, in bytes.
const KEEP_BYTES_MAX: usize = 64 << 10;

/// Bytes to be written, in order.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Pieces that are complete; the gathering buffer comes after them.
    pieces: VecDeque<Bytes>,
    gathered: BytesMut,
    bytes: usize,
    unflushed: bool,
}

impl Output {
    /// Bytes not yet taken by the socket.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds bytes by copying them.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(bytes);
        self.bytes += bytes.len();
    }

    /// Adds a value, by copying it only if it is small.
    pub(super) fn push_value(&mut self, value: Bytes) {
        if value.len() < PASS_ON_BYTES_MIN {
            return self.push(&value);
        }
        if !self.gathered.is_empty() {
            self.pieces.push_back(self.gathered.split().freeze());
        }
        self.bytes += value.len();
        self.pieces.push_back(value);
    }

    /// Writes as much as the socket takes. Ready when everything is written and flushed.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn poll_write<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.bytes > 0 {
            let written = if self.pieces.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.gathered))?
            } else {
                let slices = self.pieces.iter().map(|piece| &piece[..]).chain([&self.gathered[..]]);
                let slices: Vec<IoSlice<'_>> = slices.take(SLICES_MAX).map(IoSlice::new).collect();
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.consume(written);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn consume(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(piece) = self.pieces.front_mut() {
            if written < piece.len() {
                return piece.advance(written);
            }
            written -= piece.len();
            self.pieces.pop_front();
        }
        if written < self.gathered.len() {
            self.gathered.advance(written);
        } else if self.gathered.capacity() > KEEP_BYTES_MAX {
            self.gathered = BytesMut::new();
        } else {
            self.gathered.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn pieces_arrive_in_order_through_a_narrow_pipe() {
        let mut output = Output::default();
        let mut expected = Vec::new();
        for index in 0..100u32 {
            let length = if index % 3 == 0 { PASS_ON_BYTES_MIN } else { 100 };
            let value = Bytes::from(index.to_be_bytes().repeat(length / 4));
            expected.extend_from_slice(&value);
            output.push_value(value);
        }
        assert_eq!(output.bytes(), expected.len());
        let (mut near, mut far) = tokio::io::duplex(1000);
        let reading = tokio::spawn(async move {
            let mut received = Vec::new();
            far.read_to_end(&mut received).await.map(|_| received)
        });
        std::future::poll_fn(|cx| output.poll_write(&mut near, cx)).await.unwrap();
        assert_eq!(output.bytes(), 0);
        drop(near);
        assert_eq!(reading.await.unwrap().unwrap(), expected);
    }
}

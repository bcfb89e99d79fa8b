//! The peer port: streams of frames and gRPC come to the same one, and their first bytes tell which is which.

use super::exchange::{PeerService, RequestHandler};
use super::frames::PREFACE;
use crate::net::{BoxedIo, Incoming};
use futures::StreamExt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// How long a connection may take to say what it is.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most connections of the peer port at once; there is one from each member, and those for bulk and control.
const CONNECTIONS_MAX: usize = 4096;

/// Serves the peer streams among these connections until `stop`, and hands the others out for gRPC.
pub(super) fn sort_out<H: RequestHandler>(
    mut incoming: Incoming,
    service: Arc<PeerService<H>>,
    stop: CancellationToken,
) -> Incoming {
    let (grpc, handed_out) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = incoming.next(), if connections.len() < CONNECTIONS_MAX => accepted,
            };
            match accepted {
                None => return,
                Some(Err(error)) => tracing::warn!(%error, "a connection of a peer could not be accepted"),
                Some(Ok(io)) => drop(connections.spawn(begin(io, service.clone(), grpc.clone()))),
            }
        }
    });
    Box::pin(ReceiverStream::new(handed_out))
}

async fn begin<H: RequestHandler>(
    mut io: BoxedIo,
    service: Arc<PeerService<H>>,
    grpc: mpsc::Sender<io::Result<BoxedIo>>,
) {
    let mut first = [0; PREFACE.len()];
    match tokio::time::timeout(PREFACE_TIMEOUT, io.read_exact(&mut first)).await {
        Ok(Ok(_)) if first == PREFACE => service.exchange(io).await,
        Ok(Ok(_)) => drop(grpc.send(Ok(BoxedIo::new(Begun { first, taken: 0, io }))).await),
        Ok(Err(_)) | Err(_) => {}
    }
}

/// A stream of which the first bytes have been read already.
struct Begun {
    first: [u8; PREFACE.len()],
    taken: usize,
    io: BoxedIo,
}

impl AsyncRead for Begun {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.taken == self.first.len() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let left = &self.first[self.taken..];
        let bytes = left.len().min(buf.remaining());
        buf.put_slice(&left[..bytes]);
        self.taken += bytes;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn a_stream_that_was_looked_at_is_read_from_its_beginning() {
        let (near, mut far) = tokio::io::duplex(100);
        far.write_all(b"0.1.2.3.").await.unwrap();
        far.write_all(b"and the rest").await.unwrap();
        drop(far);
        let mut near = BoxedIo::new(near);
        let mut first = [0; PREFACE.len()];
        near.read_exact(&mut first).await.unwrap();
        let mut begun = Begun { first, taken: 0, io: near };
        let mut little = [0; 3];
        begun.read_exact(&mut little).await.unwrap();
        let mut rest = String::new();
        begun.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&little, rest.as_str()), (b"0.1", ".2.3.and the rest"));
    }
}

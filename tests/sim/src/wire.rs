//! The network of a run: turmoil's sockets behind the node's seam, with every byte written to the trace.

use crate::shared::Shared;
use annulus_node::net::{BoxedIo, Connector, Incoming};
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// Opens connections from the host with this number.
#[must_use]
pub fn connector(shared: &Arc<Shared>, host: u64) -> Connector {
    let shared = shared.clone();
    Arc::new(move |address: String| {
        let shared = shared.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(address.as_str()).await?;
            Ok(BoxedIo::new(Traced { stream, shared, host }))
        })
    })
}

/// Takes connections at a port of the host with this number.
///
/// # Errors
/// When the port is in use.
pub async fn incoming(shared: &Arc<Shared>, host: u64, port: u16) -> io::Result<Incoming> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    let shared = shared.clone();
    Ok(Box::pin(futures::stream::unfold(listener, move |listener| {
        let shared = shared.clone();
        async move {
            let accepted = listener.accept().await;
            let accepted = accepted.map(|(stream, _)| BoxedIo::new(Traced { stream, shared, host }));
            Some((accepted, listener))
        }
    })))
}

/// A stream whose host's writes go to the trace.
struct Traced {
    stream: TcpStream,
    shared: Arc<Shared>,
    host: u64,
}

impl AsyncRead for Traced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Traced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = &written {
            self.shared.trace.note(b'w', self.host, &buf[..*bytes]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! How a node reaches the network: a seam, so that a whole node runs over simulated sockets too.

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// A byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Some byte stream.
pub struct BoxedIo {
    io: Box<dyn Io>,
    ends: Ends,
}

/// Addresses of a connection's two ends, where they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Of whoever connected.
    pub remote: Option<SocketAddr>,
    /// What it connected to.
    pub local: Option<SocketAddr>,
}

impl BoxedIo {
    /// Hides what kind of stream it is.
    pub fn new(io: impl Io) -> Self {
        Self::between(io, Ends::default())
    }

    /// The same of a stream with known ends.
    pub fn between(io: impl Io, ends: Ends) -> Self {
        Self { io: Box::new(io), ends }
    }

    /// Addresses of its ends.
    #[must_use]
    pub fn ends(&self) -> Ends {
        self.ends
    }
}

impl AsyncRead for BoxedIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for BoxedIo {
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

impl Connected for BoxedIo {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        TcpConnectInfo { local_addr: self.ends.local, remote_addr: self.ends.remote }
    }
}

/// Opens a stream to a `host:port`.
pub type Connector = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<BoxedIo>> + Send + Sync>;

/// Connections that come in.
pub type Incoming = Pin<Box<dyn futures::Stream<Item = io::Result<BoxedIo>> + Send>>;

/// A connector over TCP, without delay of small writes.
#[must_use]
pub fn tcp_connector() -> Connector {
    Arc::new(|address: String| {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(BoxedIo::new(stream))
        })
    })
}

/// A listener on TCP, without delay of small writes, as a stream of connections.
///
/// # Errors
/// When the address cannot be bound.
pub async fn tcp_incoming(address: SocketAddr) -> io::Result<(SocketAddr, Incoming)> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let local = listener.local_addr()?;
    let incoming = futures::stream::unfold(listener, |listener| async move {
        let accepted = match listener.accept().await {
            Ok((stream, remote)) => {
                let ends = Ends { remote: Some(remote), local: stream.local_addr().ok() };
                stream.set_nodelay(true).map(|()| BoxedIo::between(stream, ends))
            }
            Err(error) => {
                // Out of file descriptors, most likely: give those in use time to close.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(error)
            }
        };
        Some((accepted, listener))
    });
    Ok((local, Box::pin(incoming)))
}

/// Most bytes of an HTTP/2 frame that is received from a peer. With the 16 KiB of the standard each page of a partition
/// would come in dozens.
const FRAME_BYTES_MAX: u32 = 1 << 20;

/// A gRPC channel to a peer over this connector. Fails if the peer cannot be connected to now.
///
/// # Errors
/// When the connection fails or takes longer than `timeout`.
pub async fn channel(connector: &Connector, address: &str, timeout: Duration) -> Result<Channel, ChannelError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_keep_alive_interval(Duration::from_secs(10));
    let connector = connector.clone();
    let address = address.to_owned();
    let connect = service_fn(move |_: Uri| {
        let opening = connector(address.clone());
        async move { opening.await.map(TokioIo::new) }
    });
    Ok(tokio::time::timeout(timeout, endpoint.connect_with_connector(connect)).await??)
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The address is not one, or the connection failed.
    #[error("{0}")]
    Transport(#[from] tonic::transport::Error),
    /// It took too long.
    #[error("connecting took too long")]
    TimedOut(#[from] tokio::time::error::Elapsed),
}

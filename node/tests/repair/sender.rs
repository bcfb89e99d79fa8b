//! The other end of a peer stream, byte by byte.

use super::cluster::{Cluster, incarnation};
use annulus_proto::v1::{Frame, Hello, Reply};
use bytes::Bytes;
use dynamo::ring::Ring;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

/// A member that speaks for itself.
pub struct Sender(TcpStream);

impl Sender {
    /// One that begins a stream to the first node, and means that incarnation.
    pub async fn new(cluster: &Cluster, ring: &Ring, meant: Uuid) -> Self {
        let mut stream = TcpStream::connect(cluster.peer_address(0)).await.unwrap();
        stream.write_all(b"annulus\x02").await.unwrap();
        let bytes = |uuid: Uuid| Bytes::copy_from_slice(uuid.as_bytes());
        let hello =
            Hello { cluster: bytes(ring.cluster), incarnation: bytes(incarnation(1)), meant: bytes(meant) };
        let mut sender = Self(stream);
        sender.send(Frame { epoch: ring.epoch, hello: Some(hello), ..Frame::default() }).await;
        sender
    }

    pub async fn send(&mut self, frame: Frame) {
        let frame = frame.encode_to_vec();
        self.0.write_u32(u32::try_from(frame.len()).unwrap()).await.unwrap();
        self.0.write_all(&frame).await.unwrap();
    }

    /// The next frame.
    pub async fn frame(&mut self) -> std::io::Result<Frame> {
        let length = self.0.read_u32().await?;
        let mut bytes = vec![0; length as usize];
        self.0.read_exact(&mut bytes).await?;
        Ok(Frame::decode(bytes.as_slice())?)
    }

    /// The next frame with replies.
    pub async fn replies(&mut self) -> Vec<Reply> {
        loop {
            let frame = self.frame().await.unwrap();
            if !frame.replies.is_empty() {
                return frame.replies;
            }
        }
    }
}

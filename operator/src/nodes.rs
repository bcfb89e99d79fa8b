//! What the operator says to nodes, as a trait, so that tests can stand in for them.

use annulus_proto::v1::control_client::ControlClient;
use annulus_proto::v1::{GetRingRequest, InstallRingRequest, NodeStatus, StatusRequest};
use futures::future::BoxFuture;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

use crate::plan::wish::PEER_PORT;

/// A request to a node that failed. Whether a ring that was to be installed is installed is not known.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No connection.
    #[error("no connection to {address}: {source}")]
    Connect {
        /// Of the node.
        address: SocketAddr,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The node refused or failed.
    #[error("{address} answered {}: {}", .status.code(), .status.message())]
    Refused {
        /// Of the node.
        address: SocketAddr,
        /// With what.
        status: Box<tonic::Status>,
    },
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

/// The control interface of nodes.
pub trait NodeClient: Send + Sync + 'static {
    /// What the node says of itself.
    fn status(&self, node: IpAddr) -> BoxFuture<'_, Result<NodeStatus, NodeError>>;
    /// The ring document that it holds, as JSON; empty if it holds none.
    fn ring(&self, node: IpAddr) -> BoxFuture<'_, Result<Vec<u8>, NodeError>>;
    /// Hands over a ring document; returns the epoch that the node holds then.
    fn install(&self, node: IpAddr, json: Vec<u8>) -> BoxFuture<'_, Result<u64, NodeError>>;
}

/// The control interface over gRPC. Every request has its own connection, so that none outlives its pod.
#[derive(Clone, Copy, Debug)]
pub struct GrpcNodes {
    /// How long a request may take, the connection included.
    pub timeout: Duration,
}

/// Largest answer that is read: a ring of 16384 partitions, in full motion, is below 1 MiB.
const ANSWER_BYTES_MAX: usize = 8 << 20;

impl GrpcNodes {
    async fn connect(self, address: SocketAddr) -> Result<ControlClient<Channel>, NodeError> {
        let failed = |source| NodeError::Connect { address, source };
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(failed)?;
        let channel = endpoint.connect_timeout(self.timeout).connect().await.map_err(failed)?;
        Ok(ControlClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
    }

    async fn within<T>(self, request: impl Future<Output = Result<T, NodeError>> + Send) -> Result<T, NodeError> {
        tokio::time::timeout(self.timeout, request).await.map_err(|_| NodeError::Timeout(self.timeout))?
    }
}

fn refused(address: SocketAddr) -> impl Fn(tonic::Status) -> NodeError {
    move |status| NodeError::Refused { address, status: Box::new(status) }
}

impl NodeClient for GrpcNodes {
    fn status(&self, node: IpAddr) -> BoxFuture<'_, Result<NodeStatus, NodeError>> {
        let address = SocketAddr::new(node, PEER_PORT);
        Box::pin(self.within(async move {
            let mut client = self.connect(address).await?;
            Ok(client.status(StatusRequest {}).await.map_err(refused(address))?.into_inner())
        }))
    }

    fn ring(&self, node: IpAddr) -> BoxFuture<'_, Result<Vec<u8>, NodeError>> {
        let address = SocketAddr::new(node, PEER_PORT);
        Box::pin(self.within(async move {
            let mut client = self.connect(address).await?;
            let answer = client.get_ring(GetRingRequest {}).await.map_err(refused(address))?;
            Ok(answer.into_inner().ring.to_vec())
        }))
    }

    fn install(&self, node: IpAddr, json: Vec<u8>) -> BoxFuture<'_, Result<u64, NodeError>> {
        let address = SocketAddr::new(node, PEER_PORT);
        Box::pin(self.within(async move {
            let mut client = self.connect(address).await?;
            let request = InstallRingRequest { ring: json.into() };
            Ok(client.install_ring(request).await.map_err(refused(address))?.into_inner().epoch)
        }))
    }
}

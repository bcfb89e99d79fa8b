//! The gRPC front end: `annulus.v1.KeyValue`, `grpc.health.v1.Health` and reflection.
//!
//! Where RESP shows the last writer's value, gRPC shows all siblings and the causal context to put with.

mod convert;
mod health;
mod service;
mod status;

use super::metrics::Metrics;
use crate::coordinator::KeyValue;
use annulus_proto::DESCRIPTORS;
use annulus_proto::v1::key_value_server::KeyValueServer;
use futures::Stream;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Error as ReflectionError;

/// Methods that are counted, in the order of their numbers.
pub(super) const METHODS: [&str; 5] = ["get", "put", "delete", "batch", "scan"];

/// Room that a message has beyond its key and value, in bytes.
const MESSAGE_SLACK_BYTES: usize = 64 << 10;
/// Most requests of one connection under way at once.
const STREAMS_MAX: u32 = 1024;
/// Connections that say nothing for so long are asked whether they live.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// The services, to be served alone or beside others.
///
/// # Errors
/// When the descriptors built into the binary cannot be read.
pub fn routes<K: KeyValue>(store: K, metrics: &Metrics) -> Result<Routes, ReflectionError> {
    let limits = store.limits();
    // A batch, or the siblings of a key, may take as much room as the requests and replies of a RESP connection.
    let received_max = limits.connection_request_bytes_max.max(limits.value_bytes_max + MESSAGE_SLACK_BYTES);
    let sent_max = limits.connection_reply_bytes_max.max(limits.value_bytes_max + MESSAGE_SLACK_BYTES);
    let health = HealthServer::new(health::Health::new(store.clone()));
    let service = KeyValueServer::new(service::Service::new(store, metrics.front.clone()))
        .max_decoding_message_size(received_max)
        .max_encoding_message_size(sent_max);
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("annulus.v1.KeyValue")
            .with_service_name("grpc.health.v1.Health")
    };
    Ok(Routes::new(service)
        .add_service(health)
        .add_service(descriptors().build_v1()?)
        .add_service(descriptors().build_v1alpha()?))
}

/// Serves the services on every connection that comes in, until `shutdown` is cancelled; requests under way are answered.
///
/// # Errors
/// When the descriptors cannot be read, before anything is served, or when the transport fails.
pub async fn serve<K, I, IO>(
    incoming: I,
    store: K,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), GrpcError>
where
    K: KeyValue,
    I: Stream<Item = io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Connected + Send + Unpin + 'static,
{
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_adaptive_window(Some(true))
        .add_routes(routes(store, &metrics)?);
    Ok(server.serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned()).await?)
}

/// Why the gRPC front end could not be served.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// The descriptors built into the binary cannot be read.
    #[error("service descriptors: {0}")]
    Descriptors(#[from] ReflectionError),
    /// The transport failed.
    #[error("gRPC transport: {0}")]
    Transport(#[from] tonic::transport::Error),
}

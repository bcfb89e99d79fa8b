//! What clients and people connect to: RESP, gRPC and HTTP.
#![allow(missing_docs)]
use crate::coordinator::Coordinator;
use crate::net::Incoming;
use tokio_util::sync::CancellationToken;
#[derive(Clone)]
pub struct Metrics;
impl Metrics { pub fn new(_: Coordinator) -> Self { Self } }
pub mod http { use super::*; pub async fn serve(_: Incoming, _: Coordinator, _: Metrics, c: CancellationToken) { c.cancelled().await } }
pub mod grpc { use super::*; pub async fn serve(_: Incoming, _: Coordinator, c: CancellationToken) { c.cancelled().await } }
pub mod resp { use super::*; pub async fn serve(_: Incoming, _: Coordinator, _: Metrics, c: CancellationToken) { c.cancelled().await } }

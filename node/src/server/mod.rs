//! What clients and people connect to: RESP, gRPC and HTTP.

pub mod grpc;
pub mod http;
pub mod metrics;
pub mod resp;
mod statistics;
mod storage_metrics;

pub use metrics::Metrics;
pub use storage_metrics::StorageMetrics;

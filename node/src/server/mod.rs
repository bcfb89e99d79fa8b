//! What clients and people connect to: RESP, gRPC and HTTP.

pub mod grpc;
pub mod http;
pub mod metrics;
pub mod resp;

pub use metrics::Metrics;

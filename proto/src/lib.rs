//! The gRPC contracts of Annulus: types generated from `proto/annulus/v1/*.proto`, and their conversion to and from
//! the types of `dynamo`.
#![forbid(unsafe_code)]

mod convert;

pub use convert::{FieldError, certificate, report, uuid_from};

/// Messages, clients and servers of the package `annulus.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications)]
pub mod v1 {
    tonic::include_proto!("annulus.v1");
}

/// Descriptors of all services, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

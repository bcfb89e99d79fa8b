//! Conversions between messages and the types of `dynamo`.

use crate::v1;
use dynamo::moves::{Certificate, Report};
use uuid::Uuid;

/// A field of a message that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FieldError {
    /// Not a UUID of 16 bytes.
    #[error("field {field} has {length} bytes; a UUID has 16")]
    Uuid {
        /// Name of the field.
        field: &'static str,
        /// Its length in bytes.
        length: usize,
    },
}

/// Reads a UUID field.
///
/// # Errors
/// [`FieldError::Uuid`] when it is not 16 bytes long.
pub fn uuid_from(field: &'static str, bytes: &[u8]) -> Result<Uuid, FieldError> {
    Uuid::from_slice(bytes).map_err(|_| FieldError::Uuid { field, length: bytes.len() })
}

/// What a node's status says that the moves depend on.
#[must_use]
pub fn report(status: &v1::NodeStatus) -> Report {
    Report {
        epoch: status.epoch,
        synced: status.synced.iter().map(|synced| (synced.partition, synced.since)).collect(),
        unreachable: status.unreachable.iter().filter_map(|id| uuid_from("unreachable", id).ok()).collect(),
        serving_bytes: status.serving_bytes,
        beside_clients: status.beside_clients_bytes_per_second,
        held_up: Some(status.copying_error.clone()).filter(|error| !error.is_empty()),
    }
}

/// What a node's status says about whether it may go.
///
/// # Errors
/// [`FieldError`] when it names no cluster or incarnation; then it proves nothing.
pub fn certificate(status: &v1::NodeStatus) -> Result<Certificate, FieldError> {
    Ok(Certificate {
        cluster: uuid_from("cluster", &status.cluster)?,
        incarnation: uuid_from("incarnation", &status.incarnation)?,
        epoch: status.epoch,
        listed_partitions: status.listed_partitions,
        hints: status.hints,
        leftover_partitions: status.leftover_partitions,
    })
}

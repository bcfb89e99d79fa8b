//! Failures as gRPC says them.

use crate::coordinator::RequestError;
use tonic::{Code, Status};

/// The status of a request that was not carried out.
///
/// UNAVAILABLE and DEADLINE_EXCEEDED leave open whether a write was stored; with RESOURCE_EXHAUSTED, INVALID_ARGUMENT
/// and FAILED_PRECONDITION nothing was.
pub(super) fn status(error: &RequestError) -> Status {
    let code = match error {
        RequestError::NoRing | RequestError::Unavailable { .. } => Code::Unavailable,
        RequestError::Overloaded(_) | RequestError::DiskFull { .. } => Code::ResourceExhausted,
        RequestError::KeyTooLong { .. } | RequestError::ValueTooLong { .. } | RequestError::Invalid(_) => {
            Code::InvalidArgument
        }
        RequestError::TooManySiblings { .. } => Code::FailedPrecondition,
        RequestError::Storage(_) => Code::Internal,
        RequestError::TimedOut(_) => Code::DeadlineExceeded,
    };
    Status::new(code, error.to_string())
}

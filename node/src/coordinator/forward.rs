//! Having a replica of the key coordinate a write that came to a node which is none.

use super::{Causality, Coordinator, RequestError, Write, WriteOptions, Written};
use crate::ring_state::Installed;
use annulus_proto::v1::{Coordinate, Failure, coordinate, failure, reply, request::Operation};
use bytes::Bytes;
use dynamo::hlc::Hlc;
use dynamo::object::{Context, Payload};
use std::sync::Arc;

/// What became of a write that others were to coordinate.
pub(super) enum Forwarded {
    Written(Written),
    /// The ring changed meanwhile and nothing was written: look again.
    RingChanged,
    /// No replica can be reached.
    NobodyThere,
}

impl Coordinator {
    /// Asks the reachable replicas in turn.
    ///
    /// A replica that fails after it was sent the write may have stored it; the next one is asked all the same, since a
    /// second write of the same value takes nothing away.
    pub(super) async fn forward(
        &self,
        installed: &Arc<Installed>,
        partition: u32,
        key: &Bytes,
        write: &Write,
        options: WriteOptions,
    ) -> Result<Forwarded, RequestError> {
        let since = installed.view.since_of(partition);
        let holders = installed.view.placement(partition).map(|placement| placement.holders()).unwrap_or_default();
        let mut last = None;
        for member in holders {
            let Some(peer) = self.parts.peers.by_index(member).filter(|peer| peer.is_up()) else { continue };
            let request = Operation::Coordinate(to_message(write, options));
            let patience = self.parts.limits.replica_timeout * 2;
            match tokio::time::timeout(patience, peer.request(key.clone(), since, request)).await {
                Ok(Ok(reply::Result::Coordinated(done))) => {
                    let context = Context::decode(&done.context)
                        .map_err(|error| RequestError::Storage(error.to_string()))?;
                    let timestamp = Hlc(done.timestamp);
                    return Ok(Forwarded::Written(Written { timestamp, context, existed: done.existed }));
                }
                Ok(Ok(reply::Result::StaleEpoch(stale))) => {
                    let reached = self.parts.ring.reached(stale.epoch);
                    let _ = tokio::time::timeout(self.parts.limits.replica_timeout, reached).await;
                    return Ok(Forwarded::RingChanged);
                }
                Ok(Ok(reply::Result::Failure(failure))) if failure.code == failure::Code::NotAReplica as i32 => {
                    return Ok(Forwarded::RingChanged);
                }
                Ok(Ok(reply::Result::Failure(failure))) => last = Some(from_failure(failure)),
                Ok(Ok(_) | Err(_)) | Err(_) => {}
            }
        }
        last.map_or(Ok(Forwarded::NobodyThere), Err)
    }
}

fn to_message(write: &Write, options: WriteOptions) -> Coordinate {
    Coordinate {
        value: match &write.payload {
            Payload::Bytes(value) => Some(value.clone()),
            Payload::Tombstone => None,
        },
        expires_at_ms: write.expires_at_ms,
        causality: Some(match &write.causality {
            Causality::Overwrite => coordinate::Causality::Overwrite(true),
            Causality::Context(context) => coordinate::Causality::Context(context.encode()),
        }),
        replicas: u32::from(options.replicas.unwrap_or(0)),
        strict: options.strict,
        change: None,
    }
}

pub(super) fn from_failure(failure: Failure) -> RequestError {
    match failure::Code::try_from(failure.code) {
        Ok(failure::Code::Overloaded) => RequestError::Overloaded("a replica's queue is full"),
        Ok(failure::Code::Invalid) => RequestError::Invalid(failure.message),
        Ok(failure::Code::Unavailable) => RequestError::Unavailable { got: 0, need: 1, missing: failure.message },
        _ => RequestError::Storage(failure.message),
    }
}

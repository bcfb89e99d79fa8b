//! A client's write, carried out here: what it replaces goes, and it gets a dot.

use super::{ANYWHERE, Replica, ReplicaError, Updated, Weight, storage_key};
use crate::coordinator::{Causality, Write};
use crate::storage::{Reservation, Submitted};
use bytes::Bytes;
use dynamo::hlc::Hlc;
use dynamo::object::{Object, Payload, Value};
use dynamo::token::Token;
use std::sync::atomic::Ordering;

/// What this node stored as coordinator of a write.
pub struct Coordinated {
    /// The object after the write, encoded: what the other replicas are sent.
    pub encoded: Bytes,
    /// The object itself.
    pub object: Object,
    /// Timestamp the value was given.
    pub timestamp: Hlc,
    /// Whether there was a live value before.
    pub existed: bool,
    /// Resolves when this node's own copy is durable.
    pub durable: Submitted,
}

struct Decided {
    object: Object,
    encoded: Bytes,
    timestamp: Hlc,
    existed: bool,
}

impl Replica {
    /// Coordinates a client's write as a replica: discards what it replaces, gives it a dot, queues the result.
    ///
    /// # Errors
    /// [`ReplicaError`]; nothing was stored.
    pub async fn coordinate(
        &self,
        token: Token,
        key: &[u8],
        write: Write,
        since: u64,
    ) -> Result<Coordinated, ReplicaError> {
        let reservation = self.committer.reserve(write_bytes(key, &write)).await?;
        self.coordinate_reserved(token, key, write, since, reservation)
    }

    /// As [`Replica::coordinate`], without waiting for room in the commit queue.
    ///
    /// # Errors
    /// [`Overloaded`](crate::storage::StorageError::Overloaded) when there is no room now, and those of
    /// [`Replica::coordinate`]; nothing was stored.
    pub fn try_coordinate(
        &self,
        token: Token,
        key: &[u8],
        write: Write,
        since: u64,
    ) -> Result<Coordinated, ReplicaError> {
        let reservation = self.committer.try_reserve(write_bytes(key, &write))?;
        self.coordinate_reserved(token, key, write, since, reservation)
    }

    fn coordinate_reserved(
        &self,
        token: Token,
        key: &[u8],
        write: Write,
        since: u64,
        reservation: Reservation,
    ) -> Result<Coordinated, ReplicaError> {
        let updated = self.objects.update(storage_key(token, key), reservation, |current| {
            self.admit(token, since)?;
            let current_len = current.as_ref().map_or(0, Bytes::len);
            let before = current.map(Object::decode).transpose()?;
            let result = self.decide(token, before.as_ref(), write)?;
            let weight = before.as_ref().map(|object| Weight::of(key, object, current_len)).unwrap_or_default();
            self.counters.replace(token, weight, Weight::of(key, &result.object, result.encoded.len()));
            Ok::<_, ReplicaError>((Some(result.encoded.clone()), result))
        })?;
        match updated {
            Updated::Queued(Decided { object, encoded, timestamp, existed }, durable) => {
                Ok(Coordinated { encoded, object, timestamp, existed, durable })
            }
            // `decide` always stores.
            Updated::Unchanged(_) => Err(ReplicaError::Stale),
        }
    }

    /// The same for a key that this node is no replica of: nothing is known of it, nothing is stored, and the write
    /// stands beside whatever the replicas have.
    ///
    /// # Errors
    /// [`ReplicaError::TooManySiblings`] cannot occur; others cannot either, today.
    pub fn coordinate_blind(&self, write: Write) -> Result<(Object, Bytes, Hlc), ReplicaError> {
        let decided = self.decide(ANYWHERE, None, write)?;
        Ok((decided.object, decided.encoded, decided.timestamp))
    }

    fn decide(&self, token: Token, before: Option<&Object>, write: Write) -> Result<Decided, ReplicaError> {
        let wall = self.now_ms();
        let timestamp = self.timestamp(wall, before.and_then(Object::max_timestamp));
        let value = Value { timestamp, expires_at_ms: write.expires_at_ms, payload: write.payload };
        let actor = self.actors.of(token, before);
        let empty = Object::default();
        let before = before.unwrap_or(&empty);
        let existed = before.visible(wall).is_some();
        let object = match &write.causality {
            Causality::Overwrite => before.overwrite(actor, value),
            Causality::Context(context) => before.put(actor, context, value),
        };
        let siblings = object.sibling_count();
        if siblings > self.siblings_max {
            self.siblings_refused.fetch_add(1, Ordering::Relaxed);
            return Err(ReplicaError::TooManySiblings { siblings: siblings - 1 });
        }
        let encoded = object.encode();
        Ok(Decided { object, encoded, timestamp, existed })
    }
}

/// What a write takes in the commit queue, about.
fn write_bytes(key: &[u8], write: &Write) -> usize {
    let payload = match &write.payload {
        Payload::Bytes(bytes) => bytes.len(),
        Payload::Tombstone => 0,
    };
    key.len() + payload + 128
}

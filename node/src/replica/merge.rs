//! What another replica has, merged into what is here.

use super::{Replica, ReplicaError, Updated, Weight, storage_key};
use crate::planted;
use crate::storage::{Reservation, Submitted};
use bytes::Bytes;
use dynamo::object::Object;
use dynamo::token::Token;

impl Replica {
    /// Merges another replica's object into what is here. `None`: there was nothing new in it.
    ///
    /// # Errors
    /// [`ReplicaError`]; nothing was stored.
    pub async fn merge(
        &self,
        token: Token,
        key: &[u8],
        incoming: Bytes,
        since: u64,
    ) -> Result<Option<Submitted>, ReplicaError> {
        let reservation = self.committer.reserve(key.len() + incoming.len()).await?;
        self.merge_reserved(token, key, incoming, since, reservation)
    }

    /// As [`Replica::merge`], without waiting for room in the commit queue.
    ///
    /// # Errors
    /// [`Overloaded`](crate::storage::StorageError::Overloaded) when there is no room now, and those of
    /// [`Replica::merge`]; nothing was stored.
    pub fn try_merge(
        &self,
        token: Token,
        key: &[u8],
        incoming: Bytes,
        since: u64,
    ) -> Result<Option<Submitted>, ReplicaError> {
        let reservation = self.committer.try_reserve(key.len() + incoming.len())?;
        self.merge_reserved(token, key, incoming, since, reservation)
    }

    fn merge_reserved(
        &self,
        token: Token,
        key: &[u8],
        incoming: Bytes,
        since: u64,
        reservation: Reservation,
    ) -> Result<Option<Submitted>, ReplicaError> {
        let object = Object::decode(incoming.clone())?;
        let updated = self.objects.update(storage_key(token, key), reservation, |current| {
            self.admit(token, since)?;
            let Some(current) = current else {
                self.actors.mistrust_returning(token, None, &object);
                self.counters.replace(token, Weight::default(), Weight::of(key, &object, incoming.len()));
                return Ok((Some(incoming), ()));
            };
            if current == incoming {
                return Ok((None, ()));
            }
            let mine = Object::decode(current.clone())?;
            self.actors.mistrust_returning(token, Some(&mine), &object);
            let mut merged = mine.merge(&object);
            if planted::is("merge-drops-sibling") && mine.max_timestamp() < object.max_timestamp() {
                merged = object.clone();
            }
            if let Some(change) = planted::after_merge(&merged, &mine, &object) {
                let changed = merged.change(&change, self.by(token, Some(&mine), &merged));
                merged = changed.0.unwrap_or(merged);
            }
            if merged == mine {
                return Ok((None, ()));
            }
            let encoded = if merged == object { incoming } else { merged.encode() };
            let before = Weight::of(key, &mine, current.len());
            self.counters.replace(token, before, Weight::of(key, &merged, encoded.len()));
            Ok::<_, ReplicaError>((Some(encoded), ()))
        })?;
        self.observe(&object);
        match updated {
            Updated::Queued((), submitted) => Ok(Some(submitted)),
            Updated::Unchanged(()) => Ok(None),
        }
    }
}

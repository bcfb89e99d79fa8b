//! Objects that go: of partitions that no list names this node for, and those whose deletion is collected.

use super::{PageBounds, RemovedPage, Replica, ReplicaError, Weight, split_storage_key};
use crate::planted;
use crate::storage::{ScanRange, Submitted};
use bytes::Bytes;
use dynamo::object::Object;
use dynamo::token::Token;

impl Replica {
    /// Drops the objects on the first page of a range for whose partitions no list names this node; those that are listed
    /// again stay. `None`: so much is committed now that it cannot be done for a whole page.
    ///
    /// # Errors
    /// When the engine cannot be read; nothing was dropped.
    pub async fn drop_unlisted_page(
        &self,
        range: &ScanRange,
        bounds: PageBounds,
    ) -> Result<Option<RemovedPage>, ReplicaError> {
        let reservation = self.committer.reserve_control().await;
        Ok(self.objects.remove_page(range, bounds, reservation, |key, value| self.forget_unlisted(key, value))?)
    }

    /// Drops one object if no list names this node for its partition. `None`: it stays or is gone already.
    ///
    /// # Errors
    /// When the engine cannot be read; nothing was dropped.
    pub async fn drop_unlisted(&self, storage_key: &Bytes) -> Result<Option<Submitted>, ReplicaError> {
        let reservation = self.committer.reserve_control().await;
        Ok(self.objects.remove_if(storage_key, reservation, |value| self.forget_unlisted(storage_key, value))?)
    }

    /// Whether no list names this node for a key; then it is not counted any more.
    fn forget_unlisted(&self, storage_key: &Bytes, value: &Bytes) -> bool {
        let Some((token, key)) = split_storage_key(storage_key) else { return false };
        // Under the lock: a write that a newer ring lets in comes after this removal, not before it.
        let Some(installed) = self.ring.load() else { return false };
        let placement = installed.view.placement(installed.view.partition(token));
        let listed = |me| placement.is_some_and(|placement| placement.names(me));
        if installed.me.is_some_and(listed) && !planted::is("leftovers-ignore-second-list") {
            return false;
        }
        self.uncount(token, &key, value);
        true
    }

    /// Removes an object under the ring of `epoch` if `decide` says so of what is here. `None`: it stays or is gone
    /// already.
    ///
    /// # Errors
    /// When the engine cannot be read; nothing was removed.
    pub async fn collect(
        &self,
        storage_key: &Bytes,
        epoch: u64,
        decide: impl FnOnce(&Bytes) -> bool,
    ) -> Result<Option<Submitted>, ReplicaError> {
        let reservation = self.committer.reserve_control().await;
        let Some((token, key)) = split_storage_key(storage_key) else { return Ok(None) };
        Ok(self.objects.remove_if(storage_key, reservation, |current| {
            // Under the lock: what a newer ring lets in comes after this removal, not before it.
            if self.ring.epoch() != epoch || !decide(current) {
                return false;
            }
            self.uncount(token, &key, current);
            true
        })?)
    }

    /// An object goes.
    fn uncount(&self, token: Token, key: &[u8], value: &Bytes) {
        if let Ok(object) = Object::decode(value.clone()) {
            self.counters.replace(token, Weight::of(key, &object, value.len()), Weight::default());
        }
    }
}

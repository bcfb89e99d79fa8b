//! Objects of one keyspace with atomic read-modify-write per key, and no lock held across I/O to disk or network.
//!
//! A change is computed under the lock of its key's shard, put into an overlay of pending objects, and queued for the
//! committer before the lock is let go: so the queue's order is the order of the changes, and the next change of the key
//! starts from the pending object. The overlay entry goes when the commit has been applied to the engine.

use super::leaves::Leaves;
use crate::storage::{Change, Committer, Engine, EngineError, Reservation, Space, Submitted};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

const SHARDS: usize = 256;

type Pending = HashMap<Bytes, Option<Bytes>>;

/// Pending objects of one keyspace, shared with the committer's callback.
pub struct Overlay {
    space: Space,
    shards: Vec<Mutex<Pending>>,
    failed_commits: AtomicU64,
    on_taken_back: OnceLock<OnTakenBack>,
}

/// Hears, under the lock of its shard, of a key whose newest value was taken back by a failed commit, and of that
/// value. What the key has now only the engine knows: the commit may have been written all the same.
pub type OnTakenBack = Box<dyn Fn(&Bytes, Option<&Bytes>) + Send + Sync>;

impl Overlay {
    /// An empty overlay of one keyspace.
    #[must_use]
    pub fn new(space: Space) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::new(Pending::default())).collect();
        Arc::new(Self { space, shards, failed_commits: AtomicU64::new(0), on_taken_back: OnceLock::new() })
    }

    /// Whoever counts what is here has to be told of what is taken back. Only the first call counts.
    pub fn tell_of_taken_back(&self, told: OnTakenBack) {
        let _ = self.on_taken_back.set(told);
    }

    /// Called by the committer when a batch has been applied, or has failed: pending objects of that batch that no
    /// later change has replaced are forgotten, so the engine speaks for them again.
    pub fn committed(&self, changes: &[Change], stored: bool) {
        if !stored {
            // Before anything is forgotten: whoever then reads the older state also sees that there was a failure.
            self.failed_commits.fetch_add(1, Ordering::AcqRel);
        }
        for change in changes {
            let (space, key, value) = match change {
                Change::Put { space, key, value } => (space, key, Some(value)),
                Change::Remove { space, key } => (space, key, None),
            };
            if *space != self.space {
                continue;
            }
            let mut shard = self.shard(key).lock();
            if shard.get(key).is_some_and(|pending| same_allocation(pending.as_ref(), value)) {
                shard.remove(key);
                if let Some(told) = self.on_taken_back.get().filter(|_| !stored) {
                    told(key, value);
                }
            }
        }
    }

    /// How many batches have failed, so that pending objects were taken back.
    #[must_use]
    pub fn failed_commits(&self) -> u64 {
        self.failed_commits.load(Ordering::Acquire)
    }

    /// Returns when every change that was being computed at the time of the call is in the queue.
    pub fn pass_through(&self) {
        for shard in &self.shards {
            drop(shard.lock());
        }
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Pending> {
        // Keys begin with 8 bytes of token (or, for hints, with 16 of a UUID and then the token), whose low bits are
        // well spread; the last token byte picks the shard.
        let at = if self.space == Space::Hints { 23 } else { 7 };
        let byte = key.get(at).copied().unwrap_or(0);
        &self.shards[usize::from(byte) % SHARDS]
    }
}

/// Whether the pending value is the very one that was committed. A later change has an allocation of its own. Two
/// removals cannot be told apart; at worst a reader sees what stood between them once more before it goes.
fn same_allocation(pending: Option<&Bytes>, committed: Option<&Bytes>) -> bool {
    match (pending, committed) {
        (Some(pending), Some(committed)) => {
            pending.as_ptr() == committed.as_ptr() && pending.len() == committed.len()
        }
        (None, None) => true,
        _ => false,
    }
}

/// Objects of one keyspace.
pub struct Objects {
    engine: Arc<dyn Engine>,
    committer: Committer,
    overlay: Arc<Overlay>,
    leaves: Option<Arc<Leaves>>,
}

/// What became of an update.
pub enum Updated<R> {
    /// The new value is queued; it is durable once the future resolves. Until then it may be lost.
    Queued(R, Submitted),
    /// There was nothing to change, and what is here is durable.
    Unchanged(R),
}

impl Objects {
    /// Objects of the overlay's keyspace.
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>, committer: Committer, overlay: Arc<Overlay>) -> Self {
        Self { engine, committer, overlay, leaves: None }
    }

    /// The same, with every change noted in the leaves.
    #[must_use]
    pub fn noted_in(self, leaves: Arc<Leaves>) -> Self {
        Self { leaves: Some(leaves), ..self }
    }

    fn note(&self, key: &Bytes, before: Option<&Bytes>, after: Option<&Bytes>) {
        if let Some(leaves) = &self.leaves {
            leaves.replace(key, before, after);
        }
    }

    /// The newest value of a key, durable or not.
    ///
    /// # Errors
    /// When the engine cannot be read.
    pub fn read(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        if let Some(pending) = self.overlay.shard(key).lock().get(key) {
            return Ok(pending.clone());
        }
        self.engine.get(self.overlay.space, key)
    }

    /// Changes one key: `decide` sees the newest value and says what to store, `None` to leave it as it is.
    ///
    /// `decide` runs under the lock of the key's shard; whatever it checks (such as the ring's epoch) holds for the
    /// write's place in the queue.
    ///
    /// # Errors
    /// Those of the engine and of `decide`; nothing was changed.
    pub fn update<R, E: From<EngineError>>(
        &self,
        key: Bytes,
        reservation: Reservation,
        decide: impl FnOnce(Option<Bytes>) -> Result<(Option<Bytes>, R), E>,
    ) -> Result<Updated<R>, E> {
        let mut shard = self.overlay.shard(&key).lock();
        let pending = shard.get(&key).cloned();
        let current = match &pending {
            Some(pending) => pending.clone(),
            None => self.engine.get(self.overlay.space, &key)?,
        };
        let before = current.clone();
        let (value, result) = decide(current)?;
        if let Some(value) = &value {
            self.note(&key, before.as_ref(), Some(value));
        }
        // What is only pending is queued once more, so that whoever is told "unchanged" is not told so of something
        // that a failing commit may still take away.
        let Some(value) = value.or(pending.flatten()) else { return Ok(Updated::Unchanged(result)) };
        let change = Change::Put { space: self.overlay.space, key: key.clone(), value: value.clone() };
        shard.insert(key, Some(value));
        let submitted = self.committer.submit(vec![change], reservation);
        Ok(Updated::Queued(result, submitted))
    }

    /// Removes a key if `decide`, which sees its newest value under the lock of the key's shard, says so.
    ///
    /// # Errors
    /// When the engine cannot be read; nothing was removed.
    pub fn remove_if(
        &self,
        key: &Bytes,
        reservation: Reservation,
        decide: impl FnOnce(&Bytes) -> bool,
    ) -> Result<Option<Submitted>, EngineError> {
        let mut shard = self.overlay.shard(key).lock();
        let current = match shard.get(key) {
            Some(pending) => pending.clone(),
            None => self.engine.get(self.overlay.space, key)?,
        };
        let Some(current) = current.filter(|current| decide(current)) else { return Ok(None) };
        self.note(key, Some(&current), None);
        let change = Change::Remove { space: self.overlay.space, key: key.clone() };
        shard.insert(key.clone(), None);
        Ok(Some(self.committer.submit(vec![change], reservation)))
    }
}

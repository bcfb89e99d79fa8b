//! Objects of one keyspace with atomic read-modify-write per key, and no lock held across I/O to disk or network.
//!
//! A change is computed under the lock of its key's shard, put into an overlay of pending objects, and queued for the
//! committer before the lock is let go: so the queue's order is the order of the changes, and the next change of the key
//! starts from the pending object. The overlay entry goes when the commit has been applied to the engine.
//!
//! What was read or committed of late stays in a cache beside the pending objects, under the same locks: a write reads
//! before it writes, at every replica, and the engine takes longer to find an object than all the rest of that takes.

mod insert_new;
mod remove_page;

pub use insert_new::{NewObject, Way};
pub use remove_page::RemovedPage;

use super::leaves::Leaves;
use crate::storage::{Change, Committer, Engine, EngineError, Page, Reservation, ScanRange, Space, Submitted};
use bytes::{BufMut, Bytes, BytesMut};
use dynamo::reconcile::item_hash;
use parking_lot::{Mutex, MutexGuard};
use quick_cache::Weighter;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use rustc_hash::FxBuildHasher;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

const SHARDS: usize = 256;

/// How often a page is read anew, if anything was committed meanwhile.
const LOOKS_MAX: usize = 4;

/// How much a page has at most.
#[derive(Clone, Copy, Debug)]
pub struct PageBounds {
    /// Objects.
    pub items: usize,
    /// Bytes of keys and objects, give or take one object.
    pub bytes: usize,
}

/// Bytes that a cached object is counted with besides its key and value.
const CACHED_OVERHEAD_BYTES: usize = 128;

/// Pending and cached objects of one keyspace, shared with the committer's callback.
pub struct Overlay {
    space: Space,
    shards: Vec<Mutex<Shard>>,
    /// Largest object that is cached, in bytes.
    cached_bytes_max: usize,
    failed_commits: AtomicU64,
    /// Batches with changes of this keyspace that were committed, or have failed.
    batches: AtomicU64,
    on_taken_back: OnceLock<OnTakenBack>,
}

/// Hears, under the lock of its shard, of a key whose newest value was taken back by a failed commit, and of that
/// value. What the key has now only the engine knows: the commit may have been written all the same.
pub type OnTakenBack = Box<dyn Fn(&Bytes, Option<&Bytes>) + Send + Sync>;

/// Keys are hashed as they are: each has its token in it, which is a keyed hash already.
struct Shard {
    pending: HashMap<Bytes, Option<Known>, FxBuildHasher>,
    /// What the engine has, as long as nothing is pending for the key.
    cache: Cache<Bytes, Known, Size, FxBuildHasher>,
    /// Largest object that is cached, in bytes.
    cached_bytes_max: usize,
    /// Changes that the engine has taken, or failed to.
    committed: u64,
}

/// A value and its hash: who compares, or counts, need not look at the value again, which may not be in the processor's
/// cache.
#[derive(Clone, Debug)]
pub struct Known {
    /// The value.
    pub value: Bytes,
    /// [`item_hash`] of key and value.
    pub hash: u64,
}

impl Known {
    fn new(key: &[u8], value: Bytes) -> Self {
        Self { hash: item_hash(key, &value), value }
    }
}

/// A copy of a key and its value side by side in one allocation: it keeps no larger buffer in memory that the value was
/// received in, and whoever compares the key has the beginning of the value at hand.
fn together(key: &[u8], value: &[u8]) -> (Bytes, Bytes) {
    let mut bytes = BytesMut::with_capacity(key.len() + value.len());
    bytes.put_slice(key);
    bytes.put_slice(value);
    let mut bytes = bytes.freeze();
    let key = bytes.split_to(key.len());
    (key, bytes)
}

/// Whether a key and its value have been put [`together`].
fn are_together(key: &[u8], value: &[u8]) -> bool {
    key.as_ptr_range().end == value.as_ptr()
}

/// Largest object that a shard with so many bytes caches, in bytes.
fn cached_bytes_max(shard_bytes: usize) -> usize {
    shard_bytes / 4
}

#[derive(Clone, Debug)]
struct Size;

impl Weighter<Bytes, Known> for Size {
    fn weight(&self, key: &Bytes, known: &Known) -> u64 {
        (CACHED_OVERHEAD_BYTES + key.len() + known.value.len()) as u64
    }
}

impl Shard {
    fn new(cache_bytes: usize) -> Self {
        let cache =
            Cache::with(cache_bytes / 1024, cache_bytes as u64, Size, FxBuildHasher, DefaultLifecycle::default());
        Self { pending: HashMap::default(), cache, cached_bytes_max: cached_bytes_max(cache_bytes), committed: 0 }
    }

    /// The newest value if the engine need not be asked.
    fn get(&self, key: &[u8]) -> Option<Option<Known>> {
        self.pending.get(key).cloned().or_else(|| self.cache.get(key).cloned().map(Some))
    }

    /// Its hash, without a look at the value itself.
    fn hash(&self, key: &[u8]) -> Option<Option<u64>> {
        let hash = |known: &Known| known.hash;
        let pending = self.pending.get(key).map(|known| known.as_ref().map(hash));
        pending.or_else(|| self.cache.get(key).map(|known| Some(hash(known))))
    }

    /// Caches what the engine has. Both are kept as they are: `together`, and not slices of a larger buffer, such as a
    /// page that was copied, of which nothing is cached.
    fn cache(&mut self, key: Bytes, known: Known) {
        let bytes = CACHED_OVERHEAD_BYTES + key.len() + known.value.len();
        if bytes > self.cached_bytes_max || !are_together(&key, &known.value) {
            self.cache.remove(&key);
            return;
        }
        self.cache.insert(key, known);
    }
}

impl Overlay {
    /// An empty overlay of one keyspace, which caches objects of this many bytes with their keys.
    #[must_use]
    pub fn new(space: Space, cache_bytes: usize) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::new(cache_bytes / SHARDS))).collect();
        Arc::new(Self {
            space,
            shards,
            cached_bytes_max: cached_bytes_max(cache_bytes / SHARDS),
            failed_commits: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            on_taken_back: OnceLock::new(),
        })
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
        if changes.iter().any(|change| change.space() == self.space) {
            // Before anything is forgotten: whoever finds the number as it was before it read the engine knows that
            // whatever the engine did not show is still pending.
            self.batches.fetch_add(1, Ordering::AcqRel);
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
            shard.committed += 1;
            let newest = shard.pending.get(key).is_some_and(|pending| same_allocation(pending.as_ref(), value));
            let pending = if newest { shard.pending.remove_entry(key) } else { None };
            match pending {
                // Of a change that another has replaced meanwhile nobody asks any more.
                Some((key, Some(known))) if stored => shard.cache(key, known),
                // Not known until the engine is asked.
                _ => drop(shard.cache.remove(key)),
            }
            if let Some(told) = self.on_taken_back.get().filter(|_| newest && !stored) {
                told(key, value);
            }
        }
    }

    /// How many batches have failed, so that pending objects were taken back.
    #[must_use]
    pub fn failed_commits(&self) -> u64 {
        self.failed_commits.load(Ordering::Acquire)
    }

    /// Whether any change is neither committed nor taken back.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.shards.iter().any(|shard| !shard.lock().pending.is_empty())
    }

    /// Returns when every change that was being computed at the time of the call is in the queue.
    pub fn pass_through(&self) {
        for shard in &self.shards {
            drop(shard.lock());
        }
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
        &self.shards[self.place(key)]
    }

    /// Which shard a key is in.
    fn place(&self, key: &[u8]) -> usize {
        // Keys begin with 8 bytes of token (or, for hints, with 16 of a UUID and then the token), whose low bits are
        // well spread; the last token byte picks the shard.
        let at = if self.space == Space::Hints { 23 } else { 7 };
        let byte = key.get(at).copied().unwrap_or(0);
        usize::from(byte) % SHARDS
    }
}

/// Whether the pending value is the very one that was committed. A later change has an allocation of its own. Two
/// removals cannot be told apart; at worst a reader sees what stood between them once more before it goes.
fn same_allocation(pending: Option<&Known>, committed: Option<&Bytes>) -> bool {
    match (pending, committed) {
        (Some(Known { value, .. }), Some(committed)) => {
            value.as_ptr() == committed.as_ptr() && value.len() == committed.len()
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

    fn note(&self, key: &Bytes, before: Option<u64>, after: Option<u64>) {
        if let Some(leaves) = &self.leaves {
            leaves.replace_hash(key, before, after);
        }
    }

    /// The newest value of a key, durable or not.
    ///
    /// # Errors
    /// When the engine cannot be read.
    pub fn read(&self, key: &[u8]) -> Result<Option<Known>, EngineError> {
        let shard = self.overlay.shard(key);
        let committed = {
            let shard = shard.lock();
            if let Some(known) = shard.get(key) {
                return Ok(known);
            }
            shard.committed
        };
        let Some(found) = self.ask_engine(key)? else { return Ok(None) };
        if CACHED_OVERHEAD_BYTES + key.len() + found.value.len() > self.overlay.cached_bytes_max {
            return Ok(Some(found));
        }
        let (key, value) = together(key, &found.value);
        let found = Known { value, ..found };
        let mut shard = shard.lock();
        // Only if it cannot have changed since the engine was asked.
        if shard.committed == committed && !shard.pending.contains_key(&key) {
            shard.cache(key, found.clone());
        }
        Ok(Some(found))
    }

    /// The hash of the newest value of a key, durable or not.
    ///
    /// # Errors
    /// When the engine cannot be read.
    pub fn hash(&self, key: &[u8]) -> Result<Option<u64>, EngineError> {
        let known = self.overlay.shard(key).lock().hash(key);
        match known {
            Some(hash) => Ok(hash),
            None => Ok(self.read(key)?.map(|known| known.hash)),
        }
    }

    fn ask_engine(&self, key: &[u8]) -> Result<Option<Known>, EngineError> {
        Ok(self.engine.get(self.overlay.space, key)?.map(|value| Known::new(key, value)))
    }

    /// A page as the engine has it, and all keys locked before that can have changed. `None`: something was committed
    /// each time.
    #[expect(clippy::type_complexity, reason = "both are taken apart at once")]
    fn lock_all_as_read(
        &self,
        range: &ScanRange,
        bounds: PageBounds,
    ) -> Result<Option<(Page, Vec<MutexGuard<'_, Shard>>)>, EngineError> {
        for _ in 0..LOOKS_MAX {
            let batches = self.overlay.batches.load(Ordering::Acquire);
            let page = self.engine.scan(self.overlay.space, range, bounds.items, bounds.bytes)?;
            // In their order; nobody else locks more than one.
            let shards = self.overlay.shards.iter().map(Mutex::lock).collect();
            if self.overlay.batches.load(Ordering::Acquire) == batches {
                return Ok(Some((page, shards)));
            }
        }
        Ok(None)
    }

    /// The newest value of a key whose shard is locked.
    fn current(&self, shard: &MutexGuard<'_, Shard>, key: &[u8]) -> Result<Option<Known>, EngineError> {
        match shard.get(key) {
            Some(known) => Ok(known),
            None => self.ask_engine(key),
        }
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
        let pending = shard.pending.get(&key).cloned();
        let current = self.current(&shard, &key)?;
        let before = current.as_ref().map(|known| known.hash);
        let (value, result) = decide(current.map(|known| known.value))?;
        let (key, value) = match value {
            Some(value) => {
                let (key, value) = together(&key, &value);
                let known = Known::new(&key, value);
                self.note(&key, before, Some(known.hash));
                (key, Some(known))
            }
            None => (key, None),
        };
        // What is only pending is queued once more, so that whoever is told "unchanged" is not told so of something
        // that a failing commit may still take away.
        let Some(known) = value.or(pending.flatten()) else { return Ok(Updated::Unchanged(result)) };
        let change = Change::Put { space: self.overlay.space, key: key.clone(), value: known.value.clone() };
        shard.pending.insert(key, Some(known));
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
        let current = self.current(&shard, key)?;
        let Some(current) = current.filter(|current| decide(&current.value)) else { return Ok(None) };
        self.note(key, Some(current.hash), None);
        let change = Change::Remove { space: self.overlay.space, key: key.clone() };
        shard.pending.insert(key.clone(), None);
        Ok(Some(self.committer.submit(vec![change], reservation)))
    }
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::storage::MemoryEngine;
    use std::time::Duration;

    const COMMIT_TIME: Duration = Duration::from_millis(5);

    fn key(number: u64) -> Bytes {
        let mut key = number.to_be_bytes().to_vec();
        key.extend_from_slice(b"key");
        Bytes::from(key)
    }

    /// Objects on an engine in memory, and the engine, to change things behind the cache's back.
    fn objects(cache_bytes: usize) -> (Objects, Arc<dyn Engine>) {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
        let overlay = Overlay::new(Space::Data, cache_bytes);
        let told = overlay.clone();
        let committer =
            Committer::inline(engine.clone(), &Limits::default(), COMMIT_TIME, move |changes, stored| {
                told.committed(changes, stored.is_ok());
            });
        (Objects::new(engine.clone(), committer, overlay), engine)
    }

    async fn put(objects: &Objects, number: u64, value: &'static [u8]) -> Submitted {
        let reservation = objects.committer.reserve(100).await.unwrap();
        let decide = |_| Ok::<_, EngineError>((Some(Bytes::from_static(value)), ()));
        match objects.update(key(number), reservation, decide).unwrap() {
            Updated::Queued((), submitted) => submitted,
            Updated::Unchanged(()) => panic!("it decided to store"),
        }
    }

    fn behind(engine: &Arc<dyn Engine>, number: u64, value: &'static [u8]) {
        let value = Bytes::from_static(value);
        engine.commit(&[Change::Put { space: Space::Data, key: key(number), value }]).unwrap();
    }

    #[tokio::test]
    async fn what_was_read_or_committed_of_late_needs_no_engine_and_removals_are_seen() {
        let (objects, engine) = objects(SHARDS << 20);
        put(&objects, 1, b"one").await.await.unwrap();
        behind(&engine, 1, b"changed without the objects' knowledge");
        assert_eq!(objects.read(&key(1)).unwrap().unwrap().value, "one");
        behind(&engine, 2, b"two");
        assert_eq!(objects.read(&key(2)).unwrap().unwrap().value, "two");
        behind(&engine, 2, b"changed too");
        assert_eq!(objects.read(&key(2)).unwrap().unwrap().value, "two");
        let reservation = objects.committer.reserve_control().await;
        let removed = objects.remove_if(&key(1), reservation, |value| value == "one").unwrap().unwrap();
        assert!(objects.read(&key(1)).unwrap().is_none());
        removed.await.unwrap();
        assert!(objects.read(&key(1)).unwrap().is_none());
    }

    #[tokio::test]
    async fn the_newest_of_several_changes_is_what_stays() {
        let (objects, engine) = objects(SHARDS << 20);
        let first = put(&objects, 1, b"first").await;
        tokio::time::sleep(COMMIT_TIME / 2).await;
        let second = put(&objects, 1, b"second").await;
        first.await.unwrap();
        assert_eq!(objects.read(&key(1)).unwrap().unwrap().value, "second");
        second.await.unwrap();
        assert_eq!(objects.read(&key(1)).unwrap().unwrap().value, "second");
        assert_eq!(engine.get(Space::Data, &key(1)).unwrap().unwrap(), "second");
    }

    #[tokio::test]
    async fn a_cache_of_no_bytes_caches_nothing_and_one_of_few_stays_within_them() {
        let (objects, engine) = objects(0);
        put(&objects, 1, b"one").await.await.unwrap();
        behind(&engine, 1, b"changed");
        assert_eq!(objects.read(&key(1)).unwrap().unwrap().value, "changed");
        let mut shard = Shard::new(10_000);
        let mut cache = |number, bytes| {
            let (key, value) = together(&key(number), &vec![0; bytes]);
            shard.cache(key, Known { value, hash: 0 });
        };
        (0..100).for_each(|number| cache(number, 1000));
        cache(99, 9000);
        assert!(shard.cache.weight() <= 10_000 && shard.cache.len() > 4, "{}", shard.cache.weight());
        assert!(shard.get(&key(99)).is_none(), "too large to be cached, and the smaller one is not it");
    }
}

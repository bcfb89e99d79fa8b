//! What this node holds: objects of the partitions that list it, and hints for other members.
//!
//! Every change of an object goes through [`Replica::merge`] (another replica's state), [`Replica::coordinate`] (a
//! client's write, which gets a dot here) or [`Replica::change`]. All check the ring's fence under the lock of the key.

mod actors;
mod change;
mod coordinate;
mod counters;
mod forget;
#[cfg(test)]
mod fuzz;
mod grace;
mod hints;
mod insert_page;
mod kept;
mod leaves;
mod merge;
mod objects;
mod recount;
mod storage_key;

pub use coordinate::Coordinated;
pub use counters::{Counters, Look, Sum, Weight};
pub use grace::{Grace, InFlight};
pub use hints::{HeldHint, HintPage, Hints};
pub use insert_page::{PageItems, PageRules};
pub use leaves::Leaves;
pub use objects::{Known, NewObject, Objects, Overlay, PageBounds, RemovedPage, Updated};
pub use storage_key::{split_storage_key, storage_key, token_and_key};

use crate::config::Limits;
use crate::planted;
use crate::ring_state::{Fence, Installed, RingState};
use crate::storage::{Births, Committer, Engine, EngineError, StorageError};
use actors::Actors;
use bytes::Bytes;
use dynamo::hlc::{Clock, Hlc};
use dynamo::object::{CodecError, Object};
use dynamo::token::Token;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use storage_key::with_storage_key;

/// What the object of a string may take besides the string, in bytes.
const OBJECT_BYTES_EXTRA: usize = 64 << 10;

/// Reads the wall clock, in milliseconds since 1970.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Where nothing is known of the key, the place does not matter: the dot is of a new birth.
const ANYWHERE: Token = Token(0);

/// The replica store of a node.
pub struct Replica {
    objects: Objects,
    /// Hints for other members.
    pub hints: Hints,
    engine: Arc<dyn Engine>,
    committer: Committer,
    ring: Arc<RingState>,
    actors: Actors,
    counters: Arc<Counters>,
    leaves: Arc<Leaves>,
    grace: Arc<Grace>,
    clock: Mutex<Clock>,
    wall: WallClock,
    siblings_max: usize,
    siblings_refused: AtomicU64,
    /// Largest object that is a string, in bytes: a value of the largest length and what comes with it.
    string_bytes_max: usize,
    collection_bytes_max: usize,
    overlay: Arc<Overlay>,
}

/// Why an object was not changed or read here.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The ring has changed the key's lists meanwhile, or the sender means other lists. Nothing was done.
    #[error("the lists of the key's partition changed in a newer ring")]
    Stale,
    /// The sender means a ring that is not installed here yet. Nothing was done.
    #[error("the sender's ring is newer than this node's")]
    Behind,
    /// The key would have more siblings than allowed. Nothing was stored.
    #[error("the key has {siblings} concurrent values, the most allowed")]
    TooManySiblings {
        /// How many it has.
        siblings: usize,
    },
    /// An object cannot be decoded. Nothing was stored.
    #[error("an object cannot be decoded: {0}")]
    Codec(#[from] CodecError),
    /// The engine cannot be read. Nothing was stored.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The write was refused or has failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Parts that a replica store is put together from.
pub struct Parts {
    /// Where objects are kept.
    pub engine: Arc<dyn Engine>,
    /// The queue in front of it.
    pub committer: Committer,
    /// Pending objects; the committer's callback must clear them.
    pub overlays: Overlays,
    /// The installed ring.
    pub ring: Arc<RingState>,
    /// Where actors get their births.
    pub births: Births,
    /// Wall clock.
    pub wall: WallClock,
}

/// Overlays of both keyspaces.
#[derive(Clone)]
pub struct Overlays {
    /// Pending objects.
    pub data: Arc<Overlay>,
    /// Pending hints.
    pub hints: Arc<Overlay>,
}

impl Replica {
    /// Puts a replica store together and counts what it holds, unless the counts were [kept](Replica::keep_counts).
    ///
    /// # Errors
    /// When the engine cannot be read.
    pub fn open(parts: Parts, limits: &Limits) -> Result<Self, EngineError> {
        let Parts { engine, committer, overlays, ring, births, wall } = parts;
        let hints = Hints::open(engine.clone(), committer.clone(), overlays.hints.clone(), limits)?;
        let (counters, leaves) = match kept::take(engine.as_ref())? {
            Some(kept) => kept,
            None => recount::count(engine.as_ref())?,
        };
        let (counters, leaves) = (Arc::new(counters), Arc::new(leaves));
        recount::correct_after_failures(&overlays.data, &engine, &counters, &leaves);
        let objects = Objects::new(engine.clone(), committer.clone(), overlays.data.clone());
        let incarnation = ring.incarnation().as_u64_pair().1;
        Ok(Self {
            actors: Actors::new(incarnation, births, overlays.data.clone()),
            objects: objects.noted_in(leaves.clone()),
            hints,
            engine,
            committer,
            ring,
            counters,
            leaves,
            grace: Arc::default(),
            clock: Mutex::new(Clock::default()),
            wall,
            siblings_max: limits.siblings_max,
            siblings_refused: AtomicU64::new(0),
            string_bytes_max: limits.value_bytes_max + OBJECT_BYTES_EXTRA,
            collection_bytes_max: limits.collection_bytes_max,
            overlay: overlays.data,
        })
    }

    /// Keeps the counts for the next start. To be called once the committer is closed and nothing else writes. Returns
    /// whether they were kept; if not, they are made anew.
    ///
    /// # Errors
    /// When the engine fails; then nothing is kept.
    pub fn keep_counts(&self) -> Result<bool, EngineError> {
        kept::keep(self.engine.as_ref(), &self.overlay, &self.counters, &self.leaves)
    }

    /// The engine, for scans.
    #[must_use]
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// The queue in front of the engine.
    #[must_use]
    pub fn committer(&self) -> &Committer {
        &self.committer
    }

    /// Counts of what is here.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Sums of what is here, for anti-entropy.
    #[must_use]
    pub fn leaves(&self) -> &Leaves {
        &self.leaves
    }

    /// Writes refused because their keys had too many siblings, since the node started.
    #[must_use]
    pub fn siblings_refused(&self) -> u64 {
        self.siblings_refused.load(Ordering::Relaxed)
    }

    /// Something takes off that carries objects from one place to another: to be kept until it has landed.
    #[must_use]
    pub fn take_off(&self) -> InFlight {
        self.grace.enter()
    }

    /// What is in flight here.
    #[must_use]
    pub fn grace(&self) -> &Grace {
        &self.grace
    }

    /// The wall clock.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        (self.wall)()
    }

    /// The object of a key, encoded, if the sender means the same lists: those in force
    /// [since](dynamo::ring::RingView::since) that epoch.
    ///
    /// # Errors
    /// [`ReplicaError::Stale`], [`ReplicaError::Behind`], or the engine's.
    pub fn read(&self, token: Token, key: &[u8], since: u64) -> Result<Option<Bytes>, ReplicaError> {
        Ok(self.read_known(token, key, since)?.map(|known| known.value))
    }

    /// The same with its hash.
    ///
    /// # Errors
    /// Those of [`Replica::read`].
    pub fn read_known(&self, token: Token, key: &[u8], since: u64) -> Result<Option<Known>, ReplicaError> {
        self.admit(token, since)?;
        Ok(with_storage_key(token, key, |key| self.objects.read(key))?)
    }

    /// The hash alone.
    ///
    /// # Errors
    /// Those of [`Replica::read`].
    pub fn read_hash(&self, token: Token, key: &[u8], since: u64) -> Result<Option<u64>, ReplicaError> {
        self.admit(token, since)?;
        Ok(with_storage_key(token, key, |key| self.objects.hash(key))?)
    }

    /// What is under a key in the engine or about to be, whether the ring lists this node for it or not.
    ///
    /// # Errors
    /// When the engine cannot be read.
    pub fn stored(&self, storage_key: &Bytes) -> Result<Option<Bytes>, EngineError> {
        Ok(self.objects.read(storage_key)?.map(|known| known.value))
    }

    /// Returns when every change let in by the ring before is in the commit queue; see [`RingState::install`].
    pub fn fence_writers(&self) {
        self.overlay.pass_through();
    }

    fn admit(&self, token: Token, since: u64) -> Result<(), ReplicaError> {
        self.ring.look(|installed| admit(installed, token, since)).unwrap_or(Err(ReplicaError::Behind))
    }

    /// A timestamp later than the newest that is known of a key.
    fn timestamp(&self, now_ms: u64, newest: Option<Hlc>) -> Hlc {
        let mut clock = self.clock.lock();
        match newest {
            Some(newest) => clock.next_after(now_ms, newest),
            None => clock.now(now_ms),
        }
    }

    fn observe(&self, object: &Object) {
        if let Some(newest) = object.max_timestamp() {
            let wall = if planted::is("clock-jump-accepted") { newest.millis() } else { self.now_ms() };
            self.clock.lock().observe(newest, wall);
        }
    }
}

/// Whether the sender means the lists of the ring in force.
fn admit(installed: &Installed, token: Token, since: u64) -> Result<(), ReplicaError> {
    match installed.fence(token, since) {
        Fence::Serve => Ok(()),
        Fence::SenderIsStale => Err(ReplicaError::Stale),
        Fence::ReceiverIsBehind => Err(ReplicaError::Behind),
    }
}

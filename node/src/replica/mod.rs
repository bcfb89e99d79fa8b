//! What this node holds: objects of the partitions that list it, and hints for other members.
//!
//! Every change of an object goes through [`Replica::merge`] (another replica's state) or [`Replica::coordinate`] (a
//! client's write, which gets a dot here). Both check the ring's fence under the lock of the key.

mod counters;
#[cfg(test)]
mod fuzz;
mod grace;
mod hints;
mod insert_page;
mod kept;
mod leaves;
mod objects;
mod recount;

pub use counters::{Counters, Look, Sum, Weight};
pub use grace::{Grace, InFlight};
pub use hints::{HeldHint, HintPage, Hints};
pub use insert_page::{PageItems, PageRules};
pub use leaves::Leaves;
pub use objects::{Known, NewObject, Objects, Overlay, PageBounds, RemovedPage, Updated};

use crate::config::Limits;
use crate::coordinator::{Causality, Write};
use crate::planted;
use crate::ring_state::{Fence, Installed, RingState};
use crate::storage::{Births, Committer, Engine, EngineError, Reservation, ScanRange, StorageError, Submitted};
use bytes::Bytes;
use dynamo::hlc::{Clock, Hlc};
use dynamo::object::{Actor, By, Change, CodecError, Object, Outcome, Refusal, Value};
use dynamo::token::{SLOTS, Token};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the object of a string may take besides the string, in bytes.
const OBJECT_BYTES_EXTRA: usize = 64 << 10;

/// A token at the beginning of a key in the engine.
const TOKEN_BYTES: usize = 8;
/// Keys up to this are looked up without fetching memory.
const USUAL_KEY_BYTES_MAX: usize = 120;

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
    births: Births,
    /// By hash slot: births below this one belong to state that was gone in between; they are not continued.
    birth_floors: Vec<AtomicU64>,
    /// Births below this one may belong to dots that a failed commit took back here, but not at the peers that had
    /// been sent them.
    failed_floor: AtomicU64,
    /// Failed commits that `failed_floor` accounts for.
    failed_commits: AtomicU64,
    counters: Arc<Counters>,
    leaves: Arc<Leaves>,
    grace: Arc<Grace>,
    incarnation: u64,
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
        let floor = births.next();
        let objects = Objects::new(engine.clone(), committer.clone(), overlays.data.clone());
        Ok(Self {
            objects: objects.noted_in(leaves.clone()),
            hints,
            incarnation: ring.incarnation().as_u64_pair().1,
            engine,
            committer,
            ring,
            births,
            birth_floors: (0..SLOTS).map(|_| AtomicU64::new(floor)).collect(),
            failed_floor: AtomicU64::new(0),
            failed_commits: AtomicU64::new(0),
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
    /// [`StorageError::Overloaded`] when there is no room now, and those of [`Replica::merge`]; nothing was stored.
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
                self.mistrust_returning(token, None, &object);
                self.counters.replace(token, Weight::default(), Weight::of(key, &object, incoming.len()));
                return Ok((Some(incoming), ()));
            };
            if current == incoming {
                return Ok((None, ()));
            }
            let mine = Object::decode(current.clone())?;
            self.mistrust_returning(token, Some(&mine), &object);
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
    /// [`StorageError::Overloaded`] when there is no room now, and those of [`Replica::coordinate`]; nothing was
    /// stored.
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

    /// Carries out a change as a replica, on top of what is here and of what is known from others. The second is what
    /// was stored, encoded, and resolves when this node's own copy is durable; `None`: there was nothing to store.
    ///
    /// # Errors
    /// [`ReplicaError`]; nothing was stored.
    pub async fn change(
        &self,
        token: Token,
        key: &[u8],
        change: &Change,
        known: &Object,
        since: u64,
    ) -> Result<(Outcome, Option<(Bytes, Submitted)>), ReplicaError> {
        let reservation = self.committer.reserve(key.len() + known.encoded_len() + change.bytes() + 128).await?;
        let updated = self.objects.update(storage_key(token, key), reservation, |current| {
            self.admit(token, since)?;
            let current_len = current.as_ref().map_or(0, Bytes::len);
            let mine = current.map(Object::decode).transpose()?;
            let before = match &mine {
                Some(mine) if mine.includes(known) => mine.clone(),
                Some(mine) => mine.merge(known),
                None => known.clone(),
            };
            self.mistrust_returning(token, mine.as_ref(), known);
            // What is here decides whether this node's own actor is continued.
            let (object, outcome) = before.change(change, self.by(token, mine.as_ref(), &before));
            let (object, outcome) = match self.bounded(object, outcome) {
                Ok(bounded) => bounded,
                Err(outcome) => return Ok((None, (outcome, None))),
            };
            let encoded = object.encode();
            let weight = mine.as_ref().map(|mine| Weight::of(key, mine, current_len)).unwrap_or_default();
            self.counters.replace(token, weight, Weight::of(key, &object, encoded.len()));
            Ok::<_, ReplicaError>((Some(encoded.clone()), (outcome, Some(encoded))))
        })?;
        self.observe(known);
        Ok(match updated {
            Updated::Queued((outcome, Some(encoded)), durable) => (outcome, Some((encoded, durable))),
            Updated::Queued((outcome, None), _) | Updated::Unchanged((outcome, _)) => (outcome, None),
        })
    }

    /// The same for a key that this node is no replica of: the change is carried out where nothing is known.
    #[must_use]
    pub fn change_blind(&self, change: &Change) -> (Option<Object>, Outcome) {
        let nothing = Object::default();
        nothing.change(change, self.by(ANYWHERE, None, &nothing))
    }

    fn by(&self, token: Token, mine: Option<&Object>, before: &Object) -> By {
        let now_ms = self.now_ms();
        let timestamp = match before.max_timestamp() {
            Some(newest) => self.clock.lock().next_after(now_ms, newest),
            None => self.clock.lock().now(now_ms),
        };
        By { actor: self.actor(token, mine), timestamp, now_ms }
    }

    /// Refuses objects that would get too large.
    fn bounded(&self, object: Option<Object>, outcome: Outcome) -> Result<(Object, Outcome), Outcome> {
        let Some(object) = object else { return Err(outcome) };
        let siblings = object.sibling_count();
        let string = siblings > 0;
        let bytes = object.encoded_len();
        let bytes_max = if string { self.string_bytes_max } else { self.collection_bytes_max };
        if bytes > bytes_max {
            let (bytes, bytes_max) = (bytes as u64, bytes_max as u64);
            return Err(Outcome::Refused(Refusal::TooLarge { bytes, bytes_max }));
        }
        Ok((object, outcome))
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
        let newest = before.and_then(Object::max_timestamp);
        let timestamp = match newest {
            Some(newest) => self.clock.lock().next_after(wall, newest),
            None => self.clock.lock().now(wall),
        };
        let value = Value { timestamp, expires_at_ms: write.expires_at_ms, payload: write.payload };
        let actor = self.actor(token, before);
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

    /// Continues this node's own actor of the key if the state here is trustworthy for it; else a new birth, so that
    /// no dot is ever issued twice (Riak's kv679).
    fn actor(&self, token: Token, before: Option<&Object>) -> Actor {
        match before.and_then(|object| object.own_actor(self.incarnation)) {
            Some(actor) if self.is_trusted(token, actor) => actor,
            Some(actor) if planted::is("dot-reuse-after-crash") => actor,
            _ if planted::is("dot-reuse-after-volume-loss") => Actor { incarnation: self.incarnation, birth: 1 },
            _ => Actor { incarnation: self.incarnation, birth: self.births.next() },
        }
    }

    /// Whether all that was issued by this actor of this node is known here, if any of it is.
    fn is_trusted(&self, token: Token, actor: Actor) -> bool {
        let floor = self.birth_floors.get(usize::from(token.slot()));
        let floor = floor.map_or(0, |floor| floor.load(Ordering::Acquire)).max(self.failed_floor());
        self.births.is_of_this_start(actor.birth) && actor.birth >= floor
    }

    /// Of a key that was dropped as a leftover, or whose deletion was collected, nothing is known here any more; but a
    /// replica that has missed it, or a client with an old context, may bring back an actor of this node, and how far
    /// it had counted nobody can tell. It is not continued, nor is any other birth of its hash slot until now, which
    /// does no harm.
    fn mistrust_returning(&self, token: Token, mine: Option<&Object>, incoming: &Object) {
        let Some(theirs) = incoming.own_actor(self.incarnation).filter(|actor| self.is_trusted(token, *actor))
        else {
            return;
        };
        let ours = mine.and_then(|mine| mine.own_actor(self.incarnation));
        let behind =
            ours == Some(theirs) && mine.map(|mine| mine.seen_of(theirs)) < Some(incoming.seen_of(theirs));
        let returning = (ours < Some(theirs) || behind) && !planted::is("dot-reuse-after-collection");
        if let Some(floor) = self.birth_floors.get(usize::from(token.slot())).filter(|_| returning) {
            floor.fetch_max(self.births.next(), Ordering::AcqRel);
        }
    }

    /// After a failed commit no birth issued before is continued: the state it was in is gone here, while peers may
    /// have been sent it.
    fn failed_floor(&self) -> u64 {
        let failed = self.overlay.failed_commits();
        if failed != self.failed_commits.load(Ordering::Acquire) {
            self.failed_floor.fetch_max(self.births.next(), Ordering::AcqRel);
            self.failed_commits.store(failed, Ordering::Release);
        }
        self.failed_floor.load(Ordering::Acquire)
    }

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

    /// An object goes.
    fn uncount(&self, token: Token, key: &[u8], value: &Bytes) {
        if let Ok(object) = Object::decode(value.clone()) {
            self.counters.replace(token, Weight::of(key, &object, value.len()), Weight::default());
        }
    }

    /// What is under a key in the engine or about to be, whether the ring lists this node for it or not.
    ///
    /// # Errors
    /// When the engine cannot be read.
    pub fn stored(&self, storage_key: &Bytes) -> Result<Option<Bytes>, EngineError> {
        Ok(self.objects.read(storage_key)?.map(|known| known.value))
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

    /// Returns when every change let in by the ring before is in the commit queue; see [`RingState::install`].
    pub fn fence_writers(&self) {
        self.overlay.pass_through();
    }

    fn admit(&self, token: Token, since: u64) -> Result<(), ReplicaError> {
        self.ring.look(|installed| admit(installed, token, since)).unwrap_or(Err(ReplicaError::Behind))
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

struct Decided {
    object: Object,
    encoded: Bytes,
    timestamp: Hlc,
    existed: bool,
}

/// Key in the engine: the token in big endian, then the key, so that a partition is one range at any Q.
#[must_use]
pub fn storage_key(token: Token, key: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(TOKEN_BYTES + key.len());
    bytes.extend_from_slice(&token.0.to_be_bytes());
    bytes.extend_from_slice(key);
    Bytes::from(bytes)
}

/// The same for a moment only, without memory of its own for keys of the usual length.
fn with_storage_key<T>(token: Token, key: &[u8], look: impl FnOnce(&[u8]) -> T) -> T {
    let mut room = [0; TOKEN_BYTES + USUAL_KEY_BYTES_MAX];
    let bytes = TOKEN_BYTES + key.len();
    match room.get_mut(..bytes) {
        Some(short) => {
            let (first, rest) = short.split_at_mut(TOKEN_BYTES);
            first.copy_from_slice(&token.0.to_be_bytes());
            rest.copy_from_slice(key);
            look(short)
        }
        None => look(&storage_key(token, key)),
    }
}

/// Token and key of a key in the engine; `None` when it is too short to be one.
#[must_use]
pub fn split_storage_key(bytes: &Bytes) -> Option<(Token, Bytes)> {
    let (token, _) = token_and_key(bytes)?;
    Some((token, bytes.slice(TOKEN_BYTES..)))
}

/// The same without a handle of the key.
#[must_use]
pub fn token_and_key(bytes: &[u8]) -> Option<(Token, &[u8])> {
    let (token, key) = bytes.split_first_chunk::<TOKEN_BYTES>()?;
    Some((Token(u64::from_be_bytes(*token)), key))
}

/// What a write takes in the commit queue, about.
fn write_bytes(key: &[u8], write: &Write) -> usize {
    let payload = match &write.payload {
        dynamo::object::Payload::Bytes(bytes) => bytes.len(),
        dynamo::object::Payload::Tombstone => 0,
    };
    key.len() + payload + 128
}

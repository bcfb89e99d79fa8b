//! Hints: objects held for members that could not be reached (Dynamo §4.6).
//!
//! A hint is stored under the incarnation it is for, then the storage key, and holds the merged object: so there is at
//! most one hint per member and key, and delivering it twice is harmless.

use super::objects::{Objects, Overlay, Updated};
use super::storage_key;
use crate::config::Limits;
use crate::storage::{Committer, Engine, EngineError, ScanRange, Space, StorageError, Submitted};
use bytes::Bytes;
use dynamo::object::{CodecError, Object};
use dynamo::token::{SLOTS, Token};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use uuid::Uuid;

/// A page of hints is read in one go, and requests wait meanwhile.
const PAGE_BYTES_MAX: usize = 256 << 10;

/// The hints this node holds.
pub struct Hints {
    objects: Objects,
    engine: Arc<dyn Engine>,
    committer: Committer,
    held: Arc<Held>,
    bytes_max: u64,
    /// As of the last walk over all hints; zero: there was none.
    oldest_ms: AtomicU64,
}

/// How much is held.
struct Held {
    count: AtomicI64,
    bytes: AtomicI64,
    /// How many, by hash slot.
    slots: Vec<AtomicU32>,
    /// How many, by the member they are for, where there are any.
    targets: Mutex<BTreeMap<Uuid, i64>>,
}

/// Some of the hints for a member.
#[derive(Debug)]
pub struct HintPage {
    /// In the order of their tokens.
    pub hints: Vec<HeldHint>,
    /// Where the next page begins; `None`: this is the last one.
    pub next: Option<Bytes>,
}

/// A hint as it is held.
#[derive(Clone, Debug)]
pub struct HeldHint {
    /// Key in the engine, to remove it by.
    pub hint_key: Bytes,
    /// Token of the object's key.
    pub token: Token,
    /// Key of the object.
    pub key: Bytes,
    /// The object, encoded.
    pub object: Bytes,
}

/// Why a hint was not taken. Nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum HintError {
    /// The node holds as many bytes of hints as it may.
    #[error("{bytes} bytes of hints are held; the limit is {bytes_max}")]
    Full {
        /// Held now.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The object cannot be decoded.
    #[error("an object cannot be decoded: {0}")]
    Codec(#[from] CodecError),
    /// The engine cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The write was refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Hints {
    /// Counts the hints that are held.
    ///
    /// # Errors
    /// When the engine cannot be read.
    pub fn open(
        engine: Arc<dyn Engine>,
        committer: Committer,
        overlay: Arc<Overlay>,
        limits: &Limits,
    ) -> Result<Self, EngineError> {
        let held = Arc::new(Held::none());
        overlay.tell_of_taken_back({
            let (held, engine) = (held.clone(), engine.clone());
            Box::new(move |key, counted| held.correct(engine.as_ref(), key, counted))
        });
        let objects = Objects::new(engine.clone(), committer.clone(), overlay);
        let hints = Self {
            objects,
            engine,
            committer,
            held,
            bytes_max: limits.hint_bytes_max,
            oldest_ms: AtomicU64::new(0),
        };
        let mut range = ScanRange::everything();
        loop {
            let page = hints.engine.scan(Space::Hints, &range, 4096, 4 << 20)?;
            for (key, value) in &page.items {
                hints.held.adjust(key, 1, signed(key.len() + value.len()));
            }
            match page.items.last() {
                Some((last, _)) if page.more => range.after = Some(last.clone()),
                _ => return Ok(hints),
            }
        }
    }

    /// How many hints are held, and their bytes.
    #[must_use]
    pub fn held(&self) -> (u64, u64) {
        let read = |value: &AtomicI64| u64::try_from(value.load(Ordering::Relaxed)).unwrap_or(0);
        (read(&self.held.count), read(&self.held.bytes))
    }

    /// When the oldest write was made that is held for somebody, in milliseconds since 1970; `None`: there is none, or it
    /// has only just come.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        let oldest = Some(self.oldest_ms.load(Ordering::Relaxed));
        oldest.filter(|&oldest_ms| oldest_ms > 0 && self.held().0 > 0)
    }

    /// Takes note of the oldest write that a walk over all hints has met.
    pub fn note_oldest(&self, oldest_ms: Option<u64>) {
        self.oldest_ms.store(oldest_ms.unwrap_or(0), Ordering::Relaxed);
    }

    /// Whether a hint is held for a key of the token's hash slot.
    #[must_use]
    pub fn any_near(&self, token: Token) -> bool {
        self.held.slots.get(usize::from(token.slot())).is_none_or(|held| held.load(Ordering::Acquire) > 0)
    }

    /// Holds an object for a member. `None`: an equal or newer one is already held.
    ///
    /// # Errors
    /// `HintError`; nothing was stored.
    pub async fn hold(
        &self,
        target: Uuid,
        token: Token,
        key: &[u8],
        incoming: Bytes,
    ) -> Result<Option<Submitted>, HintError> {
        let (_, bytes) = self.held();
        if bytes + incoming.len() as u64 > self.bytes_max {
            return Err(HintError::Full { bytes, bytes_max: self.bytes_max });
        }
        let reservation = self.committer.reserve(16 + key.len() + incoming.len()).await?;
        let hint_key = hint_key(target, token, key);
        let counted = hint_key.clone();
        let updated = self.objects.update(hint_key, reservation, |current| {
            let Some(current) = current else {
                self.held.adjust(&counted, 1, signed(counted.len() + incoming.len()));
                return Ok((Some(incoming), ()));
            };
            let mine = Object::decode(current.clone())?;
            let merged = mine.merge(&Object::decode(incoming)?);
            if merged == mine {
                return Ok((None, ()));
            }
            let encoded = merged.encode();
            self.held.adjust(&counted, 0, signed(encoded.len()) - signed(current.len()));
            Ok::<_, HintError>((Some(encoded), ()))
        })?;
        match updated {
            Updated::Queued((), submitted) => Ok(Some(submitted)),
            Updated::Unchanged(()) => Ok(None),
        }
    }

    /// The object held for a member, encoded.
    ///
    /// # Errors
    /// When the engine cannot be read.
    pub fn read(&self, target: Uuid, token: Token, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.objects.read(&hint_key(target, token, key))?.map(|known| known.value))
    }

    /// Removes hints that were delivered, except where a newer one has taken the place of one: all of them in a commit or
    /// two, for clients wait for each.
    ///
    /// # Errors
    /// When storage fails. Some may still be there then, and are delivered again.
    pub async fn delivered(&self, hints: &[HeldHint]) -> Result<(), HintError> {
        let mut removals = Vec::with_capacity(hints.len());
        for hint in hints {
            let reservation = self.committer.reserve_control().await;
            let removed = self.objects.remove_if(&hint.hint_key, reservation, |newest| {
                let same = *newest == hint.object;
                if same {
                    self.held.adjust(&hint.hint_key, -1, -signed(hint.hint_key.len() + hint.object.len()));
                }
                same
            })?;
            removals.extend(removed);
        }
        for removed in removals {
            removed.await?;
        }
        Ok(())
    }

    /// Members that hints are held for.
    #[must_use]
    pub fn targets(&self) -> BTreeSet<Uuid> {
        self.held.targets.lock().keys().copied().collect()
    }

    /// Some of the hints for a member, from a [place](HintPage::next) on.
    ///
    /// # Errors
    /// When the engine cannot be read.
    pub fn page(&self, target: Uuid, after: Option<Bytes>, items_max: usize) -> Result<HintPage, EngineError> {
        let range = ScanRange { after, ..ScanRange::prefix(target.as_bytes()) };
        let page = self.engine.scan(Space::Hints, &range, items_max, PAGE_BYTES_MAX)?;
        let next = page.items.last().filter(|_| page.more).map(|(key, _)| key.clone());
        let hints = page.items.into_iter().filter_map(|(key, object)| split_hint_key(key, object)).collect();
        Ok(HintPage { hints, next })
    }
}

impl Held {
    fn none() -> Self {
        Self {
            count: AtomicI64::new(0),
            bytes: AtomicI64::new(0),
            slots: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            targets: Mutex::default(),
        }
    }

    /// So many more hints under a key, and their bytes. Damaged keys are of no hint.
    fn adjust(&self, hint_key: &Bytes, count: i32, bytes: i64) {
        let Some((target, token)) = target_of(hint_key).zip(token_of(hint_key)) else { return };
        if let Some(held) = self.slots.get(usize::from(token.slot())) {
            // Wraps around as it should when the change is negative.
            held.fetch_add(count.cast_unsigned(), Ordering::AcqRel);
        }
        let count = i64::from(count);
        self.count.fetch_add(count, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if count != 0 {
            let mut targets = self.targets.lock();
            let held = targets.entry(target).or_default();
            *held += count;
            if *held == 0 {
                targets.remove(&target);
            }
        }
    }

    /// A commit has failed: what was counted for a key gives way to what is there. A count that stayed wrong would
    /// keep a node that is to leave from ever proving that it owes nobody anything.
    fn correct(&self, engine: &dyn Engine, key: &Bytes, counted: Option<&Bytes>) {
        // An engine that cannot be read is opened anew, and everything is counted then.
        let Ok(actual) = engine.get(Space::Hints, key) else { return };
        let number = |value: Option<&Bytes>| i32::from(value.is_some());
        let size = |value: Option<&Bytes>| value.map_or(0, |value| signed(key.len() + value.len()));
        let actual = actual.as_ref();
        self.adjust(key, number(actual) - number(counted), size(actual) - size(counted));
    }
}

fn hint_key(target: Uuid, token: Token, key: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(24 + key.len());
    bytes.extend_from_slice(target.as_bytes());
    bytes.extend_from_slice(&storage_key(token, key));
    Bytes::from(bytes)
}

pub(super) fn target_of(hint_key: &Bytes) -> Option<Uuid> {
    hint_key.first_chunk().map(|bytes| Uuid::from_bytes(*bytes))
}

pub(super) fn token_of(hint_key: &Bytes) -> Option<Token> {
    super::split_storage_key(&hint_key.slice(16.min(hint_key.len())..)).map(|(token, _)| token)
}

pub(super) fn split_hint_key(hint_key: Bytes, object: Bytes) -> Option<HeldHint> {
    let (token, key) = super::split_storage_key(&hint_key.slice(16.min(hint_key.len())..))?;
    Some(HeldHint { hint_key, token, key, object })
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

//! The causal past that a client hands back with a write.

use super::codec::{ACTOR_BYTES_MIN, CodecError, Reader, VERSION, put_actor, put_varint, varint_len};
use super::{Actor, Dot};
use bytes::{BufMut, Bytes, BytesMut};

/// What a reader has seen of a key: of every actor, all events up to a counter (a version vector).
///
/// Opaque to clients, who only carry it from a read to a write. As actors belong to one key each, a context that is
/// used with the wrong key covers nothing there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Context {
    /// Ascending by actor, counters at least one.
    counters: Vec<(Actor, u64)>,
}

/// Why bytes are no context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// More bytes than any context has.
    #[error("a context of {bytes} bytes; the limit is {bytes_max}")]
    TooLong {
        /// Bytes given.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Not written by [`Context::encode`], or damaged since.
    #[error("not a context: {0}")]
    Malformed(#[from] CodecError),
    /// A counter that no actor has reached.
    #[error("not a context: {0} events of one actor")]
    Counter(u64),
}

impl Context {
    /// Longest encoded context: room for some 3,500 actors.
    pub const BYTES_MAX: usize = 64 << 10;
    /// Largest counter that is believed. No actor gets there by counting, and what is forged leaves it room to count
    /// on.
    pub const COUNTER_MAX: u64 = 1 << 62;

    /// Whether it covers nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counters.is_empty()
    }

    /// How many events of an actor are covered.
    #[must_use]
    pub fn get(&self, actor: Actor) -> u64 {
        self.counters.binary_search_by_key(&actor, |(known, _)| *known).map_or(0, |at| self.counters[at].1)
    }

    /// Whether an event is covered.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        dot.counter <= self.get(dot.actor)
    }

    /// Actors and how many of their events are covered, ascending by actor.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Actor, u64)> + '_ {
        self.counters.iter().copied()
    }

    /// What either covers.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    /// Bytes for a client to keep. The empty context is no bytes; else the format is described in `codec.rs`.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        if self.is_empty() {
            return Bytes::new();
        }
        let actors = self
            .counters
            .iter()
            .map(|(actor, counter)| ACTOR_BYTES_MIN - 1 + varint_len(actor.birth) + varint_len(*counter));
        let count = self.counters.len() as u64;
        let mut bytes = BytesMut::with_capacity(1 + varint_len(count) + actors.sum::<usize>());
        bytes.put_u8(VERSION);
        put_varint(&mut bytes, count);
        for (actor, counter) in self.iter() {
            put_actor(&mut bytes, actor);
            put_varint(&mut bytes, counter);
        }
        bytes.freeze()
    }

    /// Reads what [`encode`](Context::encode) wrote.
    ///
    /// # Errors
    /// [`ContextError`], for anything that it would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, ContextError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        if bytes.len() > Self::BYTES_MAX {
            let (bytes, bytes_max) = (bytes.len(), Self::BYTES_MAX);
            return Err(ContextError::TooLong { bytes, bytes_max });
        }
        let mut reader = Reader::new(bytes);
        reader.version()?;
        let count = reader.count(ACTOR_BYTES_MIN + 1)?;
        if count == 0 {
            return Err(CodecError::NotCanonical.into());
        }
        let mut counters: Vec<(Actor, u64)> = Vec::with_capacity(count);
        for _ in 0..count {
            let actor = reader.actor(counters.last().map(|(before, _)| *before))?;
            let counter = reader.counter()?;
            if counter > Self::COUNTER_MAX {
                return Err(ContextError::Counter(counter));
            }
            counters.push((actor, counter));
        }
        reader.end()?;
        Ok(Self { counters })
    }
}

impl FromIterator<(Actor, u64)> for Context {
    /// Of an actor that is named twice, the larger counter counts.
    fn from_iter<I: IntoIterator<Item = (Actor, u64)>>(counters: I) -> Self {
        let mut counters: Vec<_> = counters.into_iter().filter(|(_, counter)| *counter > 0).collect();
        counters.sort_unstable();
        // Of equals the last is the largest: keep it by going through backwards.
        counters.reverse();
        counters.dedup_by_key(|(actor, _)| *actor);
        counters.reverse();
        Self { counters }
    }
}

//! Objects: what a replica stores under a key, as a dotted version vector set.
//!
//! Every write is one event, named by a [`Dot`]. An object knows which events it has seen (per actor, all up to a
//! counter) and keeps the values of those that no other event it has seen replaces: its siblings. A client that
//! writes says with a [`Context`] what it has read, and exactly that is replaced. So siblings are the concurrent
//! writes, no more and no less, and merging replicas in any order, any number of times, gives the same object.
//!
//! Beside its siblings an object can hold a counter's additions, the members of a set and the fields of a hash, which
//! merge without losing any: see `tally.rs` and `cells.rs`. [`Object::visible`] tells what a client sees of all that,
//! and [`Object::change`] is how it changes.
//!
//! * Preguiça, Baquero, Almeida, Fonte, Gonçalves, "Dotted Version Vectors: Efficient Causality Tracking for
//!   Distributed Key-Value Stores" (2012): a dot apart from the causal past, so that two clients that race through
//!   one server are told apart without an entry per client.
//! * Almeida, Baquero, Gonçalves, Preguiça, Fonte, "Scalable and Accurate Causality Tracking for Eventually
//!   Consistent Stores" (DAIS 2014): the compact set for all siblings of a key, used here.
//! * Riak's issue kv679: an actor that has forgotten a key and counts from one again reissues dots that other
//!   replicas have seen, and its new writes vanish in the merge. The cure is the [`birth`](Actor::birth) of an actor.

mod cells;
mod change;
mod change_codec;
mod codec;
mod context;
mod siblings;
mod structure_codec;
mod tally;
mod visible;

pub use change::{By, Change, Condition, Expiry, ExpiryCondition, Outcome, Refusal};
pub use codec::{CodecError, VERSION, VERSION_STRUCTURED, digest_of_encoded, peek_last_writer};
pub use context::{Context, ContextError};
pub use siblings::{Merged, Object};
pub use visible::{Kind, Visible};

use crate::hlc::Hlc;
use bytes::Bytes;

/// Who issues dots for one key: a node's incarnation and the birth of its actor for that key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actor {
    /// The low 64 bits of the incarnation's UUID.
    pub incarnation: u64,
    /// A number the incarnation never uses twice. A node takes a new one each time it coordinates a write of a key
    /// for which it has no state it can trust: the first write of the key, the first after a start that may have
    /// lost writes, the first after it dropped the partition. So counters always continue what is known.
    pub birth: u64,
}

/// One write event: the `counter`th of its actor, counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who issued it.
    pub actor: Actor,
    /// Its number.
    pub counter: u64,
}

/// What a write left behind: bytes, or the mark that it deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Payload {
    /// The key was deleted.
    Tombstone,
    /// The value.
    Bytes(Bytes),
}

/// One sibling.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value {
    /// When it was written; chooses the winner where only one value can be returned.
    pub timestamp: Hlc,
    /// When it ceases to be readable, in milliseconds since 1970; `None`: never.
    pub expires_at_ms: Option<u64>,
    /// Bytes or a tombstone.
    pub payload: Payload,
}

impl Value {
    /// Whether there is something to read at this time: bytes that have not expired. A value that expires at t is
    /// absent at t.
    #[must_use]
    pub fn live_at(&self, now_ms: u64) -> bool {
        matches!(self.payload, Payload::Bytes(_))
            && self.expires_at_ms.is_none_or(|expires_at_ms| expires_at_ms > now_ms)
    }
}

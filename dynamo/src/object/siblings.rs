//! The dotted version vector set itself: reading, putting, merging.

use super::{Actor, Context, Dot, Payload, Value};
use crate::hlc::Hlc;
use std::cmp::Ordering;

/// What a replica knows of a key: every event it has seen, and the values of those that none of them replaces.
///
/// A value type: every change is a new object, and values share their bytes. The default is the object of a key that
/// was never written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Object {
    /// Ascending by actor.
    pub(super) entries: Vec<Entry>,
}

/// Events 1 to `counter` of one actor have been seen; the last ones of them have their values here. What an actor
/// issues it issues in order and on top of all it issued before, so the values not replaced yet are without a gap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub actor: Actor,
    /// At least one.
    pub counter: u64,
    /// Values of the events `counter`, `counter` − 1, …: newest first, no more than `counter` of them.
    pub values: Vec<Value>,
}

/// What [`Object::sync`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merged {
    /// The other object has nothing that this one has not.
    Unchanged,
    /// Both together.
    Changed(Object),
}

impl Object {
    /// Whether nothing is known of the key, not even that it was deleted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All that has been seen of the key; a put with it replaces all siblings.
    #[must_use]
    pub fn context(&self) -> Context {
        self.entries.iter().map(|entry| (entry.actor, entry.counter)).collect()
    }

    /// The concurrent values with their dots, tombstones and expired ones included.
    pub fn siblings(&self) -> impl Iterator<Item = (Dot, &Value)> {
        self.entries.iter().flat_map(|entry| {
            let counters = (1..=entry.counter).rev();
            let dots = counters.map(|counter| Dot { actor: entry.actor, counter });
            dots.zip(&entry.values)
        })
    }

    /// Number of concurrent values, tombstones and expired ones included.
    #[must_use]
    pub fn sibling_count(&self) -> usize {
        self.entries.iter().map(|entry| entry.values.len()).sum()
    }

    /// Number of actors that have written the key, which is what the object grows by even without siblings.
    #[must_use]
    pub fn actor_count(&self) -> usize {
        self.entries.len()
    }

    /// Coordinates a write: discards what the context covers and adds the value under the actor's next dot. What the
    /// context covers and is not known here yet is noted as seen, so that it is discarded when it arrives.
    ///
    /// Only the actor's own node may do this, on the newest state, and store the result before the next one: see
    /// [`Actor::birth`].
    #[must_use]
    pub fn put(&self, actor: Actor, context: &Context, value: Value) -> Self {
        let covered = context.iter().map(|(actor, counter)| Entry { actor, counter, values: Vec::new() });
        let mut object = self.merge(&Self { entries: covered.collect() });
        match object.entries.binary_search_by_key(&actor, |entry| entry.actor) {
            Ok(at) => {
                let entry = &mut object.entries[at];
                // Counting gets nowhere near the end of 64 bits, and contexts claim no more than a quarter of them.
                entry.counter = entry.counter.saturating_add(1);
                entry.values.insert(0, value);
            }
            Err(at) => object.entries.insert(at, Entry { actor, counter: 1, values: vec![value] }),
        }
        object
    }

    /// [`put`](Object::put) on top of all that is known here: the last writer wins.
    #[must_use]
    pub fn overwrite(&self, actor: Actor, value: Value) -> Self {
        self.put(actor, &self.context(), value)
    }

    /// All that either object has seen, with the values that neither has seen replaced. Commutative, associative and
    /// idempotent: replicas that have merged the same objects, in whatever order, are equal.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let mut entries = Vec::with_capacity(self.entries.len().max(other.entries.len()));
        let (mut ours, mut theirs) = (self.entries.iter().peekable(), other.entries.iter().peekable());
        while let (Some(our), Some(their)) = (ours.peek(), theirs.peek()) {
            match our.actor.cmp(&their.actor) {
                Ordering::Less => entries.extend(ours.next().cloned()),
                Ordering::Greater => entries.extend(theirs.next().cloned()),
                Ordering::Equal => {
                    entries.push(our.merge(their));
                    ours.next();
                    theirs.next();
                }
            }
        }
        entries.extend(ours.cloned());
        entries.extend(theirs.cloned());
        Self { entries }
    }

    /// [`merge`](Object::merge) that tells whether it changed anything, and copies nothing if it did not.
    #[must_use]
    pub fn sync(&self, other: &Self) -> Merged {
        if self.includes(other) { Merged::Unchanged } else { Merged::Changed(self.merge(other)) }
    }

    /// Whether merging the other object in would change nothing here.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        let mut ours = self.entries.iter();
        other.entries.iter().all(|their| {
            // Both ascend, so what was passed over is not needed again.
            ours.find(|our| our.actor >= their.actor)
                .is_some_and(|our| our.actor == their.actor && our.includes(their))
        })
    }

    /// The actor that an incarnation issued its dots by most recently: the one of its highest birth.
    #[must_use]
    pub fn own_actor(&self, incarnation: u64) -> Option<Actor> {
        let actors = self.entries.iter().map(|entry| entry.actor);
        actors.filter(|actor| actor.incarnation == incarnation).max()
    }

    /// The value that a client who wants only one is given: of all siblings the one with the highest (timestamp,
    /// dot). `None` when that is a tombstone or has expired, even if others could be read: the last writer wins.
    #[must_use]
    pub fn last_writer(&self, now_ms: u64) -> Option<&Value> {
        let winner = self.siblings().max_by_key(|(dot, value)| (value.timestamp, *dot));
        winner.map(|(_, value)| value).filter(|value| value.live_at(now_ms))
    }

    /// The latest timestamp among the siblings.
    #[must_use]
    pub fn max_timestamp(&self) -> Option<Hlc> {
        self.siblings().map(|(_, value)| value.timestamp).max()
    }

    /// Whether any sibling can be read at this time.
    #[must_use]
    pub fn live_at(&self, now_ms: u64) -> bool {
        self.siblings().any(|(_, value)| value.live_at(now_ms))
    }

    /// Whether the key was written and every sibling is a tombstone.
    #[must_use]
    pub fn only_tombstones(&self) -> bool {
        !self.is_empty() && self.siblings().all(|(_, value)| value.payload == Payload::Tombstone)
    }
}

impl Entry {
    /// Events up to this one have been replaced.
    fn replaced(&self) -> u64 {
        self.counter - self.values.len() as u64
    }

    /// Of the event `counter`, if it has its value here.
    fn value(&self, counter: u64) -> Option<&Value> {
        let age = self.counter.checked_sub(counter)?;
        self.values.get(usize::try_from(age).ok()?)
    }

    fn includes(&self, other: &Self) -> bool {
        self.counter >= other.counter
            && self.replaced() >= other.replaced()
            && (self.replaced() + 1..=other.counter).all(|counter| self.value(counter) >= other.value(counter))
    }

    /// Both entries are of one actor. What is replaced in one of them is replaced; what is left of the one that has
    /// seen more is the rest.
    fn merge(&self, other: &Self) -> Self {
        let counter = self.counter.max(other.counter);
        let replaced = self.replaced().max(other.replaced());
        // A dot has one value. Should two have come into being all the same (a damaged disk), all replicas choose
        // the same one: replicas that cannot agree would be repaired forever.
        let values = (replaced + 1..=counter).rev();
        let values = values.filter_map(|counter| self.value(counter).max(other.value(counter)));
        Self { actor: self.actor, counter, values: values.cloned().collect() }
    }
}

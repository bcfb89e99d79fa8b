//! The dotted version vector set itself: reading, putting, merging.

use super::cells::Cells;
use super::tally::Tallies;
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
    /// Timestamp of the newest write that replaced everything before it. What was added or put into a cell earlier
    /// than that is gone, whoever has seen it. Never earlier than a sibling.
    pub(super) wiped: Hlc,
    /// What has been added to the string, if it is a counter.
    pub(super) tallies: Tallies,
    /// Members of the set and fields of the hash.
    pub(super) cells: Cells,
    /// When the set or the hash expires; a string's value says that itself.
    pub(super) deadline: Option<Deadline>,
}

/// When a set or a hash ceases to be readable. The later one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Deadline {
    /// When that was decided.
    pub timestamp: Hlc,
    /// In milliseconds since 1970; `None`: never.
    pub at_ms: Option<u64>,
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
        self.entries.is_empty() && self.tallies.is_empty() && self.cells.is_empty()
    }

    /// All that has been seen of the key; a put with it replaces all siblings.
    #[must_use]
    pub fn context(&self) -> Context {
        self.entries.iter().map(|entry| (entry.actor, entry.counter)).collect()
    }

    /// How many events of an actor have been seen; zero: none.
    #[must_use]
    pub fn seen_of(&self, actor: Actor) -> u64 {
        let entry = self.entries.binary_search_by_key(&actor, |entry| entry.actor);
        entry.map_or(0, |at| self.entries[at].counter)
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
    ///
    /// Members, fields and additions that were there are replaced, too: those that the context covers, and whatever is
    /// older than the value.
    #[must_use]
    pub fn put(&self, actor: Actor, context: &Context, value: Value) -> Self {
        let mut object = self.covering(context);
        object.tallies.clear();
        for cell in &mut object.cells.0 {
            cell.tallies.clear();
        }
        object.wipe(value.timestamp);
        object.event(actor).values.insert(0, value);
        object
    }

    /// The object of someone who has seen all that the context covers, and what is here besides.
    pub(super) fn covering(&self, context: &Context) -> Self {
        let covered = context.iter().map(|(actor, counter)| Entry { actor, counter, values: Vec::new() });
        self.merge(&Self { entries: covered.collect(), ..Self::default() })
    }

    /// Counts one more event of an actor.
    pub(super) fn event(&mut self, actor: Actor) -> &mut Entry {
        let at = match self.entries.binary_search_by_key(&actor, |entry| entry.actor) {
            Ok(at) => at,
            Err(at) => {
                self.entries.insert(at, Entry { actor, counter: 0, values: Vec::new() });
                at
            }
        };
        let entry = &mut self.entries[at];
        // Counting gets nowhere near the end of 64 bits, and contexts claim no more than a quarter of them.
        entry.counter = entry.counter.saturating_add(1);
        entry
    }

    /// Everything older than this is gone from sets, hashes and counters.
    pub(super) fn wipe(&mut self, wiped: Hlc) {
        self.wiped = self.wiped.max(wiped);
        let wiped = self.wiped;
        self.cells.wipe(wiped);
        self.deadline = self.deadline.filter(|deadline| deadline.timestamp >= wiped);
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
        let mut merged = Self { entries, wiped: self.wiped.max(other.wiped), ..Self::default() };
        if !(self.is_plain() && other.is_plain()) {
            merged.tallies = self.tallies.merge(&other.tallies);
            merged.cells = self.cells.merge(&other.cells, &self.context(), &other.context());
            merged.deadline = self.deadline.max(other.deadline);
            merged.wipe(merged.wiped);
        }
        merged
    }

    /// Whether it holds no more than strings of bytes: no additions, members, fields or expiry of those.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.tallies.is_empty() && self.cells.is_empty() && self.deadline.is_none()
    }

    /// [`merge`](Object::merge) that tells whether it changed anything, and copies nothing if it did not.
    #[must_use]
    pub fn sync(&self, other: &Self) -> Merged {
        if self.includes(other) { Merged::Unchanged } else { Merged::Changed(self.merge(other)) }
    }

    /// Whether merging the other object in would change nothing here.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        if !(self.is_plain() && other.is_plain()) {
            return self.merge(other) == *self;
        }
        if self.wiped < other.wiped {
            return false;
        }
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
        let entries = self.entries.iter().map(|entry| entry.actor);
        let tallies = self.cells.0.iter().map(|cell| &cell.tallies).chain([&self.tallies]);
        let adders = tallies.flat_map(|tallies| tallies.0.iter().map(|tally| tally.actor));
        entries.chain(adders).filter(|actor| actor.incarnation == incarnation).max()
    }

    /// Of all siblings the one with the highest (timestamp, dot): the value that a client who wants only one is given,
    /// unless the key is a counter, a set or a hash, which only [`visible`](Object::visible) tells. `None` when that is
    /// a tombstone or has expired, even if others could be read: the last writer wins.
    #[must_use]
    pub fn last_writer(&self, now_ms: u64) -> Option<&Value> {
        self.winner().filter(|value| value.live_at(now_ms))
    }

    pub(super) fn winner(&self) -> Option<&Value> {
        let winner = self.siblings().max_by_key(|(dot, value)| (value.timestamp, *dot));
        winner.map(|(_, value)| value)
    }

    /// The latest timestamp of all that was written; `None`: nothing was.
    #[must_use]
    pub fn max_timestamp(&self) -> Option<Hlc> {
        if self.is_empty() {
            return None;
        }
        let deadline = self.deadline.map(|deadline| deadline.timestamp);
        Some(self.wiped).max(self.tallies.newest()).max(self.cells.newest_of_all()).max(deadline)
    }

    /// Whether there is anything to be read at this time: what [`visible`](Object::visible) shows, or any sibling.
    #[must_use]
    pub fn live_at(&self, now_ms: u64) -> bool {
        self.siblings().any(|(_, value)| value.live_at(now_ms))
            || (!self.is_plain() && self.visible(now_ms).is_some())
    }

    /// From when on nothing of it can be read any more, in milliseconds since 1970. Zero: already, whatever the time;
    /// `None`: never, unless something is written.
    #[must_use]
    pub fn dead_from_ms(&self) -> Option<u64> {
        let bytes = self.siblings().map(|(_, value)| value).filter(|value| value.payload != Payload::Tombstone);
        if self.is_plain() {
            return bytes.map(|value| value.expires_at_ms).try_fold(0, |last, at_ms| Some(last.max(at_ms?)));
        }
        // What was there comes to an end at one of these times, and nothing begins with time.
        let deadline = self.deadline.and_then(|deadline| deadline.at_ms);
        let ends = bytes.filter_map(|value| value.expires_at_ms).chain(deadline).chain([0]);
        ends.filter(|&at_ms| !self.live_at(at_ms)).min()
    }

    /// Whether the key was written and nothing is left of it, whatever the time: every sibling is a tombstone, no set
    /// has a member, no hash a field, and nothing was added since. An object that only expires is not meant.
    #[must_use]
    pub fn only_tombstones(&self) -> bool {
        !self.is_empty()
            && self.siblings().all(|(_, value)| value.payload == Payload::Tombstone)
            && self.tallies.net(self.wiped).is_none()
            && self.cells.0.iter().all(|cell| cell.newest(self.wiped).is_none())
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

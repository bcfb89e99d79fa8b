//! What must be true of a key, told from sets of events instead of version vectors.
//!
//! An event is one write, named by its dot. Which events there are, and what each had seen, is learned from two
//! sources: the contexts that clients gave with their writes, and the objects as they were first committed by the node
//! that issued the dot. How objects are merged is not looked at: whether a value should be there is decided by asking
//! whether any event that had seen it, and so replaced it, exists.

use crate::history::{Kind, Op, OpId};
use crate::holdings::Holdings;
use bytes::Bytes;
use dynamo::object::{Context, Dot, Object, Payload, Value};
use dynamo::ring::RingView;
use std::collections::BTreeMap;
use std::time::Duration;

/// One write, as a disk has seen it.
#[derive(Clone, Debug)]
pub struct Event {
    /// Key that was written.
    pub key: Bytes,
    /// What was written.
    pub value: Value,
    /// The write of a client that it comes from; a tombstone does not tell.
    pub op: Option<OpId>,
    /// What the object had seen when its coordinator committed it, and which values were still in it.
    pub at_birth: Option<(Context, Vec<Dot>)>,
}

/// All events of a run.
#[derive(Default)]
pub struct Oracle {
    events: BTreeMap<Dot, Event>,
    by_op: BTreeMap<OpId, Vec<Dot>>,
    by_key: BTreeMap<Bytes, Vec<Dot>>,
    /// What the disk of each incarnation was given last of a key that holds nothing any more.
    dead: BTreeMap<(u64, Bytes), Context>,
    held: Holdings,
    /// When the mark of a key's deletion was first removed from a disk, and what had been seen of the key by then.
    collected: BTreeMap<Bytes, Vec<(Duration, Context)>>,
    faults: Vec<String>,
}

impl Oracle {
    /// Takes note of an object that the disk of an incarnation has been given.
    pub fn committed(&mut self, incarnation: u64, key: &[u8], encoded: &Bytes) {
        let Ok(object) = Object::decode(encoded.clone()) else {
            self.faults.push(format!("an object of key {} cannot be decoded", name(key)));
            return;
        };
        for (dot, value) in object.siblings() {
            match self.events.get(&dot) {
                None => self.add(dot, key, value),
                Some(known) if known.key == key && known.value == *value => {}
                Some(known) => self.faults.push(format!(
                    "dot {dot:?} stands for {:?} of key {} and for {value:?} of key {}",
                    known.value,
                    name(&known.key),
                    name(key)
                )),
            }
            if dot.actor.incarnation == incarnation
                && let Some(event) = self.events.get_mut(&dot)
                && event.at_birth.is_none()
            {
                event.at_birth = Some((object.context(), object.siblings().map(|(dot, _)| dot).collect()));
            }
        }
    }

    /// Takes note of the object that is the last one which the disk of an incarnation has of a key.
    pub fn stored(&mut self, incarnation: u64, key: &Bytes, encoded: &Bytes) {
        let place = (incarnation, key.clone());
        let Ok(object) = Object::decode(encoded.clone()) else { return };
        match object.only_tombstones() {
            true => self.dead.insert(place, object.context()),
            false => self.dead.remove(&place),
        };
        self.held.object(incarnation, key, &object);
    }

    /// Takes note of a hint that the disk of an incarnation has been given.
    pub fn hinted(&mut self, incarnation: u64, hint_key: &Bytes, key: &Bytes, encoded: &Bytes) {
        if let Ok(object) = Object::decode(encoded.clone()) {
            self.held.hint(incarnation, hint_key, key, &object);
        }
    }

    /// Takes note of a hint that is removed from the disk of an incarnation.
    pub fn hint_removed(&mut self, incarnation: u64, hint_key: &Bytes, key: &Bytes) {
        self.held.hint_removed(incarnation, hint_key, key);
    }

    /// Takes note of a disk that was destroyed.
    pub fn destroyed(&mut self, incarnation: u64) {
        self.held.forget(incarnation);
        self.held.anything_destroyed = true;
    }

    /// Takes note of a disk that its node has given up, on the proof of which it was taken away.
    pub fn given_up(&mut self, incarnation: u64) {
        self.held.given_up(incarnation);
    }

    /// Objects that were dropped from a disk though they were nowhere else.
    pub fn take_dropped(&mut self) -> Vec<String> {
        std::mem::take(&mut self.held.dropped)
    }

    /// Hints that were removed before they were delivered.
    pub fn take_undelivered(&mut self) -> Vec<String> {
        std::mem::take(&mut self.held.undelivered)
    }

    /// Takes note of a ring that the operator has decided on.
    pub fn ring(&mut self, ring: RingView) {
        self.held.rings.push(ring);
    }

    /// Takes note of a key that is removed from the disk of an incarnation.
    pub fn removed(&mut self, incarnation: u64, key: &Bytes, at: Duration) {
        self.held.object_removed(incarnation, key);
        let Some(seen) = self.dead.remove(&(incarnation, key.clone())) else { return };
        self.collected.entry(key.clone()).or_default().push((at, seen));
    }

    /// Whether an event had been seen when a mark of the key's deletion was collected, so that no disk needs to tell
    /// of it any more.
    #[must_use]
    pub fn is_collected(&self, key: &[u8], dot: Dot) -> bool {
        self.is_collected_by(key, dot, Duration::MAX)
    }

    /// The same by some time.
    #[must_use]
    pub fn is_collected_by(&self, key: &[u8], dot: Dot, by: Duration) -> bool {
        let mut collected = self.collected.get(key).into_iter().flatten();
        collected.any(|(at, seen)| *at <= by && seen.covers(dot))
    }

    /// The same of all events that a context covers.
    #[must_use]
    pub fn all_collected(&self, key: &[u8], context: &Context) -> bool {
        context.iter().all(|(actor, counter)| self.is_collected(key, Dot { actor, counter }))
    }

    fn add(&mut self, dot: Dot, key: &[u8], value: &Value) {
        let key = Bytes::copy_from_slice(key);
        let op = op_of(&value.payload);
        if let Some(op) = op {
            self.by_op.entry(op).or_default().push(dot);
        }
        self.by_key.entry(key.clone()).or_default().push(dot);
        self.events.insert(dot, Event { key, value: value.clone(), op, at_birth: None });
    }

    /// Dots under which a client's write was stored. More than one when a second coordinator was asked.
    #[must_use]
    pub fn dots_of(&self, op: OpId) -> &[Dot] {
        self.by_op.get(&op).map_or(&[], Vec::as_slice)
    }

    /// Whether an event that had seen this one exists, so that the value is rightly gone.
    #[must_use]
    pub fn is_replaced(&self, dot: Dot, ops_of_key: &[&Op]) -> bool {
        let stored = |op: &Op| !op.is_put() || !self.dots_of(op.id).is_empty();
        let by_context = |op: &&Op| op.given.as_ref().is_some_and(|given| given.covers(dot)) && stored(op);
        if ops_of_key.iter().any(by_context) {
            return true;
        }
        let Some(event) = self.events.get(&dot) else { return false };
        let others = self.by_key.get(&event.key).into_iter().flatten().filter(|other| **other != dot);
        others.filter_map(|other| self.events.get(other)).any(|other| {
            // Whoever gave a context has replaced what that covers and nothing else.
            let chosen = other.op.and_then(|op| ops_of_key.iter().find(|candidate| candidate.id == op));
            chosen.is_none_or(|op| op.given.is_none())
                && match &other.at_birth {
                    Some((seen, left)) => seen.covers(dot) && !left.contains(&dot),
                    // Its coordinator never committed it, so what it had seen is not known.
                    None => chosen.is_none_or(|op| op.kind == Kind::Overwrite),
                }
        })
    }

    /// Whether an acknowledged write has surely seen this event.
    #[must_use]
    pub fn is_replaced_by_acknowledged<'a>(&self, dot: Dot, ops_of_key: &[&'a Op]) -> Option<&'a Op> {
        ops_of_key.iter().copied().filter(|op| op.acknowledged()).find(|op| match (&op.given, op.kind) {
            (Some(given), _) => given.covers(dot),
            (None, Kind::Overwrite) => match self.dots_of(op.id) {
                // With more than one dot it is not known which of them was acknowledged.
                [only] => *only != dot && self.had_seen(*only, dot),
                _ => false,
            },
            _ => false,
        })
    }

    fn had_seen(&self, later: Dot, earlier: Dot) -> bool {
        let event = self.events.get(&later);
        event
            .and_then(|event| event.at_birth.as_ref())
            .is_some_and(|(seen, left)| seen.covers(earlier) && !left.contains(&earlier))
    }

    /// Things that no disk should ever have been given.
    pub fn take_faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }

    /// Number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing was ever written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// Payload by which a write is known: its number, and some filling.
#[must_use]
pub fn payload(op: OpId, filling: usize) -> Bytes {
    let mut bytes = format!("{:08x}", op.0).into_bytes();
    bytes.resize(8 + filling, b'.');
    Bytes::from(bytes)
}

/// The write that a payload comes from.
#[must_use]
pub fn op_of_bytes(bytes: &[u8]) -> Option<OpId> {
    let digits = std::str::from_utf8(bytes.get(..8)?).ok()?;
    u32::from_str_radix(digits, 16).ok().map(OpId)
}

fn op_of(payload: &Payload) -> Option<OpId> {
    match payload {
        Payload::Bytes(bytes) => op_of_bytes(bytes),
        Payload::Tombstone => None,
    }
}

fn name(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

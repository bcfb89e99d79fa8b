//! The checkers: what each answer to a client, and the end of a run, must satisfy.

use crate::changes;
use crate::history::{Kind, Op, Outcome};
use crate::shared::{Shared, Unseen};
use annulus_node::handoff::MoveRecord;
use annulus_node::ring_state::RING_KEY;
use annulus_node::storage::Space;
use bytes::Bytes;
use dynamo::hlc::{Clock, Hlc};
use dynamo::object::{Dot, Object};
use dynamo::ring::{Ring, from_json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;
use uuid::Uuid;

/// How far ahead of a node's wall clock its timestamps may be: the bound on drift, and a little for what is counted.
const CLOCK_SLACK_MS: u64 = Clock::DRIFT_MAX_MS + 1000;

/// How long after a read that misses it a deletion's mark may be removed from the disk: reads show what is about to be.
const COLLECTED_WITHIN: Duration = Duration::from_millis(500);

/// Looks at an answer at the moment it is given.
pub fn answered(shared: &Shared, op: &Op) {
    match &op.outcome {
        Outcome::Written => durable_when_acknowledged(shared, op),
        Outcome::Read { values, .. } => {
            nothing_invented(shared, op, values);
            strict_read_sees_strict_writes(shared, op);
        }
        Outcome::Unknown | Outcome::Failed(_) => {}
    }
}

/// An acknowledged write is on w disks, synced, at the moment of the acknowledgement.
fn durable_when_acknowledged(shared: &Shared, op: &Op) {
    let w = usize::from(shared.scenario.quorums.w);
    let lost = shared.disks_lost.load(Ordering::Relaxed).saturating_sub(op.disks_lost) as usize;
    let Some(copies) = copies_of(shared, op) else { return };
    if copies + lost < w {
        let what = format!("{} is acknowledged and on {copies} disks, not on {w}", describe(op));
        shared.find("durable-when-acknowledged", what);
    }
}

/// An acknowledged write stays on as many disks as it was acknowledged for, save for disks that were destroyed since.
pub fn still_durable(shared: &Shared) {
    let history = shared.history.lock().clone();
    let w = usize::from(shared.scenario.quorums.w);
    let destroyed = shared.disks_lost.load(Ordering::Relaxed);
    for op in history.iter().filter(|op| op.acknowledged() && op.is_put()) {
        let lost = destroyed.saturating_sub(op.disks_lost) as usize;
        let copies = copies_of(shared, op).unwrap_or(w);
        if copies + lost < w {
            shared.find(
                "stays-durable",
                format!("{} was acknowledged and is on {copies} disks, not on {w}", describe(op)),
            );
            return;
        }
    }
}

/// No node's timestamps have run away because another node's clock has: all are near its own wall clock, or one that
/// was.
pub fn timestamp_given(shared: &Shared, slot: usize, timestamp: u64) {
    let given = Hlc(timestamp).millis();
    let highest = shared.wall_ms(slot).max(shared.highest_wall_ms(slot));
    let most = highest + CLOCK_SLACK_MS;
    if given > most {
        let what = format!("n{slot} gives a new key a timestamp {} ms ahead of its clock", given - highest);
        shared.find("clocks-stay-near", what);
    }
}

/// The ring that a node says it serves by is on its disk: the moves go on because of what nodes say, and a node that
/// came back with an older ring would serve by lists that are no more.
pub fn ring_is_durable(shared: &Shared, slot: usize, incarnation: Uuid, epoch: u64) {
    let Some(disk) = shared.disk_of(slot, incarnation).filter(|_| epoch > 0) else { return };
    let stored = disk.synced(Space::Meta, RING_KEY).and_then(|json| from_json(&json).ok());
    let stored = stored.map_or(0, |ring| ring.epoch);
    if stored < epoch {
        shared.find("ring-on-disk", format!("n{slot} serves by epoch {epoch} and has epoch {stored} on its disk"));
    }
}

/// A move that a node says is complete is so on its disk, behind what was copied: on the strength of it others drop what
/// they have, and a node that came back without would not copy what nobody has any more.
pub fn moves_are_durable(
    shared: &Shared,
    ring: &Ring,
    slot: usize,
    incarnation: Uuid,
    synced: &BTreeSet<(u32, u64)>,
) {
    let Some(disk) = shared.disk_of(slot, incarnation) else { return };
    for &(partition, since) in synced {
        // What the ring has left behind may be forgotten meanwhile.
        let placement = ring.partitions.get(partition as usize);
        let goes_on = placement.is_some_and(|placement| placement.also.is_some() && placement.since == since);
        let key = MoveRecord { partition, since }.synced_key();
        if goes_on && disk.synced(Space::Meta, &key).is_none() {
            shared.find(
                "moves-on-disk",
                format!("n{slot} says that it has all of partition {partition}, and its disk does not"),
            );
        }
    }
}

/// On how many disks a write is; `None` if that cannot be told.
fn copies_of(shared: &Shared, op: &Op) -> Option<usize> {
    if !op.is_put() {
        let given = op.given.as_ref()?;
        if shared.oracle.lock().all_collected(&op.key, given) {
            return None;
        }
        return Some(shared.copies_covering(&op.key, given));
    }
    let dots = shared.oracle.lock().dots_of(op.id).to_vec();
    if dots.iter().any(|dot| shared.oracle.lock().is_collected(&op.key, *dot)) {
        return None;
    }
    let has = |object: &Object| {
        let seen = object.context();
        dots.iter().any(|dot| seen.covers(*dot))
    };
    Some(shared.copies(&op.key).iter().filter(|objects| objects.iter().any(has)).count())
}

/// A value that was read was written, to this key, by a write that had begun.
fn nothing_invented(shared: &Shared, op: &Op, values: &[Option<crate::history::OpId>]) {
    let history = shared.history.lock();
    for value in values {
        let write = value.and_then(|id| history.get(id.0 as usize));
        if !write.is_some_and(|write| write.is_put() && write.key == op.key) {
            shared
                .find("nothing-invented", format!("{} shows a value that nobody wrote: {value:?}", describe(op)));
        }
    }
}

/// r + w > n: a strict read sees every strict write that was acknowledged before it began, or what replaced it.
fn strict_read_sees_strict_writes(shared: &Shared, op: &Op) {
    let Outcome::Read { values, context: Some(seen) } = &op.outcome else { return };
    if !op.strict {
        return;
    }
    let history = shared.history.lock();
    let before = history.iter().filter(|write| {
        write.key == op.key && write.strict && write.acknowledged() && write.ended.is_some_and(|at| at <= op.began)
    });
    let oracle = shared.oracle.lock();
    for write in before {
        if write.is_put() {
            let dots = oracle.dots_of(write.id);
            if !dots.is_empty() && !dots.iter().any(|dot| seen.covers(*dot)) {
                let what = format!("{} does not see {}", describe(op), describe(write));
                let (key, dots, at) = (op.key.clone(), dots.to_vec(), op.ended.unwrap_or_default());
                shared.unseen.lock().push(Unseen { key, dots, at, what });
            }
        }
        let Some(given) = &write.given else { continue };
        let replaced = |value: &&crate::history::OpId| {
            let dots = oracle.dots_of(**value);
            !dots.is_empty() && dots.iter().all(|dot| given.covers(*dot))
        };
        if let Some(old) = values.iter().flatten().find(replaced) {
            let what = format!("{} still shows {old:?}, replaced by {}", describe(op), describe(write));
            shared.find("strict-read", what);
        }
    }
}

/// The objects that the holders of each key have, by key, in the order of the preference list.
#[must_use]
pub fn objects_of_holders(shared: &Shared) -> BTreeMap<Bytes, Vec<(usize, Option<Bytes>)>> {
    let mut keys: BTreeSet<Bytes> = shared.history.lock().iter().map(|op| op.key.clone()).collect();
    keys.extend(shared.changes.lock().iter().map(|change| change.key.clone()));
    let Some(view) = shared.view() else { return BTreeMap::new() };
    let slots = shared.slots.lock();
    let volume_of = |incarnation| {
        let has = |slot: &crate::shared::Slot| slot.volume.as_ref().is_some_and(|v| v.incarnation == incarnation);
        let slot = slots.iter().position(has)?;
        Some((slot, slots[slot].volume.clone()?))
    };
    let mut found = BTreeMap::new();
    while let Some(key) = keys.pop_first() {
        let token = view.token(&key);
        let storage_key = annulus_node::replica::storage_key(token, &key);
        let list = view.placement(view.partition(token)).map(|placement| placement.preference.clone());
        let objects = list.unwrap_or_default().into_iter().filter_map(|member| {
            let (slot, volume) = volume_of(view.member(member)?.incarnation)?;
            Some((slot, volume.disk.synced(Space::Data, &storage_key)))
        });
        found.insert(key, objects.collect());
    }
    found
}

/// At the end: all holders of a key have the same object, and it holds exactly the writes that nothing has replaced.
pub fn at_the_end(shared: &Shared) {
    changes::at_the_end(shared);
    for what in shared.oracle.lock().take_faults() {
        shared.find("one-dot-one-value", what);
    }
    for what in shared.oracle.lock().take_dropped() {
        shared.find("left-elsewhere", what);
    }
    for what in shared.oracle.lock().take_undelivered() {
        shared.find("hints-are-delivered", what);
    }
    for Unseen { key, dots, at, what } in std::mem::take(&mut *shared.unseen.lock()) {
        let by = at + COLLECTED_WITHIN;
        if !dots.iter().any(|dot| shared.oracle.lock().is_collected_by(&key, *dot, by)) {
            shared.find("strict-read", what);
        }
    }
    let history = shared.history.lock().clone();
    for (key, objects) in objects_of_holders(shared) {
        // Marks that are being collected are gone at some and not yet at others.
        let collected = |object: &Bytes| {
            let object = Object::decode(object.clone());
            let oracle = shared.oracle.lock();
            object.is_ok_and(|object| object.only_tombstones() && oracle.all_collected(&key, &object.context()))
        };
        let objects: Vec<(usize, Option<Bytes>)> =
            objects.into_iter().map(|(slot, object)| (slot, object.filter(|object| !collected(object)))).collect();
        let Some((_, first)) = objects.first() else { continue };
        if let Some((slot, _)) = objects.iter().find(|(_, object)| object != first) {
            let what =
                format!("n{slot} has another object of {key:?} than n{}: {}", objects[0].0, versions(&objects));
            shared.find("replicas-equal", what);
        }
        let merged = objects.iter().filter_map(|(_, object)| Object::decode(object.clone()?).ok());
        let merged = merged.fold(Object::default(), |all, object| all.merge(&object));
        let ops: Vec<&Op> = history.iter().filter(|op| op.key == key).collect();
        exactly_the_siblings(shared, &ops, &merged);
    }
}

fn exactly_the_siblings(shared: &Shared, ops: &[&Op], object: &Object) {
    let oracle = shared.oracle.lock();
    let there: BTreeSet<Dot> = object.siblings().map(|(dot, _)| dot).collect();
    for op in ops.iter().filter(|op| op.acknowledged() && op.is_put()) {
        let dots = oracle.dots_of(op.id);
        if !dots.iter().any(|dot| there.contains(dot) || oracle.is_replaced(*dot, ops)) {
            shared.find("no-write-lost", format!("{} was acknowledged and is gone", describe(op)));
        }
    }
    for (dot, value) in object.siblings() {
        if let Some(op) = oracle.is_replaced_by_acknowledged(dot, ops) {
            let what = format!("{value:?} at {dot:?} is there, replaced by {}", describe(op));
            shared.find("no-resurrection", what);
        }
    }
}

fn versions(objects: &[(usize, Option<Bytes>)]) -> String {
    let each = objects.iter().map(|(slot, object)| {
        let object = object.clone().map(Object::decode);
        format!("n{slot}: {object:?}")
    });
    each.collect::<Vec<_>>().join(" | ")
}

fn describe(op: &Op) -> String {
    let strict = if op.strict { "strict " } else { "" };
    let key = String::from_utf8_lossy(&op.key);
    let ended = op.ended.unwrap_or_default().as_secs_f64();
    let kind = match op.kind {
        Kind::Get => "get",
        Kind::Put => "put",
        Kind::Overwrite => "overwrite",
        Kind::Delete => "delete",
    };
    format!("{strict}{kind} #{} of {key} ({:.3} to {ended:.3})", op.id.0, op.began.as_secs_f64())
}

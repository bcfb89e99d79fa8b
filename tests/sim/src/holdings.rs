//! What all disks hold of each key, kept apart from the disks, so that whatever is dropped can be looked for elsewhere at
//! that very moment.

use bytes::Bytes;
use dynamo::object::{Context, Object};
use std::collections::BTreeMap;

/// Where something of a key is: a disk, and for hints the hint's key.
type Place = (u64, Option<Bytes>);

/// What is held.
#[derive(Default)]
pub struct Holdings {
    by_key: BTreeMap<Bytes, BTreeMap<Place, Held>>,
    /// A disk was destroyed: what it alone had been handed is gone, and nobody else's fault.
    pub anything_destroyed: bool,
    /// What was dropped and is nowhere else.
    pub dropped: Vec<String>,
}

struct Held {
    seen: Context,
    live: bool,
}

impl Holdings {
    /// A disk has this object of a key from now on.
    pub fn object(&mut self, disk: u64, key: &Bytes, object: &Object) {
        self.put((disk, None), key, object);
    }

    /// A disk has this hint from now on.
    pub fn hint(&mut self, disk: u64, hint_key: &Bytes, key: &Bytes, object: &Object) {
        self.put((disk, Some(hint_key.clone())), key, object);
    }

    fn put(&mut self, place: Place, key: &Bytes, object: &Object) {
        let held = Held { seen: object.context(), live: !object.only_tombstones() };
        self.by_key.entry(key.clone()).or_default().insert(place, held);
    }

    /// A hint is no longer on a disk.
    pub fn hint_removed(&mut self, disk: u64, hint_key: &Bytes, key: &Bytes) {
        if let Some(places) = self.by_key.get_mut(key) {
            places.remove(&(disk, Some(hint_key.clone())));
        }
    }

    /// A disk drops its object of a key. Unless that is a deletion's mark, all it has seen must be elsewhere.
    pub fn object_removed(&mut self, disk: u64, key: &Bytes) {
        let Some(places) = self.by_key.get_mut(key) else { return };
        let Some(gone) = places.remove(&(disk, None)) else { return };
        if !gone.live || self.anything_destroyed {
            return;
        }
        let elsewhere = |actor, counter| places.values().any(|held| held.seen.get(actor) >= counter);
        if let Some((actor, counter)) = gone.seen.iter().find(|&(actor, counter)| !elsewhere(actor, counter)) {
            let key = String::from_utf8_lossy(key);
            self.dropped
                .push(format!("{key} was dropped with event {counter} of {actor:?}, which no disk has else"));
        }
    }

    /// A disk is no more.
    pub fn forget(&mut self, disk: u64) {
        for places in self.by_key.values_mut() {
            places.retain(|(at, _), _| *at != disk);
        }
    }
}

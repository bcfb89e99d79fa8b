//! What all disks hold of each key, kept apart from the disks, so that whatever is dropped can be looked for elsewhere at
//! that very moment; and what each disk has ever had, for whoever says to have brought it there.

use annulus_node::replica::split_storage_key;
use bytes::Bytes;
use dynamo::object::{Actor, Context, Object};
use dynamo::ring::RingView;
use std::collections::BTreeMap;
use uuid::Uuid;

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
    /// All rings there were.
    pub rings: Vec<RingView>,
    /// Hints that were removed before those had them whom they were for.
    pub undelivered: Vec<String>,
    /// The last event of each actor that a disk has ever seen of a key.
    ever: BTreeMap<(u64, Bytes), BTreeMap<Actor, u64>>,
}

struct Held {
    seen: Context,
    live: bool,
}

impl Holdings {
    /// A disk has this object of a key from now on.
    pub fn object(&mut self, disk: u64, key: &Bytes, object: &Object) {
        let ever = self.ever.entry((disk, key.clone())).or_default();
        for (actor, counter) in object.context().iter() {
            let last = ever.entry(actor).or_default();
            *last = counter.max(*last);
        }
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

    /// A hint is no longer on a disk. Unless it is for a deletion's mark, its target has had it, or all holders of the
    /// key had by some ring.
    pub fn hint_removed(&mut self, disk: u64, hint_key: &Bytes, key: &Bytes) {
        let Some(places) = self.by_key.get_mut(key) else { return };
        let Some(gone) = places.remove(&(disk, Some(hint_key.clone()))) else { return };
        if !gone.live || self.anything_destroyed {
            return;
        }
        let has = |incarnation: Uuid| {
            let ever = self.ever.get(&(incarnation.as_u64_pair().1, key.clone()));
            gone.seen.iter().all(|(actor, counter)| ever.and_then(|ever| ever.get(&actor)) >= Some(&counter))
        };
        let target = hint_key.get(..16).and_then(|id| Uuid::from_slice(id).ok());
        let token = split_storage_key(&hint_key.slice(16.min(hint_key.len())..)).map(|(token, _)| token);
        let (Some(target), Some(token)) = (target, token) else { return };
        let all_have = |ring: &RingView| {
            let holders = ring.placement(ring.partition(token)).map(|placement| placement.holders());
            let holders = holders.unwrap_or_default().into_iter().filter_map(|member| ring.member(member));
            holders.map(|member| member.incarnation).all(has)
        };
        if !has(target) && !self.rings.iter().any(all_have) {
            let key = String::from_utf8_lossy(key);
            self.undelivered.push(format!("a hint of {key} for {target} is gone, which not all holders have had"));
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

    /// A disk goes because its node has said that it may: all that it has seen must be elsewhere, as if it was dropped.
    pub fn given_up(&mut self, disk: u64) {
        let keys: Vec<Bytes> = self.by_key.keys().cloned().collect();
        for key in keys {
            self.object_removed(disk, &key);
        }
        self.forget(disk);
    }

    /// A disk is no more.
    pub fn forget(&mut self, disk: u64) {
        for places in self.by_key.values_mut() {
            places.retain(|(at, _), _| *at != disk);
        }
    }
}

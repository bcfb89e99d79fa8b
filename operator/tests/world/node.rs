//! A node in memory: what it holds, and what it would say of itself.

use annulus_proto::v1::{Moved, NodeStatus, Synced};
use dynamo::preference::MemberIndex;
use dynamo::ring::{Placement, Ring};
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Parts of the ring that what a node holds is counted in: as many as the largest Q of a story.
pub const PARTS: u32 = 256;

#[derive(Clone, Debug, Default)]
pub struct FakeNode {
    pub incarnation: Uuid,
    pub ring: Option<Ring>,
    /// Parts of the ring of which it has everything that was ever acknowledged.
    pub holds: BTreeSet<u32>,
    pub hints: u64,
    pub moved: Option<Moved>,
    /// Partitions copied in its life, in parts of the ring.
    pub copied: u64,
    /// What it says that it copies a second beside its clients.
    pub beside_clients: Option<u64>,
}

impl FakeNode {
    pub fn new(incarnation: Uuid) -> Self {
        Self { incarnation, ..Self::default() }
    }

    /// The members of a first ring hold their partitions, which are empty.
    pub fn begin(&mut self, first: &Ring) {
        self.holds = listed(first, self.incarnation).flat_map(|partition| parts(first, partition)).collect();
    }

    /// Keeps the newer ring.
    pub fn install(&mut self, ring: &Ring) -> u64 {
        let known = self.ring.as_ref().map_or(0, |ring| ring.epoch);
        if ring.epoch > known {
            self.ring = Some(ring.clone());
        }
        self.ring.as_ref().map_or(0, |ring| ring.epoch)
    }

    /// Partitions of its ring of which it holds something and for which no list names it.
    fn leftovers(&self, listed: &BTreeSet<u32>) -> usize {
        let partitions = self.ring.as_ref().map_or(0, |ring| u32::try_from(ring.partitions.len()).unwrap());
        let held: BTreeSet<u32> = self.holds.iter().map(|part| part * partitions / PARTS).collect();
        held.difference(listed).count()
    }

    pub fn status(&self, cluster: Uuid) -> NodeStatus {
        let listed: BTreeSet<u32> = self.ring.iter().flat_map(|r| listed(r, self.incarnation)).collect();
        NodeStatus {
            cluster: cluster.as_bytes().to_vec().into(),
            incarnation: self.incarnation.as_bytes().to_vec().into(),
            epoch: self.ring.as_ref().map_or(0, |ring| ring.epoch),
            listed_partitions: u32::try_from(listed.len()).unwrap(),
            hints: self.hints,
            synced: self.synced(),
            moved: self.moved,
            bytes: 125 * self.holds.len() as u64,
            serving_bytes: 125 * self.serving().count() as u64,
            leftover_partitions: u32::try_from(self.leftovers(&listed)).unwrap(),
            beside_clients_bytes_per_second: self.beside_clients,
            ..NodeStatus::default()
        }
    }

    /// Parts that it holds of partitions whose effective list names it.
    fn serving(&self) -> impl Iterator<Item = &u32> {
        let names = |ring: &Ring, part: u32| {
            let me = ring.member_by_incarnation(self.incarnation)?.index;
            let partition = part * u32::try_from(ring.partitions.len()).ok()? / PARTS;
            Some(ring.partitions.get(partition as usize)?.preference.contains(&me))
        };
        self.holds.iter().filter(move |part| self.ring.as_ref().is_some_and(|r| names(r, **part) == Some(true)))
    }

    fn synced(&self) -> Vec<Synced> {
        self.filling()
            .filter(|(partition, _)| self.ring.as_ref().is_some_and(|ring| holds(&self.holds, ring, *partition)))
            .map(|(partition, since)| Synced { partition, since })
            .collect()
    }

    /// Partitions that this node has to copy, with the epoch of the entry.
    fn filling(&self) -> impl Iterator<Item = (u32, u64)> {
        let me = self.ring.as_ref().and_then(|r| r.member_by_incarnation(self.incarnation)).map(|m| m.index);
        let partitions = self.ring.iter().flat_map(|ring| (0..).zip(&ring.partitions));
        partitions.filter_map(move |(partition, placement)| fills(placement, me?).map(|since| (partition, since)))
    }

    /// Copies what it has to from a member of the effective list that is up and has it; drops what is not its own.
    pub fn work(&mut self, sources: &BTreeMap<Uuid, BTreeSet<u32>>, rng: &mut StdRng) {
        let Some(ring) = self.ring.clone() else {
            return;
        };
        let filling: Vec<(u32, u64)> = self.filling().collect();
        for (partition, _) in filling {
            let from = &ring.partitions[partition as usize].preference;
            let source = from.iter().filter_map(|index| ring.member(*index)).any(|member| {
                sources.get(&member.incarnation).is_some_and(|source| holds(source, &ring, partition))
            });
            if source && !holds(&self.holds, &ring, partition) && rng.random_bool(0.5) {
                self.holds.extend(parts(&ring, partition));
                self.copied += parts(&ring, partition).count() as u64;
                let since = ring.target.as_ref().map_or(0, |target| target.since);
                let before = self.moved.filter(|moved| moved.since == since).map_or(0, |moved| moved.bytes);
                self.moved = Some(Moved { since, bytes: before + 1000, items: 1 });
            }
        }
        if rng.random_bool(0.5) {
            let listed = listed(&ring, self.incarnation).flat_map(|partition| parts(&ring, partition));
            let listed: BTreeSet<u32> = listed.collect();
            self.holds.retain(|part| listed.contains(part));
        }
        self.hints = self.hints.saturating_sub(1);
    }
}

/// Whether all of a partition is among these parts.
pub fn holds(held: &BTreeSet<u32>, ring: &Ring, partition: u32) -> bool {
    parts(ring, partition).all(|part| held.contains(&part))
}

fn parts(ring: &Ring, partition: u32) -> std::ops::Range<u32> {
    let width = PARTS / u32::try_from(ring.partitions.len()).unwrap();
    partition * width..(partition + 1) * width
}

fn fills(placement: &Placement, me: MemberIndex) -> Option<u64> {
    placement.is_to_sync(me).then_some(placement.since)
}

fn listed(ring: &Ring, incarnation: Uuid) -> impl Iterator<Item = u32> {
    let me = ring.member_by_incarnation(incarnation).map(|member| member.index);
    (0..)
        .zip(&ring.partitions)
        .filter(move |(_, p)| me.is_some_and(|me| p.names(me)))
        .map(|(partition, _)| partition)
}

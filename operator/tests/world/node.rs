//! A node in memory: what it holds, and what it would say of itself.

use annulus_proto::v1::{Moved, NodeStatus, Synced};
use dynamo::preference::MemberIndex;
use dynamo::ring::{Phase, Placement, Ring};
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

#[derive(Clone, Debug)]
pub struct FakeNode {
    pub incarnation: Uuid,
    pub ring: Option<Ring>,
    /// Partitions of which it has everything that was ever acknowledged.
    pub holds: BTreeSet<u32>,
    pub hints: u64,
    pub moved: Option<Moved>,
}

impl FakeNode {
    pub fn new(incarnation: Uuid) -> Self {
        Self { incarnation, ring: None, holds: BTreeSet::new(), hints: 0, moved: None }
    }

    /// The members of a first ring hold their partitions, which are empty.
    pub fn begin(&mut self, first: &Ring) {
        self.holds = listed(first, self.incarnation).collect();
    }

    /// Keeps the newer ring.
    pub fn install(&mut self, ring: &Ring) -> u64 {
        let known = self.ring.as_ref().map_or(0, |ring| ring.epoch);
        if ring.epoch > known {
            self.split(ring.partitions.len());
            self.ring = Some(ring.clone());
        }
        self.ring.as_ref().map_or(0, |ring| ring.epoch)
    }

    /// Whoever holds a partition holds its parts.
    fn split(&mut self, partitions: usize) {
        let before = self.ring.as_ref().map_or(partitions, |ring| ring.partitions.len());
        let parts = u32::try_from(partitions / before.max(1)).unwrap();
        if parts > 1 {
            self.holds =
                self.holds.iter().flat_map(|partition| partition * parts..(partition + 1) * parts).collect();
        }
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
            bytes: 1000 * self.holds.len() as u64,
            leftover_partitions: u32::try_from(self.holds.difference(&listed).count()).unwrap(),
            ..NodeStatus::default()
        }
    }

    fn synced(&self) -> Vec<Synced> {
        self.filling()
            .filter(|(partition, _)| self.holds.contains(partition))
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
            let source = from
                .iter()
                .filter_map(|index| ring.member(*index))
                .any(|member| sources.get(&member.incarnation).is_some_and(|holds| holds.contains(&partition)));
            if source && !self.holds.contains(&partition) && rng.random_bool(0.5) {
                self.holds.insert(partition);
                let since = ring.target.as_ref().map_or(0, |target| target.since);
                let before = self.moved.filter(|moved| moved.since == since).map_or(0, |moved| moved.bytes);
                self.moved = Some(Moved { since, bytes: before + 1000, items: 1 });
            }
        }
        if rng.random_bool(0.5) {
            let listed: BTreeSet<u32> = listed(&ring, self.incarnation).collect();
            self.holds.retain(|partition| listed.contains(partition));
        }
        self.hints = self.hints.saturating_sub(1);
    }
}

fn fills(placement: &Placement, me: MemberIndex) -> Option<u64> {
    let also = placement.also.as_ref().filter(|also| also.phase == Phase::Filling)?;
    (also.list.contains(&me) && !placement.preference.contains(&me)).then_some(also.since)
}

fn listed(ring: &Ring, incarnation: Uuid) -> impl Iterator<Item = u32> {
    let me = ring.member_by_incarnation(incarnation).map(|member| member.index);
    (0..)
        .zip(&ring.partitions)
        .filter(move |(_, p)| me.is_some_and(|me| p.names(me)))
        .map(|(partition, _)| partition)
}

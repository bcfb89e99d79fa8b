//! Pretended nodes that report in any order, and documents made by asking them.

use dynamo::moves::{self, Pace, Report, Reports, Step, Wanted, Wish};
use dynamo::preference::MemberIndex;
use dynamo::quorum::holders_to_meet;
use dynamo::ring::{Phase, Quorums, Ring};
use dynamo::token::{HashKey, PartitionCount};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

pub fn incarnation(number: u32) -> Uuid {
    Uuid::from_u128(u128::from(number) + 1)
}

pub fn wish(members: impl IntoIterator<Item = u32>) -> Wish {
    Wish {
        partitions: PartitionCount::new(64).unwrap(),
        quorums: Quorums { n: 3, r: 2, w: 2, sloppy: true },
        members: members
            .into_iter()
            .map(|number| Wanted {
                incarnation: incarnation(number),
                name: format!("node-{number}"),
                peer_address: format!("node-{number}:7400"),
                client_address: format!("node-{number}:6379"),
                zone: None,
                weight: 1,
            })
            .collect(),
        gone: BTreeSet::new(),
    }
}

pub fn new_ring(members: u32) -> Ring {
    moves::create(Uuid::from_u128(7), HashKey([1; 16]), &wish(0..members)).unwrap()
}

/// Pretended nodes: each has installed some epoch and completes its moves when told to.
#[derive(Default)]
pub struct Nodes {
    pub installed: BTreeMap<Uuid, Ring>,
    pub synced: BTreeMap<Uuid, BTreeSet<(u32, u64)>>,
    /// What each of them says that it copies a second beside its clients.
    pub beside_clients: Option<u64>,
    /// What each of them says that it serves.
    pub serving_bytes: u64,
}

impl Nodes {
    pub fn install(&mut self, incarnation: Uuid, ring: &Ring) {
        self.installed.insert(incarnation, ring.clone());
    }

    /// The node completes every move that the ring it has installed wants of it, as far as enough holders have heard of
    /// the move to be copied from.
    pub fn sync(&mut self, incarnation: Uuid) {
        let Some(ring) = self.installed.get(&incarnation) else { return };
        let Some(me) = ring.member_by_incarnation(incarnation).map(|member| member.index) else { return };
        let mut synced = BTreeSet::new();
        for (partition, placement) in (0u32..).zip(&ring.partitions) {
            let holders = &placement.preference;
            let to_meet = holders_to_meet(holders.len(), ring.quorums.of_list(holders.len()).1, 0);
            if let Some(also) = &placement.also
                && also.phase == Phase::Filling
                && also.list.contains(&me)
                && self.at(ring, holders, partition, placement.since) >= to_meet
            {
                synced.insert((partition, placement.since));
            }
        }
        self.synced.entry(incarnation).or_default().extend(synced);
    }

    /// How many of these members serve the partition by lists that are what they are since this epoch.
    pub fn at(&self, ring: &Ring, members: &[MemberIndex], partition: u32, since: u64) -> usize {
        let serves = |index: &&MemberIndex| {
            let installed = ring.member(**index).and_then(|member| self.installed.get(&member.incarnation));
            installed.is_some_and(|ring| ring.partitions[partition as usize].since == since)
        };
        members.iter().filter(serves).count()
    }

    pub fn reports(&self) -> Reports {
        self.installed
            .iter()
            .map(|(incarnation, ring)| {
                let synced = self.synced.get(incarnation).cloned().unwrap_or_default();
                let (beside_clients, serving_bytes) = (self.beside_clients, self.serving_bytes);
                let report =
                    Report { epoch: ring.epoch, synced, beside_clients, serving_bytes, ..Report::default() };
                (*incarnation, report)
            })
            .collect()
    }

    pub fn everyone_follows(&mut self, ring: &Ring) {
        for member in &ring.members {
            self.install(member.incarnation, ring);
        }
        for member in &ring.members {
            self.sync(member.incarnation);
        }
    }

    pub fn advance(&self, ring: &Ring, wish: &Wish) -> Step {
        moves::advance(ring, wish, &self.reports(), Pace::default()).unwrap()
    }
}

/// The first document towards a wish, and nodes that follow the one before.
pub fn named(ring: &Ring, wish: &Wish) -> (Ring, Nodes) {
    let mut nodes = Nodes::default();
    nodes.everyone_follows(ring);
    (published(nodes.advance(ring, wish)), nodes)
}

/// The documents until moves have begun: one that names the members, one that starts to move.
pub fn begun(ring: &Ring, wish: &Wish) -> (Ring, Nodes) {
    let (named, mut nodes) = named(ring, wish);
    assert!(
        named.partitions.iter().all(|placement| placement.also.is_none()),
        "nobody has met the joining members"
    );
    nodes.everyone_follows(&named);
    (published(nodes.advance(&named, wish)), nodes)
}

pub fn published(step: Step) -> Ring {
    match step {
        Step::Publish(next, _) => *next,
        other => panic!("nothing was published: {other:?}"),
    }
}

/// Advances with nodes that follow at once, until settled.
pub fn settle(mut ring: Ring, wish: &Wish, pace: Pace) -> Ring {
    let mut nodes = Nodes::default();
    for _ in 0..300 {
        nodes.everyone_follows(&ring);
        match moves::advance(&ring, wish, &nodes.reports(), pace).unwrap() {
            Step::Publish(next, _) => {
                assert_eq!(next.epoch, ring.epoch + 1);
                says_what_changed(&ring, &next);
                ring = *next;
            }
            Step::Settled => return ring,
            Step::Wait(reasons) => panic!("waits although everyone follows: {reasons:?}"),
        }
    }
    panic!("not settled after 300 documents");
}

/// Lists that are another document's have its epoch, and lists that are as before have the one that they had.
pub fn says_what_changed(before: &Ring, next: &Ring) {
    let halves = next.partitions.len() / before.partitions.len();
    for (partition, new) in next.partitions.iter().enumerate() {
        let old = &before.partitions[partition / halves];
        let same = (&old.preference, &old.also) == (&new.preference, &new.also);
        let since = if same { old.since } else { next.epoch };
        assert_eq!(new.since, since, "partition {partition} of epoch {}", next.epoch);
    }
}

pub fn holders(ring: &Ring) -> BTreeSet<MemberIndex> {
    ring.partitions.iter().flat_map(|placement| placement.holders()).collect()
}

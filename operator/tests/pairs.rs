//! A change of mind at any moment: every change while every other one runs, taken up at several points of it.
//!
//! The world asserts at each action that nothing goes without proof and that every listed member holds its partitions;
//! here each pair has to end in what was wished last, and one that is taken back must not copy more than it had moved.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use dynamo::ring::Quorums;
use dynamo::token::PartitionCount;
use std::collections::BTreeMap;
use world::{PARTITIONS, World};

const REPLICAS: u32 = 6;
/// Rounds of the running change before the new wish.
const POINTS: [u32; 7] = [1, 2, 4, 7, 12, 20, 35];

/// Something that a user does to a settled cluster of six nodes with n = 3, or that happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Back,
    OutBy1,
    OutBy3,
    InBy1,
    InBy3,
    FactorUp,
    FactorDown,
    Split,
    Zones,
    Weights,
    Restart,
    GrowVolumes,
    LoseVolume,
    LoseHost,
}

use Change::*;

const CHANGES: [Change; 14] = [
    Back,
    OutBy1,
    OutBy3,
    InBy1,
    InBy3,
    FactorUp,
    FactorDown,
    Split,
    Zones,
    Weights,
    Restart,
    GrowVolumes,
    LoseVolume,
    LoseHost,
];

impl Change {
    /// Makes it the only wish that differs from the cluster as it was first described. What cannot be taken back, more
    /// partitions and larger volumes, stays.
    fn wish(self, world: &mut World) {
        let (partitions, volume_bytes) = (world.desired.partitions, world.desired.volume_bytes);
        world.desired = world::desired(REPLICAS, quorums(3));
        world.desired.partitions = partitions;
        world.desired.volume_bytes = volume_bytes;
        match self {
            Back => {}
            OutBy1 => world.desired.replicas += 1,
            OutBy3 => world.desired.replicas += 3,
            InBy1 => world.desired.replicas -= 1,
            InBy3 => world.desired.replicas -= 3,
            FactorUp => world.desired.quorums = quorums(5),
            FactorDown => world.desired.quorums = quorums(2),
            Split => world.desired.partitions = PartitionCount::new((partitions.get() * 2).min(256)).unwrap(),
            Zones => world.desired.zones = true,
            Weights => {
                world.desired.zones = true;
                world.desired.zone_weights = BTreeMap::from([("zone-1".to_owned(), 3)]);
            }
            Restart => {
                world.revision += 1;
                world.objects_current = false;
            }
            GrowVolumes => world.desired.volume_bytes *= 2,
            LoseVolume => world.lose_volume(1),
            LoseHost => world.lose_host(1),
        }
    }

    /// Whether taking it back needs no more copies than it has made itself. A lower n makes none, but drops some.
    fn is_undone_by_its_copies(self) -> bool {
        !matches!(self, FactorDown | Split | LoseVolume | LoseHost)
    }
}

fn quorums(n: u8) -> Quorums {
    let majority = n / 2 + 1;
    Quorums { n, r: majority, w: majority, sloppy: true }
}

/// One pair at one point. Returns the copies before and after the change of mind, in parts of the ring.
fn run(running: Change, wish: Change, rounds: u32, seed: u64) -> (u64, u64) {
    let mut world = World::new(REPLICAS, seed);
    world.settle();
    running.wish(&mut world);
    for _ in 0..rounds {
        world.tick();
    }
    let before = world.copied();
    // One disk of three that hold an item may be lost while nothing is wrong with the others.
    if !(matches!(running, LoseVolume | LoseHost) && matches!(wish, LoseVolume | LoseHost)) {
        wish.wish(&mut world);
    }
    world.settle();
    check(&world, wish);
    (before, world.copied() - before)
}

/// The cluster is as it was wished last.
fn check(world: &World, wish: Change) {
    let (desired, ring) = (&world.desired, world.ring().unwrap());
    assert_eq!(ring.quorums, desired.quorums);
    assert_eq!(ring.partitions.len(), desired.partitions.get() as usize);
    assert!(ring.partitions.iter().all(|p| p.preference.len() == usize::from(desired.quorums.n)));
    assert_eq!(world.pods.len(), desired.replicas as usize);
    let revision = &world.workload.as_ref().unwrap().revision;
    assert!(world.pods.values().all(|pod| pod.revision == *revision), "a pod of an older template is left");
    let volumes = world.volumes.iter().filter(|(ordinal, _)| **ordinal < desired.replicas);
    assert!(volumes.clone().all(|(_, volume)| volume.bytes == desired.volume_bytes && !volume.stranded));
    if wish == Zones {
        for placement in &ring.partitions {
            let mut zones: Vec<_> = placement.preference.iter().map(|m| &ring.member(*m).unwrap().zone).collect();
            zones.sort();
            zones.dedup();
            assert_eq!(zones.len(), 3, "two replicas share a zone");
        }
    }
}

#[test]
fn every_wish_while_every_change_runs() {
    println!("| running | new wishes × moments | copies of parts before | and after |");
    for (at, running) in CHANGES.into_iter().enumerate().skip(1) {
        let (mut pairs, mut before, mut after) = (0, 0, 0);
        for wish in CHANGES.into_iter().filter(|wish| *wish != running) {
            for rounds in POINTS {
                let seed = u64::from(rounds) * 1000 + at as u64;
                let (moved, then) = run(running, wish, rounds, seed);
                if wish == Back && running.is_undone_by_its_copies() {
                    assert!(
                        then <= moved,
                        "{running:?} taken back after {rounds} rounds: {moved} copied, then {then}"
                    );
                }
                (pairs, before, after) = (pairs + 1, before + moved, after + then);
            }
        }
        println!("| {running:?} | {pairs} | {before} | {after} |");
    }
    assert_eq!(PARTITIONS, 32, "the moments are chosen for so many partitions, eight of which move at a time");
}

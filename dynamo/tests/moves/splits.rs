//! More partitions: what a split leaves as it was.

use crate::nodes::{Nodes, begun, named, new_ring, published, settle, wish};
use dynamo::moves::{self, Pace, Step, Wish};
use dynamo::preference::preference_list;
use dynamo::ring::Ring;
use dynamo::token::{HashKey, PartitionCount};
use uuid::Uuid;

fn in_partitions(count: u32, wish: Wish) -> Wish {
    Wish { partitions: PartitionCount::new(count).unwrap(), ..wish }
}

#[test]
fn a_split_moves_nothing() {
    let before = settle(new_ring(3), &wish(0..5), Pace::default());
    let mut nodes = Nodes::default();
    nodes.everyone_follows(&before);
    let Step::Publish(split, change) = nodes.advance(&before, &in_partitions(256, wish(0..5))) else {
        panic!("nothing moves, so it may split")
    };
    assert!(change.split && change.begun == 0 && !change.retargeted);
    assert_eq!((split.epoch, split.partitions.len()), (before.epoch + 1, 256));
    for (partition, placement) in split.partitions.iter().enumerate() {
        assert_eq!(*placement, before.partitions[partition / 4]);
    }
    let walk = |ring: &Ring| {
        let owners = ring.owners();
        (0..256u32)
            .map(|p| preference_list(&owners, p * ring.partitions.len() as u32 / 256, 3, &|_| None))
            .collect()
    };
    let (old, new): (Vec<_>, Vec<_>) = (walk(&before), walk(&split));
    assert_eq!(old, new, "the walk finds the same lists");
    assert_eq!(nodes.advance(&split, &in_partitions(256, wish(0..5))), Step::Settled);
}

#[test]
fn a_split_waits_until_nothing_moves_and_is_never_undone() {
    let ring = new_ring(3);
    let (filling, mut nodes) = begun(&ring, &in_partitions(64, wish(0..5)));
    nodes.everyone_follows(&filling);
    let next = published(nodes.advance(&filling, &in_partitions(128, wish(0..5))));
    assert_eq!(next.partitions.len(), 64, "partitions move");
    let ring = settle(next, &in_partitions(128, wish(0..5)), Pace::default());
    assert_eq!(ring.partitions.len(), 128);
    assert_eq!(settle(ring, &wish(0..5), Pace::default()).partitions.len(), 128);
}

#[test]
fn a_split_ring_scales_with_the_least_movement() {
    for (from, to) in [(3, 5), (5, 3), (3, 4), (10, 7)] {
        let ring = moves::create(Uuid::from_u128(7), HashKey([1; 16]), &wish(0..from)).unwrap();
        let ring = settle(ring, &in_partitions(256, wish(0..from)), Pace::default());
        let (next, _) = named(&ring, &in_partitions(256, wish(0..to)));
        let target = next.target.unwrap();
        println!("{from} -> {to}: {} replica moves, at least {}", target.replica_moves, target.replica_moves_min);
        assert!(target.replica_moves * 10 <= target.replica_moves_min * 11, "{from} -> {to}: {target:?}");
    }
}

//! Wishes that change at any moment, nodes that follow in any order or not at all, and two models of what that may do
//! to clients: of who has what was acknowledged, and of who may still serve by documents that are no more.

use crate::nodes::{Nodes, holders, incarnation, says_what_changed, settle, wish};
use dynamo::moves::{self, Pace, Step, Wish};
use dynamo::preference::MemberIndex;
use dynamo::ring::{Placement, Quorums, Ring, from_json, same_set, to_json};
use dynamo::token::{HashKey, PartitionCount};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

const MEMBERS: u32 = 6;

/// Who has everything of a partition that was ever acknowledged.
type Complete = BTreeSet<(u32, MemberIndex)>;

fn assert_reads_are_safe(ring: &Ring, complete: &Complete) {
    for (partition, placement) in (0u32..).zip(&ring.partitions) {
        for member in &placement.preference {
            let epoch = ring.epoch;
            assert!(
                complete.contains(&(partition, *member)),
                "partition {partition}: member {member} serves reads without having been filled, epoch {epoch}"
            );
        }
    }
}

/// What the node has reported for the moves of this document.
fn note_complete(ring: &Ring, nodes: &Nodes, incarnation: Uuid, complete: &mut Complete) {
    let Some(me) = ring.member_by_incarnation(incarnation).map(|member| member.index) else { return };
    let Some(synced) = nodes.synced.get(&incarnation) else { return };
    for (partition, placement) in (0u32..).zip(&ring.partitions) {
        if placement.also.is_some() && synced.contains(&(partition, placement.since)) {
            complete.insert((partition, me));
        }
    }
}

/// All that was ever published of each partition: the lists, and the quorums by which they were served.
type Published = BTreeMap<(u32, u64), (Placement, Quorums)>;

fn note_published(ring: &Ring, published: &mut Published) {
    for (partition, placement) in (0u32..).zip(&ring.partitions) {
        published.entry((partition, placement.since)).or_insert_with(|| (placement.clone(), ring.quorums));
    }
}

fn lists(placement: &Placement) -> impl Iterator<Item = &Vec<MemberIndex>> {
    std::iter::once(&placement.preference).chain(placement.also.iter().map(|also| &also.list))
}

fn names_list(placement: &Placement, list: &[MemberIndex]) -> bool {
    lists(placement).any(|other| same_set(other, list))
}

/// Where enough members serve by an older document for a read or a write to succeed among them, that read has to meet
/// the writes of today, and reads of today that write.
fn assert_stale_requests_are_safe(ring: &Ring, nodes: &Nodes, published: &Published) {
    for ((partition, since), (old, quorums)) in published {
        let new = &ring.partitions[*partition as usize];
        if new.since == *since {
            continue;
        }
        let stale = |list: &[MemberIndex]| nodes.at(ring, list, *partition, *since);
        let what = format!("partition {partition} of epoch {since}: {old:?}; in epoch {}: {new:?}", ring.epoch);
        let reads = stale(&old.preference) >= quorums.of_list(old.preference.len()).0;
        assert!(!reads || names_list(new, &old.preference), "what is written today may be read past; {what}");
        let writes = lists(old).all(|list| stale(list) >= quorums.of_list(list.len()).1);
        assert!(!writes || names_list(old, &new.preference), "what is written there may be read past; {what}");
    }
}

/// A story: wishes and sets of nodes, and turns that choose among them. Few of both, so that they come back.
#[derive(Clone, Debug)]
struct Story {
    wishes: Vec<(u32, bool)>,
    audiences: Vec<BTreeSet<u32>>,
    turns: Vec<Turn>,
}

/// What happens between two documents: the wish, who hears of the document in force and completes its moves, and who
/// answers the operator.
#[derive(Clone, Debug)]
struct Turn {
    wish: usize,
    hears: usize,
    answers: usize,
}

fn story() -> impl Strategy<Value = Story> {
    let wishes = prop::collection::vec((3..=MEMBERS, any::<bool>()), 3);
    let audiences = prop::collection::vec(prop::collection::btree_set(0..MEMBERS, 2..12), 3);
    let turn = (0usize..3, 0usize..4, 0usize..4).prop_map(|(wish, hears, answers)| Turn { wish, hears, answers });
    (wishes, audiences, prop::collection::vec(turn, 1..30)).prop_map(|(wishes, mut audiences, turns)| {
        audiences.push((0..MEMBERS).collect());
        Story { wishes, audiences, turns }
    })
}

fn wished(size: u32, raised: bool) -> Wish {
    let n = if raised && size >= 5 { 5 } else { 3 };
    let quorums = Quorums { n, r: n / 2 + 1, w: n / 2 + 1, sloppy: true };
    Wish { quorums, partitions: PartitionCount::new(16).unwrap(), ..wish(0..size) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// No list ever serves reads that was not filled, nobody who has not heard of a document reads past what is written
    /// by it, documents survive their text form, and once the wish stays and everyone follows, the ring settles as wished.
    #[test]
    fn any_change_at_any_moment_is_safe_and_settles(
        story in story(),
        parallel_moves in 1usize..20,
        beside_clients in prop::option::of(0u64..1 << 24),
    ) {
        let mut wanted = wished(3, false);
        let mut ring = moves::create(Uuid::from_u128(7), HashKey([1; 16]), &wanted).unwrap();
        let mut nodes = Nodes { beside_clients, serving_bytes: 16 << 20, ..Nodes::default() };
        nodes.everyone_follows(&ring);
        let mut published = Published::new();
        note_published(&ring, &mut published);
        let mut complete: Complete = (0u32..)
            .zip(&ring.partitions)
            .flat_map(|(partition, placement)| placement.preference.iter().map(move |member| (partition, *member)))
            .collect();
        for Turn { wish, hears, answers } in story.turns {
            let (size, raised) = story.wishes[wish];
            wanted = wished(size, raised);
            let member = |number: &u32| Some(incarnation(*number)).filter(|of| ring.member_by_incarnation(*of).is_some());
            let hears: Vec<Uuid> = story.audiences[hears].iter().filter_map(member).collect();
            for of in &hears {
                nodes.install(*of, &ring);
            }
            for of in &hears {
                nodes.sync(*of);
                note_complete(&ring, &nodes, *of, &mut complete);
            }
            let mut reports = nodes.reports();
            reports.retain(|of, _| story.audiences[answers].iter().any(|number| incarnation(*number) == *of));
            let step = moves::advance(&ring, &wanted, &reports, Pace { parallel_moves }).unwrap();
            if let Step::Publish(next, _) = step {
                prop_assert_eq!(&from_json(to_json(&next).as_bytes()).unwrap(), next.as_ref());
                // A member in neither list gets no writes any more: what it has is no longer complete.
                complete.retain(|(partition, member)| next.partitions[*partition as usize].names(*member));
                assert_reads_are_safe(&next, &complete);
                says_what_changed(&ring, &next);
                assert_stale_requests_are_safe(&next, &nodes, &published);
                note_published(&next, &mut published);
                ring = *next;
            }
        }
        let settled = settle(ring, &wanted, Pace { parallel_moves });
        let wished: BTreeSet<Uuid> = wanted.members.iter().map(|member| member.incarnation).collect();
        for index in holders(&settled) {
            prop_assert!(wished.contains(&settled.member(index).unwrap().incarnation));
        }
        prop_assert_eq!(holders(&settled).len(), wanted.members.len());
        prop_assert_eq!(settled.quorums, wanted.quorums);
    }
}

//! How much moves at once while clients are there to feel it.

use crate::nodes::{Nodes, holders, incarnation, new_ring, settle, wish};
use dynamo::moves::{self, Pace, Reports, Step};
use dynamo::preference::MemberIndex;
use dynamo::ring::{Also, Phase, Ring};

const MIB: u64 = 1 << 20;

/// Nodes that serve 64 partitions of a mebibyte each, or those who do among them.
fn nodes(beside_clients: Option<u64>) -> Nodes {
    Nodes { beside_clients, serving_bytes: 64 * MIB, ..Nodes::default() }
}

/// How many partitions are being filled with this member as a new holder.
fn filling(ring: &Ring, member: MemberIndex) -> usize {
    let fills = ring.partitions.iter().filter(|placement| {
        let fills = placement.also.as_ref().filter(|also| also.phase == Phase::Filling);
        fills.is_some_and(|also| also.list.contains(&member)) && !placement.preference.contains(&member)
    });
    fills.count()
}

/// Three nodes become five. Returns the most partitions that any of the new ones had to copy at once, and how many documents
/// it took. `follows`: who completes what it is to copy.
fn scaled_out(nodes: &mut Nodes, follows: impl Fn(u32) -> bool) -> (Ring, usize, usize) {
    let (mut ring, mut most, mut documents) = (new_ring(3), 0, 0);
    loop {
        ring.members.iter().for_each(|member| nodes.install(member.incarnation, &ring));
        (0..5).filter(|number| follows(*number)).for_each(|number| nodes.sync(incarnation(number)));
        let mut reports = nodes.reports();
        // The new ones serve nothing yet, and nobody asks the last of them.
        for number in 3..5 {
            if let Some(report) = reports.get_mut(&incarnation(number)) {
                report.serving_bytes = 0;
                report.beside_clients = report.beside_clients.filter(|_| number == 3);
            }
        }
        match moves::advance(&ring, &wish(0..5), &reports, Pace::default()).unwrap() {
            Step::Publish(next, _) => ring = *next,
            Step::Settled | Step::Wait(_) => return (ring, most, documents),
        }
        documents += 1;
        most = most.max(filling(&ring, MemberIndex(3))).max(filling(&ring, MemberIndex(4)));
    }
}

#[test]
fn no_more_begins_than_is_copied_until_the_next_documents() {
    let (settled, alone, few) = scaled_out(&mut nodes(None), |_| true);
    assert_eq!(holders(&settled).len(), 5);
    assert!(alone > 30, "nobody is there: all at once, {alone}");
    let (settled, slow, many) = scaled_out(&mut nodes(Some(MIB / 8)), |_| true);
    assert_eq!(holders(&settled).len(), 5);
    assert!((12..=18).contains(&slow), "what it works on at once, and some: {slow}");
    assert!(many > few, "{many} documents instead of {few}");
    let (_, faster, _) = scaled_out(&mut nodes(Some(3 * MIB)), |_| true);
    assert!((22..=28).contains(&faster), "and what is copied in four seconds: {faster}");
}

#[test]
fn documents_are_further_apart_where_anybody_is_there_to_feel_them() {
    let ring = new_ring(3);
    let mut nodes = nodes(None);
    nodes.everyone_follows(&ring);
    let mut reports = nodes.reports();
    let alone = moves::spacing(&reports);
    assert!(alone >= 1, "each makes all nodes flush it before they answer by it");
    assert_eq!(moves::spacing(&Reports::default()), alone, "nobody says anything");
    reports.get_mut(&incarnation(1)).unwrap().beside_clients = Some(MIB);
    assert!(moves::spacing(&reports) >= 3 * alone, "one has clients");
}

#[test]
fn who_copies_nothing_holds_up_a_few_partitions_and_nobody_else() {
    let (ring, _, _) = scaled_out(&mut nodes(Some(MIB / 8)), |number| number != 3);
    let (stuck, other) = (MemberIndex(3), MemberIndex(4));
    let only_stuck = ring.partitions.iter().filter(|placement| {
        let lists = |also: &Also| also.list.contains(&stuck) && !also.list.contains(&other);
        placement.also.as_ref().is_some_and(lists) && !placement.preference.contains(&other)
    });
    let only_stuck = only_stuck.count();
    assert!((1..=12).contains(&only_stuck) && moves::progress(&ring).filling < 32, "{only_stuck}");
    let done = settle(ring.clone(), &wish(0..5), Pace::default());
    for (now, then) in ring.partitions.iter().zip(&done.partitions) {
        let only_other = then.preference.contains(&other) && !then.preference.contains(&stuck);
        assert!(!only_other || now.preference.contains(&other), "{now:?} could be {then:?}");
    }
}

//! The moves as a whole: a cluster of pretended nodes that report in any order, and wishes that change at any moment.

#![allow(clippy::unwrap_used, reason = "tests may panic, in functions that tests share too")]

use dynamo::moves::{self, Certificate, NotYet, Pace, Reason, Report, Reports, Step, Wanted, Wish};
use dynamo::preference::{MemberIndex, preference_list};
use dynamo::ring::{MemberState, Phase, Quorums, Ring, from_json, same_set, to_json};
use dynamo::token::{HashKey, PartitionCount};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

fn incarnation(number: u32) -> Uuid {
    Uuid::from_u128(u128::from(number) + 1)
}

fn wish(members: impl IntoIterator<Item = u32>) -> Wish {
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

fn new_ring(members: u32) -> Ring {
    moves::create(Uuid::from_u128(7), HashKey([1; 16]), &wish(0..members)).unwrap()
}

/// Pretended nodes: each has installed some epoch and completes its moves when told to.
#[derive(Default)]
struct Nodes {
    installed: BTreeMap<Uuid, Ring>,
    synced: BTreeMap<Uuid, BTreeSet<(u32, u64)>>,
}

impl Nodes {
    fn install(&mut self, incarnation: Uuid, ring: &Ring) {
        self.installed.insert(incarnation, ring.clone());
    }

    /// The node completes every move that the ring it has installed wants of it.
    fn sync(&mut self, incarnation: Uuid) {
        let Some(ring) = self.installed.get(&incarnation) else { return };
        let Some(me) = ring.member_by_incarnation(incarnation).map(|member| member.index) else { return };
        let synced = self.synced.entry(incarnation).or_default();
        for (partition, placement) in (0u32..).zip(&ring.partitions) {
            if let Some(also) = &placement.also
                && also.phase == Phase::Filling
                && also.list.contains(&me)
            {
                synced.insert((partition, placement.since));
            }
        }
    }

    fn reports(&self) -> Reports {
        self.installed
            .iter()
            .map(|(incarnation, ring)| {
                let synced = self.synced.get(incarnation).cloned().unwrap_or_default();
                (*incarnation, Report { epoch: ring.epoch, synced, ..Report::default() })
            })
            .collect()
    }

    fn everyone_follows(&mut self, ring: &Ring) {
        for member in &ring.members {
            self.install(member.incarnation, ring);
            self.sync(member.incarnation);
        }
    }

    fn advance(&self, ring: &Ring, wish: &Wish) -> Step {
        moves::advance(ring, wish, &self.reports(), Pace::default()).unwrap()
    }
}

/// The documents until moves have begun: one that names the members, one that starts to move.
fn begun(ring: &Ring, wish: &Wish) -> (Ring, Nodes) {
    let mut nodes = Nodes::default();
    nodes.everyone_follows(ring);
    let named = published(nodes.advance(ring, wish));
    assert!(
        named.partitions.iter().all(|placement| placement.also.is_none()),
        "nobody has met the joining members"
    );
    nodes.everyone_follows(&named);
    (published(nodes.advance(&named, wish)), nodes)
}

fn published(step: Step) -> Ring {
    match step {
        Step::Publish(next, _) => *next,
        other => panic!("nothing was published: {other:?}"),
    }
}

/// Advances with nodes that follow at once, until settled.
fn settle(mut ring: Ring, wish: &Wish, pace: Pace) -> Ring {
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
fn says_what_changed(before: &Ring, next: &Ring) {
    let halves = next.partitions.len() / before.partitions.len();
    for (partition, new) in next.partitions.iter().enumerate() {
        let old = &before.partitions[partition / halves];
        let same = (&old.preference, &old.also) == (&new.preference, &new.also);
        let since = if same { old.since } else { next.epoch };
        assert_eq!(new.since, since, "partition {partition} of epoch {}", next.epoch);
    }
}

fn holders(ring: &Ring) -> BTreeSet<MemberIndex> {
    ring.partitions.iter().flat_map(|placement| placement.holders()).collect()
}

#[test]
fn a_new_ring_serves_at_once() {
    let ring = new_ring(3);
    assert_eq!(ring.epoch, 1);
    assert!(ring.partitions.iter().all(|placement| placement.preference.len() == 3 && placement.also.is_none()));
    assert!(ring.members.iter().all(|member| member.state == MemberState::Active));
}

#[test]
fn too_few_members_are_refused_and_say_what_to_do() {
    let error = moves::create(Uuid::nil(), HashKey([0; 16]), &wish(0..2)).unwrap_err();
    assert_eq!(error.to_string(), "2 members cannot hold 3 replicas of each item; wish for at least 3 members");
}

#[test]
fn joining_members_end_up_in_lists_and_leaving_ones_out_of_them() {
    let ring = settle(new_ring(3), &wish(0..5), Pace::default());
    assert_eq!(holders(&ring).len(), 5);
    assert!(ring.members.iter().all(|member| member.state == MemberState::Active));
    let ring = settle(ring, &wish(0..3), Pace::default());
    assert_eq!(holders(&ring).len(), 3);
    assert_eq!(ring.members.len(), 5, "members stay in the document until they are known to be gone");
    let gone = Wish { gone: [incarnation(3), incarnation(4)].into(), ..wish(0..3) };
    assert_eq!(settle(ring, &gone, Pace::default()).members.len(), 3);
}

/// The owner alone carries out what needs one coordinator; the one before has to be refused from then on.
#[test]
fn another_owner_is_a_change_of_the_lists_though_they_have_the_same_members() {
    let mut ring = new_ring(3);
    let mut reordered = 0;
    for (size, zones) in [(4, 1), (4, 2), (5, 1), (5, 3), (4, 3), (3, 3), (5, 2)] {
        let mut wish = wish(0..size);
        for (number, member) in wish.members.iter_mut().enumerate() {
            member.zone = (zones > 1).then(|| format!("zone-{}", number % zones));
        }
        let mut nodes = Nodes::default();
        loop {
            nodes.everyone_follows(&ring);
            let Step::Publish(next, _) = nodes.advance(&ring, &wish) else { break };
            let both = ring.partitions.iter().zip(&next.partitions);
            let same =
                both.filter(|(old, new)| old.also == new.also && same_set(&old.preference, &new.preference));
            for (old, new) in same.filter(|(old, new)| old.preference != new.preference) {
                assert_eq!(new.since, next.epoch, "{old:?} is now {new:?}");
                reordered += 1;
            }
            ring = *next;
        }
    }
    assert!(reordered > 0, "no partition got another owner within its list");
}

#[test]
fn the_document_says_whose_data_is_gone_until_it_is_wanted_again() {
    let ring = new_ring(4);
    let mut nodes = Nodes::default();
    nodes.everyone_follows(&ring);
    let replaced = Wish { gone: [incarnation(3)].into(), ..wish([0, 1, 2, 4]) };
    let named = published(nodes.advance(&ring, &replaced));
    let is_gone = |ring: &Ring, number| ring.member_by_incarnation(incarnation(number)).unwrap().gone;
    assert_eq!(
        (0..5).map(|number| is_gone(&named, number)).collect::<Vec<_>>(),
        [false, false, false, true, false]
    );
    assert_eq!(from_json(to_json(&named).as_bytes()).unwrap(), named);
    // Who says so may not see it for a moment; that brings nothing back.
    nodes.everyone_follows(&named);
    let unsure = published(nodes.advance(&named, &wish([0, 1, 2, 4])));
    assert!(is_gone(&unsure, 3));
    nodes.everyone_follows(&unsure);
    let back = published(nodes.advance(&unsure, &wish([0, 1, 2, 3])));
    assert!(!is_gone(&back, 3));
}

#[test]
fn no_more_partitions_move_at_once_than_allowed() {
    let mut ring = new_ring(3);
    let mut nodes = Nodes::default();
    loop {
        nodes.everyone_follows(&ring);
        match moves::advance(&ring, &wish(0..5), &nodes.reports(), Pace { parallel_moves: 10 }).unwrap() {
            Step::Publish(next, _) => ring = *next,
            Step::Settled => break,
            Step::Wait(reasons) => panic!("{reasons:?}"),
        }
        assert!(ring.partitions.iter().filter(|placement| placement.also.is_some()).count() <= 10);
    }
}

#[test]
fn a_move_waits_for_its_new_holder_and_names_it() {
    let ring = new_ring(3);
    let (ring, mut nodes) = begun(&ring, &wish(0..4));
    for member in &ring.members {
        nodes.install(member.incarnation, &ring);
    }
    let Step::Wait(reasons) = nodes.advance(&ring, &wish(0..4)) else { panic!("nothing is synced yet") };
    let [Reason::Copying { member, answers: true, .. }] = reasons.as_slice() else { panic!("{reasons:?}") };
    assert_eq!(member, "node-3");
    let mut reports = nodes.reports();
    reports.get_mut(&incarnation(3)).unwrap().held_up = Some("its disk is full".to_owned());
    let Step::Wait(reasons) = moves::advance(&ring, &wish(0..4), &reports, Pace::default()).unwrap() else {
        panic!("nothing is synced yet")
    };
    assert!(reasons[0].to_string().ends_with("partitions; it is held up: its disk is full"), "{}", reasons[0]);
    nodes.installed.remove(&incarnation(3));
    let Step::Wait(reasons) = nodes.advance(&ring, &wish(0..4)) else { panic!("the new holder is silent") };
    assert!(matches!(reasons.as_slice(), [Reason::Copying { answers: false, .. }]), "{reasons:?}");
}

#[test]
fn nothing_moves_to_a_member_that_another_cannot_reach() {
    let ring = new_ring(3);
    let mut nodes = Nodes::default();
    nodes.everyone_follows(&ring);
    let named = published(nodes.advance(&ring, &wish(0..4)));
    nodes.everyone_follows(&named);
    let mut reports = nodes.reports();
    reports.get_mut(&incarnation(1)).unwrap().unreachable.insert(incarnation(3));
    let step = moves::advance(&named, &wish(0..4), &reports, Pace::default()).unwrap();
    let Step::Wait(reasons) = step else { panic!("{step:?}") };
    let [Reason::Connecting { member, .. }] = reasons.as_slice() else { panic!("{reasons:?}") };
    assert_eq!(member, "node-3");
}

#[test]
fn an_old_list_retires_only_when_every_member_that_answers_knows() {
    let (filling, mut nodes) = begun(&new_ring(3), &wish(0..4));
    nodes.everyone_follows(&filling);
    let ring = published(nodes.advance(&filling, &wish(0..4)));
    assert!(ring.partitions.iter().any(|p| p.also.as_ref().is_some_and(|also| also.phase == Phase::Retiring)));
    for number in 1..4 {
        nodes.install(incarnation(number), &ring);
    }
    let node_0 = Reason::Acknowledging { member: String::from("node-0"), epoch: ring.epoch };
    let step = nodes.advance(&ring, &wish(0..4));
    assert_eq!(step, Step::Wait(vec![node_0]), "node 0 could still be reading by the old lists");
    // A silent node holds nothing up while enough of the old list know.
    nodes.installed.remove(&incarnation(0));
    published(nodes.advance(&ring, &wish(0..4)));
    // But two silent members of three could be just whom a reader with the old ring asks.
    nodes.installed.remove(&incarnation(1));
    let Step::Wait(reasons) = nodes.advance(&ring, &wish(0..4)) else { panic!("too few know") };
    assert!(matches!(reasons.as_slice(), [Reason::OldListsUnreachable { .. }]), "{reasons:?}");
}

/// With r = 1 any one of the old list may answer a reader, so all of them must know, save for one that is no more.
#[test]
fn a_destroyed_member_does_not_keep_an_old_list_from_retiring() {
    let two = |members: &[u32]| {
        let quorums = Quorums { n: 2, r: 1, w: 2, sloppy: false };
        Wish { quorums, ..wish(members.iter().copied()) }
    };
    let ring = moves::create(Uuid::from_u128(7), HashKey([1; 16]), &two(&[0, 1, 2])).unwrap();
    let destroyed = incarnation(1);
    let replaced = Wish { gone: BTreeSet::from([destroyed]), ..two(&[0, 2, 3]) };
    let mut ring = ring;
    let mut nodes = Nodes::default();
    for _ in 0..20 {
        nodes.everyone_follows(&ring);
        nodes.installed.remove(&destroyed);
        match nodes.advance(&ring, &replaced) {
            Step::Publish(next, _) => ring = *next,
            Step::Settled => break,
            Step::Wait(reasons) => panic!("waits for a member that is no more: {reasons:?}"),
        }
    }
    assert!(ring.target.is_none() && ring.member_by_incarnation(destroyed).is_none());

    // One that is only silent may yet answer a reader.
    let silent = two(&[0, 2, 3]);
    let mut ring = moves::create(Uuid::from_u128(7), HashKey([1; 16]), &two(&[0, 1, 2])).unwrap();
    let mut nodes = Nodes::default();
    let waits = loop {
        nodes.everyone_follows(&ring);
        nodes.installed.remove(&destroyed);
        match nodes.advance(&ring, &silent) {
            Step::Publish(next, _) => ring = *next,
            other => break other,
        }
    };
    assert!(matches!(waits, Step::Wait(reasons) if matches!(reasons[..], [Reason::OldListsUnreachable { .. }])));
}

#[test]
fn a_change_of_mind_while_filling_moves_nothing_further() {
    let before = new_ring(3);
    let (filling, mut nodes) = begun(&before, &wish(0..5));
    nodes.everyone_follows(&filling);
    let Step::Publish(back, change) = nodes.advance(&filling, &wish(0..3)) else { panic!("it is called off") };
    assert!(change.turned > 0 && change.begun == 0 && change.flipped == 0, "{change:?}");
    for (old, new) in before.partitions.iter().zip(&back.partitions) {
        assert!(new.also.is_none() && same_set(&old.preference, &new.preference));
    }
}

#[test]
fn a_lost_node_is_replaced_without_its_help() {
    // Node 2 comes back with an empty directory: incarnation 20 in its place, the old one is gone for good.
    let wanted = Wish { gone: [incarnation(2)].into(), ..wish([0, 1, 20, 3]) };
    let mut ring = new_ring(4);
    let mut nodes = Nodes::default();
    for _ in 0..50 {
        for member in ring.members.iter().filter(|member| member.incarnation != incarnation(2)) {
            nodes.install(member.incarnation, &ring);
            nodes.sync(member.incarnation);
        }
        match nodes.advance(&ring, &wanted) {
            Step::Publish(next, _) => ring = *next,
            Step::Settled => break,
            Step::Wait(reasons) => panic!("{reasons:?}"),
        }
    }
    assert_eq!(ring.members.len(), 4);
    assert!(ring.member_by_incarnation(incarnation(2)).is_none());
    assert_eq!(holders(&ring).len(), 4);
}

#[test]
fn only_the_nodes_own_word_at_the_current_epoch_is_proof() {
    let ring = settle(settle(new_ring(3), &wish(0..4), Pace::default()), &wish(0..3), Pace::default());
    let (cluster, epoch) = (ring.cluster, ring.epoch);
    let says = Certificate {
        cluster,
        incarnation: incarnation(3),
        epoch,
        listed_partitions: 0,
        hints: 0,
        leftover_partitions: 0,
    };
    assert_eq!(moves::may_go(&ring, incarnation(3), &says), Ok(()));
    let refused = |says: Certificate| moves::may_go(&ring, incarnation(3), &says).unwrap_err();
    assert_eq!(refused(Certificate { cluster: Uuid::nil(), ..says }), NotYet::OtherCluster);
    assert_eq!(refused(Certificate { incarnation: incarnation(9), ..says }), NotYet::OtherIncarnation);
    let behind = NotYet::Behind { installed: epoch - 1, current: epoch };
    assert_eq!(refused(Certificate { epoch: epoch - 1, ..says }), behind);
    assert_eq!(refused(Certificate { listed_partitions: 2, ..says }), NotYet::Listed { partitions: 2 });
    assert_eq!(refused(Certificate { hints: 1, ..says }), NotYet::Hints { hints: 1 });
    assert_eq!(refused(Certificate { leftover_partitions: 1, ..says }), NotYet::Leftover { partitions: 1 });
    let serving = Certificate { incarnation: incarnation(0), ..says };
    assert_eq!(moves::may_go(&ring, incarnation(0), &serving).unwrap_err(), NotYet::Listed { partitions: 64 });
}

#[test]
fn a_document_of_1024_partitions_stays_under_64_kib() {
    let wanted = |members| Wish { partitions: PartitionCount::new(1024).unwrap(), ..wish(0..members) };
    let ring = moves::create(Uuid::from_u128(7), HashKey([1; 16]), &wanted(5)).unwrap();
    let mut nodes = Nodes::default();
    nodes.everyone_follows(&ring);
    let named = published(nodes.advance(&ring, &wanted(7)));
    nodes.everyone_follows(&named);
    let pace = Pace { parallel_moves: 1024 };
    let moving = published(moves::advance(&named, &wanted(7), &nodes.reports(), pace).unwrap());
    assert!(moves::progress(&moving).filling > 600);
    let (settled, moving) = (to_json(&ring).len(), to_json(&moving).len());
    println!("Q = 1024, n = 3: {settled} bytes with 5 members, {moving} bytes while all moves to 7");
    assert!(settled < 64 << 10 && moving < 64 << 10);
}

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
        let mut nodes = Nodes::default();
        nodes.everyone_follows(&ring);
        let next = published(nodes.advance(&ring, &in_partitions(256, wish(0..to))));
        let target = next.target.unwrap();
        println!("{from} -> {to}: {} replica moves, at least {}", target.replica_moves, target.replica_moves_min);
        assert!(target.replica_moves * 10 <= target.replica_moves_min * 11, "{from} -> {to}: {target:?}");
    }
}

#[test]
fn what_lands_is_what_the_target_says() {
    let ring = new_ring(3);
    let mut nodes = Nodes::default();
    nodes.everyone_follows(&ring);
    let next = published(nodes.advance(&ring, &wish(0..5)));
    let landing = moves::landing(&next);
    let newcomers: BTreeSet<MemberIndex> = [MemberIndex(3), MemberIndex(4)].into();
    assert_eq!(landing.keys().copied().collect::<BTreeSet<_>>(), newcomers, "nobody else receives anything");
    let total: usize = landing.values().sum();
    assert_eq!(total, next.target.unwrap().replica_moves as usize);
    assert!(moves::landing(&ring).is_empty());
}

/// Who has everything of a partition that was ever acknowledged: the model that reads are checked against.
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Wishes change at any moment, nodes follow in any order: no list ever serves reads that was not filled, documents
    /// survive their text form, and once the wish stays and everyone follows, the ring settles as wished.
    #[test]
    fn any_change_at_any_moment_is_safe_and_settles(
        script in prop::collection::vec((3u32..9, prop::collection::vec((0u32..9, any::<bool>()), 0..12)), 1..40),
        parallel_moves in 1usize..80,
    ) {
        let mut ring = new_ring(3);
        let mut nodes = Nodes::default();
        let mut complete: Complete = (0u32..)
            .zip(&ring.partitions)
            .flat_map(|(partition, placement)| placement.preference.iter().map(move |member| (partition, *member)))
            .collect();
        let mut wanted = wish(0..3);
        for (size, follow) in script {
            wanted = wish(0..size);
            for (number, syncs) in follow {
                let incarnation = incarnation(number);
                if ring.member_by_incarnation(incarnation).is_some() {
                    nodes.install(incarnation, &ring);
                    if syncs {
                        nodes.sync(incarnation);
                        note_complete(&ring, &nodes, incarnation, &mut complete);
                    }
                }
            }
            let step = moves::advance(&ring, &wanted, &nodes.reports(), Pace { parallel_moves }).unwrap();
            if let Step::Publish(next, _) = step {
                prop_assert_eq!(&from_json(to_json(&next).as_bytes()).unwrap(), next.as_ref());
                // A member in neither list gets no writes any more: what it has is no longer complete.
                complete.retain(|(partition, member)| next.partitions[*partition as usize].names(*member));
                assert_reads_are_safe(&next, &complete);
                says_what_changed(&ring, &next);
                ring = *next;
            }
        }
        let settled = settle(ring, &wanted, Pace { parallel_moves });
        let wished: BTreeSet<Uuid> = wanted.members.iter().map(|member| member.incarnation).collect();
        for index in holders(&settled) {
            prop_assert!(wished.contains(&settled.member(index).unwrap().incarnation));
        }
        prop_assert_eq!(holders(&settled).len(), wanted.members.len());
    }
}

//! What happens to members and lists, change by change.

use crate::nodes::{Nodes, begun, holders, incarnation, named, new_ring, published, settle, wish};
use dynamo::moves::{self, Certificate, NotYet, Pace, Reason, Step, Wish};
use dynamo::preference::MemberIndex;
use dynamo::ring::{MemberState, Phase, Quorums, Ring, from_json, same_set, to_json};
use dynamo::token::{HashKey, PartitionCount};
use std::collections::BTreeSet;
use uuid::Uuid;

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
    let replaced = Wish { gone: [incarnation(3)].into(), ..wish([0, 1, 2, 4]) };
    let (named, mut nodes) = named(&new_ring(4), &replaced);
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
    let (named, mut nodes) = named(&new_ring(3), &wish(0..4));
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

/// Two of three old holders have not heard that the new list serves: as long as they may read by the old one, it is
/// written, however often the wish changes.
#[test]
fn a_change_of_mind_after_the_flip_copies_nothing_and_forgets_no_list() {
    let before = new_ring(3);
    let (filling, mut nodes) = begun(&before, &wish(0..4));
    nodes.everyone_follows(&filling);
    let mut ring = published(nodes.advance(&filling, &wish(0..4)));
    let moved: Vec<usize> = (0..ring.partitions.len()).filter(|at| ring.partitions[*at].also.is_some()).collect();
    for size in [3, 4, 3] {
        let Step::Publish(next, change) = nodes.advance(&ring, &wish(0..size)) else {
            panic!("it is turned round")
        };
        assert!(change.turned == moved.len() && change.done == 0, "{change:?}");
        for (old, new) in moved.iter().map(|at| (&ring.partitions[*at], &next.partitions[*at])) {
            let (old_also, new_also) = (old.also.as_ref().unwrap(), new.also.as_ref().unwrap());
            assert_eq!(new_also.phase, Phase::Retiring, "there is nothing to copy");
            assert!(same_set(&new.preference, &old_also.list) && same_set(&new_also.list, &old.preference));
        }
        ring = *next;
    }
    let settled = settle(ring, &wish(0..3), Pace::default());
    assert!(
        before
            .partitions
            .iter()
            .zip(&settled.partitions)
            .all(|(old, new)| { new.also.is_none() && same_set(&old.preference, &new.preference) })
    );
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
    let (named, mut nodes) = named(&ring, &wanted(7));
    nodes.everyone_follows(&named);
    let pace = Pace { parallel_moves: 1024 };
    let moving = published(moves::advance(&named, &wanted(7), &nodes.reports(), pace).unwrap());
    assert!(moves::progress(&moving).filling > 600);
    let (settled, moving) = (to_json(&ring).len(), to_json(&moving).len());
    println!("Q = 1024, n = 3: {settled} bytes with 5 members, {moving} bytes while all moves to 7");
    assert!(settled < 64 << 10 && moving < 64 << 10);
}

#[test]
fn what_lands_is_what_the_target_says() {
    let ring = new_ring(3);
    let (next, _) = named(&ring, &wish(0..5));
    let landing = moves::landing(&next);
    let newcomers: BTreeSet<MemberIndex> = [MemberIndex(3), MemberIndex(4)].into();
    assert_eq!(landing.keys().copied().collect::<BTreeSet<_>>(), newcomers, "nobody else receives anything");
    let total: usize = landing.values().sum();
    assert_eq!(total, next.target.unwrap().replica_moves as usize);
    assert!(moves::landing(&ring).is_empty());
}

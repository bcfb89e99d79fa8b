//! What is asked and what is refused, weights, zones, and small rings.

use crate::cluster::Cluster;
use crate::oracle::fair_shares;
use dynamo::claim::{Candidate, ClaimError, claim};
use dynamo::preference::{MemberIndex, preference_list};
use dynamo::token::PartitionCount;

fn candidate(index: u16) -> Candidate {
    Candidate { index: MemberIndex(index), weight: 1, zone: None }
}

#[test]
fn questions_that_make_no_sense_are_refused() {
    let q = PartitionCount::new(16).unwrap();
    let none = [None; 16];
    let claim =
        |owners: &[Option<MemberIndex>], members: &[Candidate], n| claim(owners, q, members, n).unwrap_err();
    assert_eq!(claim(&none, &[], 3), ClaimError::NoMembers);
    assert_eq!(claim(&none, &[candidate(1)], 0), ClaimError::NoReplicas);
    assert_eq!(claim(&none[..15], &[candidate(1)], 3), ClaimError::PartitionCount { partitions: 16, owners: 15 });
    assert_eq!(claim(&none, &[candidate(1), candidate(2), candidate(1)], 3), ClaimError::Twice(MemberIndex(1)));
    let idle = Candidate { weight: 0, ..candidate(2) };
    assert_eq!(claim(&none, &[candidate(1), idle], 3), ClaimError::NoWeight(MemberIndex(2)));
}

#[test]
fn consecutive_keys_have_overlapping_lists() {
    // n = 3 on a ring of five: wherever K's list is X, Y, Z, the next partition's is Y, Z and one more.
    let cluster = Cluster::of(5, 16, 3);
    let owners: Vec<MemberIndex> = cluster.owners.iter().copied().flatten().collect();
    for p in 0..16 {
        let [k, l] = [p, p + 1].map(|p| preference_list(&owners, p, 3, &|_| None));
        assert_eq!(k[1..], l[..2]);
    }
}

#[test]
fn a_new_ring_has_clean_spacing() {
    for n in 1..=5 {
        for size in n + 1..=n + 12 {
            for q in [64, 1024] {
                let mut cluster = Cluster::new(q, n);
                cluster.join(size);
                assert_eq!(cluster.step().claim.spacing_violations, 0, "S = {size}, Q = {q}, n = {n}");
            }
        }
    }
}

#[test]
fn as_many_members_as_replicas_hold_everything() {
    for size in 1..=3 {
        let mut cluster = Cluster::new(64, 3);
        cluster.join(size);
        assert_eq!(cluster.step().loads, vec![64; size]);
    }
}

#[test]
fn more_members_than_partitions_leave_some_without() {
    let mut cluster = Cluster::new(16, 3);
    cluster.join(20);
    let step = cluster.step();
    assert_eq!(step.claim.spacing_violations, 0);
    assert_eq!(step.loads.iter().filter(|&&load| load == 0).count(), 4);
}

#[test]
fn weight_scales_what_a_member_owns_and_holds() {
    let mut cluster = Cluster::new(1024, 3);
    [1, 1, 1, 1, 1, 1, 2, 2, 4].into_iter().for_each(|weight| cluster.join_as(weight, None));
    let step = cluster.step();
    assert_eq!(step.claim.spacing_violations, 0);
    for (member, load) in cluster.members.iter().zip(&step.loads) {
        let fair = 3.0 * 1024.0 * f64::from(member.weight) / 14.0;
        assert!((*load as f64 - fair).abs() <= 3.0, "{member:?} holds {load}, fair were {fair}");
    }
    // More weight moves just the difference.
    cluster.members[0].weight = 2;
    let step = cluster.step();
    assert!((62..=64).contains(&step.claim.moved), "2/15 − 1/14 of 1024 is 63.4: {}", step.claim.moved);
}

#[test]
fn nobody_owns_more_than_it_can_hold() {
    // In proportion the heavy one would own half the ring; but no list names it twice.
    let mut cluster = Cluster::new(1024, 3);
    [1, 1, 1, 3].into_iter().for_each(|weight| cluster.join_as(weight, None));
    let step = cluster.step();
    assert!(*step.loads.last().unwrap() >= 1020, "{:?}", step.loads);
    assert!(step.loads[..3].iter().all(|load| (680..=688).contains(load)), "{:?}", step.loads);
}

#[test]
fn replicas_are_in_different_zones_and_even_in_each() {
    for size in [3, 4, 5, 6, 9, 10] {
        let mut cluster = Cluster::new(1024, 3);
        cluster.join_zones(size, 3);
        let step = cluster.step();
        assert!(step.claim.spacing_violations <= 2, "1024 is not a multiple of 3");
        for (member, load) in cluster.members.iter().zip(&step.loads) {
            let in_zone = cluster.members.iter().filter(|other| other.zone == member.zone).count();
            assert!(load.abs_diff(1024 / in_zone) <= 3, "{size} members: {member:?} holds {load}");
        }
    }
}

/// The bound that docs/rebalancing.md states, for zones of any sizes.
#[test]
fn in_zones_of_any_sizes_everyone_holds_its_share_give_or_take_n_partitions() {
    for sizes in
        [&[2, 2, 1][..], &[5, 1, 1], &[3, 2, 1, 1], &[4, 4, 1, 1], &[6, 2], &[3, 3, 2, 2, 1], &[1, 1, 1, 1, 7]]
    {
        for n in [2, 3] {
            let mut cluster = Cluster::new(1024, n);
            for (zone, &size) in (0_u16..).zip(sizes) {
                (0..size).for_each(|_| cluster.join_as(1, Some(zone)));
            }
            let step = cluster.step();
            let shares = fair_shares(1024, n, &cluster.members);
            for ((member, load), share) in cluster.members.iter().zip(&step.loads).zip(shares) {
                let fair = share * n as f64;
                assert!(
                    (*load as f64 - fair).abs() <= n as f64,
                    "{sizes:?}: {member:?} holds {load}, fair were {fair}"
                );
            }
        }
    }
}

#[test]
fn two_zones_have_at_least_one_replica_each() {
    let mut cluster = Cluster::new(1024, 3);
    cluster.join_zones(6, 2);
    let step = cluster.step();
    assert_eq!(step.claim.spacing_violations, 0);
    assert!(step.loads.iter().all(|load| (510..=513).contains(load)), "{:?}", step.loads);
}

#[test]
fn the_same_input_gives_the_same_claim() {
    let run = || {
        let mut cluster = Cluster::zoned(5, 3, 256, 3);
        cluster.join_zones(2, 3);
        cluster.step();
        cluster.leave_at(1);
        cluster.step().claim
    };
    assert_eq!(run(), run());
}

//! Changes that users make, measured in replicas; the minimum against an exact oracle; changes broken off half way.

use crate::cluster::{Cluster, Random};
use crate::oracle;
use dynamo::claim::{claim, claim_from_lists, list_moves, list_moves_minimum};
use dynamo::preference::MemberIndex;

const CHANGES: [(usize, usize); 14] = [
    (3, 4),
    (3, 5),
    (3, 6),
    (4, 3),
    (5, 3),
    (5, 4),
    (6, 5),
    (6, 7),
    (10, 7),
    (10, 9),
    (7, 14),
    (16, 17),
    (99, 100),
    (100, 99),
];

fn scale(cluster: &mut Cluster, to: usize, zones: u16) {
    let from = cluster.members.len();
    match (to > from, zones) {
        (false, _) => cluster.leave(from - to),
        (true, 0) => cluster.join(to - from),
        (true, zones) => cluster.join_zones(to - from, zones),
    }
}

#[test]
fn scaling_moves_the_least_replicas() {
    for (from, to) in CHANGES {
        for zones in [0, 3] {
            let mut cluster = Cluster::new(1024, 3);
            scale(&mut cluster, from, zones);
            cluster.step();
            scale(&mut cluster, to, zones);
            let step = cluster.step();
            assert!(step.ratio() <= 1.1, "{from} to {to} in {zones} zones: {step:?}");
            if zones == 0 {
                let rounding = 3.0 * to as f64 / 1024.0;
                assert!(step.max_to_mean() <= 1.05 + rounding, "{from} to {to}: {:?}", step.loads);
                assert_eq!(step.replicas, 3 * step.claim.moved, "{from} to {to}");
            }
        }
    }
}

#[test]
fn scaling_to_and_fro_stays_cheap() {
    for zones in [0, 3] {
        let mut cluster = Cluster::new(1024, 3);
        scale(&mut cluster, 3, zones);
        cluster.step();
        for size in [6, 3, 5, 4, 8, 5, 6, 3, 4, 12, 7, 3, 9, 5] {
            scale(&mut cluster, size, zones);
            let step = cluster.step();
            assert!(step.ratio() <= 1.1, "to {size} in {zones} zones: {} of {}", step.replicas, step.replicas_min);
        }
    }
}

#[test]
fn the_minimum_of_replica_moves_is_the_least_there_is() {
    let mut exact = 0;
    for seed in 0..60 {
        let mut random = Random(seed);
        let n = 1 + random.below(4);
        let size = n + random.below(6);
        let mut cluster = Cluster::of(size, 16, n);
        let old = cluster.lists(&cluster.owners.iter().copied().flatten().collect::<Vec<_>>());
        if random.below(2) == 0 && size > n {
            cluster.leave_at(random.below(size));
        } else {
            cluster.join(1 + random.below(3));
        }
        let share = 16.0 / cluster.members.len() as f64;
        let n_lists = n.min(cluster.members.len());
        let bounds = (n_lists * share.floor() as usize, 16.min(n_lists * share.ceil() as usize));
        let bounds = vec![bounds; cluster.members.len()];
        let least = oracle::least_additions(&old, &cluster.members, n_lists, &bounds);
        let minimum = list_moves_minimum(&old, &cluster.members, n);
        assert!(minimum <= least, "seed {seed}: nothing can do with {least}, {minimum} was said");
        exact += usize::from(minimum == least);
        let step = cluster.step();
        if step.claim.spacing_violations == 0 {
            assert!(step.replicas >= least, "seed {seed}: not even the claim can");
        }
    }
    assert!(exact >= 57, "the bound was reached in {exact} of 60 cases only");
}

/// A rebalance of which some partitions have their new list and the others still the old one.
fn half_way(old: &[Vec<MemberIndex>], new: &[Vec<MemberIndex>], random: &mut Random) -> Vec<Vec<MemberIndex>> {
    let pick = |(old, new): (&Vec<MemberIndex>, &Vec<MemberIndex>)| {
        if random.below(2) == 0 { old.clone() } else { new.clone() }
    };
    old.iter().zip(new).map(pick).collect()
}

#[test]
fn a_change_of_mind_half_way_is_claimed_from_where_things_are() {
    for (seed, (from, to)) in [(3, 5), (5, 3), (4, 8), (10, 7), (6, 5), (7, 8)].into_iter().enumerate() {
        let mut random = Random(seed as u64);
        let mut cluster = Cluster::of(from, 1024, 3);
        let old_members = cluster.members.clone();
        let old = cluster.lists(&cluster.owners.iter().copied().flatten().collect::<Vec<_>>());
        scale(&mut cluster, to, 0);
        let wanted = cluster.step().claim.owners;
        let lists = half_way(&old, &cluster.lists(&wanted), &mut random);
        for (members, end) in [(&cluster.members, "on"), (&old_members, "back")] {
            let moves = |owners: &[MemberIndex]| list_moves(&lists, &cluster.lists(owners));
            let minimum = list_moves_minimum(&lists, members, 3);
            let here = claim_from_lists(&lists, cluster.count(), members, 3).unwrap();
            let heads: Vec<Option<MemberIndex>> = lists.iter().map(|list| Some(list[0])).collect();
            let blind = claim(&heads, cluster.count(), members, 3).unwrap();
            assert_eq!(here.moved, here.moved_min);
            assert_eq!(here.moved_min, blind.moved_min);
            let (here, blind) = (moves(&here.owners), moves(&blind.owners));
            println!("{from} to {to}, {end}: {here} replica moves, {blind} without the lists, at least {minimum}");
            assert!(here <= blind, "{from} to {to}, {end}: the lists must help");
            assert!(here as f64 <= 1.1 * minimum as f64, "{from} to {to}, {end}: {here} of {minimum}");
        }
    }
}

#[test]
fn a_ring_split_moves_nothing() {
    let cluster = Cluster::of(8, 512, 3);
    let mut split = cluster.clone();
    split.q = 1024;
    split.owners = cluster.owners.iter().flat_map(|&owner| [owner, owner]).collect();
    assert_eq!(split.step().replicas, 0);
}

//! Sweeps over sizes, long walks of joins and leaves, and rings that nobody would have made on purpose.

use crate::cluster::{Cluster, Random, Step};
use dynamo::claim::{Candidate, claim};
use dynamo::preference::MemberIndex;
use proptest::prelude::*;

/// What holds for members alike and without zones, besides what every step is checked for.
fn check_plain(cluster: &Cluster, before: &Cluster, step: &Step, was_clean: bool) {
    let left: Vec<MemberIndex> = before
        .members
        .iter()
        .filter(|member| !cluster.members.contains(member))
        .map(|member| member.index)
        .collect();
    let held = before.owners.iter().filter(|owner| owner.is_some_and(|owner| left.contains(&owner))).count();
    let joined = cluster.members.iter().any(|member| !before.members.contains(member));
    let (n, moved) = (cluster.n, step.claim.moved);
    if !joined {
        assert_eq!(moved, held, "only what the leavers held may move");
    }
    let floor = cluster.q as usize / cluster.members.len();
    if left.is_empty() {
        let newcomers = cluster.members.len() - before.members.len();
        assert!((newcomers * floor..=newcomers * (floor + 1)).contains(&moved), "newcomers take their share");
    }
    let is_clean = step.claim.spacing_violations == 0;
    if was_clean && is_clean && before.members.len() >= n && cluster.members.len() >= n {
        assert_eq!(step.replicas, n * moved, "with clean spacing a partition moves with its n lists");
    }
    assert!(step.replicas as f64 <= 1.1 * step.replicas_min as f64 + 2.0, "{step:?}");
}

fn change(cluster: &mut Cluster, was_clean: &mut bool, change: impl FnOnce(&mut Cluster)) -> Step {
    let before = cluster.clone();
    change(cluster);
    let step = cluster.step();
    check_plain(cluster, &before, &step, *was_clean);
    *was_clean = step.claim.spacing_violations == 0;
    step
}

#[test]
fn from_every_size_members_join_and_leave() {
    for size in 1..=40 {
        for (q, n) in [(64, 1 + size % 5), ([256, 1024][size % 2], 1 + (size + 2) % 5), (1024, 3)] {
            let mut cluster = Cluster::of(size, q, n);
            let mut clean = cluster.step().claim.spacing_violations == 0;
            assert!(clean || size <= n, "a new ring of {size} with Q = {q} and n = {n}");
            change(&mut cluster, &mut clean, |cluster| cluster.join(1));
            change(&mut cluster, &mut clean, |cluster| cluster.leave_at(size / 2));
            change(&mut cluster, &mut clean, |cluster| cluster.join(2 + size % 4));
            change(&mut cluster, &mut clean, |cluster| cluster.leave(1 + size % 4));
        }
    }
}

#[test]
fn the_largest_ring_of_the_sweep() {
    for size in [3, 7, 40, 100] {
        let mut cluster = Cluster::of(size, 4096, 3);
        let mut clean = size > 3;
        change(&mut cluster, &mut clean, |cluster| cluster.join(1));
        change(&mut cluster, &mut clean, |cluster| cluster.leave_at(0));
    }
}

#[test]
fn walks_between_5_and_20_members_never_break_the_spacing() {
    for seed in 0..6 {
        let mut random = Random(seed);
        let mut cluster = Cluster::of(5, 1024, 3);
        let mut clean = true;
        for _ in 0..25 {
            let size = cluster.members.len();
            let count = 1 + random.below(3);
            let joins = size < 5 + count || (size + count <= 20 && random.below(2) == 0);
            let step = change(&mut cluster, &mut clean, |cluster| {
                if joins {
                    cluster.join(count);
                } else {
                    (0..count).for_each(|_| cluster.leave_at(random.below(cluster.members.len())));
                }
            });
            let size = cluster.members.len();
            assert_eq!(step.claim.spacing_violations, 0, "seed {seed}, {count} to {size} members");
        }
    }
}

#[test]
fn walks_up_to_100_members() {
    for (seed, q, n) in [(1, 64, 2), (2, 256, 3), (3, 1024, 3), (4, 1024, 5), (5, 4096, 1), (6, 256, 4)] {
        let mut random = Random(seed);
        let mut cluster = Cluster::of(n, q, n);
        let mut clean = false;
        for _ in 0..25 {
            let size = cluster.members.len();
            let count = 1 + random.below(20);
            let joins = size < n + count || (size + count <= 100 && random.below(2) == 0);
            change(&mut cluster, &mut clean, |cluster| {
                if joins {
                    cluster.join(count);
                } else {
                    (0..count).for_each(|_| cluster.leave_at(random.below(cluster.members.len())));
                }
            });
        }
    }
}

#[test]
fn walks_with_zones() {
    for (seed, zones) in [(1, 3), (2, 3), (3, 2), (4, 5)] {
        let mut random = Random(seed);
        let mut cluster = Cluster::zoned(3, zones, 1024, 3);
        for _ in 0..20 {
            let size = cluster.members.len();
            let count = 1 + random.below(3);
            if size < 3 + count || random.below(2) == 0 {
                cluster.join_zones(count, zones);
            } else {
                (0..count).for_each(|_| cluster.leave_at(random.below(cluster.members.len())));
            }
            let step = cluster.step();
            assert!(step.ratio() <= 1.1, "seed {seed}: {} of {}", step.replicas, step.replicas_min);
        }
    }
}

/// Any assignment: of each partition an owner out of twelve, or none.
fn any_owners() -> impl Strategy<Value = Vec<Option<MemberIndex>>> {
    (4_u32..=8).prop_flat_map(|bits| {
        let owner = proptest::option::weighted(0.9, (0_u16..12).prop_map(MemberIndex));
        proptest::collection::vec(owner, 1 << bits)
    })
}

/// Some of twenty members, with weights and zones.
fn any_members() -> impl Strategy<Value = Vec<Candidate>> {
    let member = (1_u32..4, proptest::option::weighted(0.7, 0_u16..4));
    (proptest::collection::vec(member, 20), proptest::sample::subsequence((0_u16..20).collect::<Vec<_>>(), 1..=20))
        .prop_map(|(kinds, indices)| {
            let candidate = |index: u16| {
                let (weight, zone) = kinds[usize::from(index)];
                Candidate { index: MemberIndex(index), weight, zone }
            };
            indices.into_iter().map(candidate).collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_assignment_is_mended(owners in any_owners(), members in any_members(), n in 1_usize..=5) {
        let mut cluster = Cluster::new(owners.len() as u32, n);
        cluster.owners = owners;
        cluster.zones = (0..20).map(|index| (MemberIndex(index), None)).collect();
        cluster.zones.extend(members.iter().map(|member| (member.index, member.zone)));
        cluster.members = members;
        cluster.step();
        let again = cluster.step();
        prop_assert_eq!(again.claim.moved, 0, "what is balanced stays as it is");
    }

    #[test]
    fn the_order_of_members_does_not_matter(
        owners in any_owners(), (members, shuffled) in any_members().prop_flat_map(|members| {
            (Just(members.clone()), Just(members).prop_shuffle())
        }), n in 1_usize..=5
    ) {
        let count = dynamo::token::PartitionCount::new(owners.len() as u32).unwrap();
        prop_assert_eq!(claim(&owners, count, &members, n), claim(&owners, count, &shuffled, n));
    }
}

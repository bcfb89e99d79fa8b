//! The planner in a closed loop with a cluster in memory. Each story is a few plain statements; the last test tells
//! random ones. What must never happen is asserted by the world at each action.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use dynamo::ring::Quorums;
use dynamo::token::PartitionCount;
use proptest::prelude::*;
use world::World;

#[test]
fn a_cluster_is_made() {
    let mut world = World::new(3, 1);
    world.settle();
    assert_eq!(world.actions, ["ApplyObjects", "CreateRing"]);
    assert_eq!(world.ring().unwrap().epoch, 1);
}

#[test]
fn three_to_five_and_back() {
    let mut world = World::new(3, 2);
    world.settle();
    world.desired.replicas = 5;
    world.settle();
    assert_eq!(world.ring().unwrap().members.len(), 5);
    world.desired.replicas = 3;
    world.settle();
    assert_eq!(world.pods.len(), 3);
    assert_eq!(world.volumes.len(), 5, "volumes are retained");
    // The retained volumes come back with their old identities.
    world.desired.replicas = 5;
    world.settle();
}

#[test]
fn volumes_are_deleted_after_a_proven_scale_in_where_asked() {
    let mut world = World::new(5, 3);
    world.desired.delete_on_scale_in = true;
    world.settle();
    world.desired.replicas = 3;
    world.settle();
    assert_eq!(world.volumes.len(), 3);
    assert_eq!(world.actions.iter().filter(|action| **action == "DeleteVolume").count(), 2);
}

#[test]
fn a_change_of_mind_while_filling() {
    let mut world = World::new(3, 4);
    world.settle();
    world.desired.replicas = 5;
    while world.ring().unwrap().target.is_none() {
        world.tick();
    }
    for _ in 0..4 {
        world.tick();
    }
    assert!(world.ring().unwrap().target.is_some());
    world.desired.replicas = 3;
    world.settle();
}

#[test]
fn a_change_of_mind_while_leaving_takes_members_back() {
    let mut world = World::new(5, 5);
    world.settle();
    world.desired.replicas = 3;
    for _ in 0..4 {
        world.tick();
    }
    assert!(world.ring().unwrap().target.is_some());
    let before = world.actions.len();
    world.desired.replicas = 5;
    world.settle();
    assert!(!world.actions[before..].contains(&"ScaleWorkload/Shrink"));
}

#[test]
fn a_deleted_ring_is_restored_from_the_nodes() {
    let mut world = World::new(3, 6);
    world.settle();
    let ring = world.ring().unwrap().clone();
    world.config_map = None;
    world.settle();
    assert_eq!(world.ring().unwrap(), &ring);
}

#[test]
fn a_ring_deleted_in_the_middle_of_a_move_is_restored() {
    let mut world = World::new(3, 7);
    world.settle();
    world.desired.replicas = 5;
    while world.ring().unwrap().target.is_none() {
        world.tick();
    }
    for round in 0..3 {
        world.config_map = if round == 1 { Some(Err(())) } else { None };
        for _ in 0..5 {
            world.tick();
        }
    }
    world.settle();
}

#[test]
fn a_silent_member_holds_a_restore_back() {
    let mut world = World::new(3, 8);
    world.settle();
    world.config_map = None;
    world.pods.get_mut(&1).unwrap().silent = true;
    for _ in 0..20 {
        let plan = world.tick();
        assert!(plan.action.is_none());
        assert_eq!(plan.waiting[0].code(), "RestoreNeedsMember");
    }
    world.pods.get_mut(&1).unwrap().silent = false;
    world.settle();
}

#[test]
fn a_silent_leaver_is_never_let_go() {
    let mut world = World::new(5, 9);
    world.settle();
    world.desired.replicas = 3;
    world.pods.get_mut(&4).unwrap().silent = true;
    for _ in 0..100 {
        world.tick();
    }
    assert_eq!(world.pods.len(), 5);
    world.pods.get_mut(&4).unwrap().silent = false;
    world.settle();
}

#[test]
fn a_leaver_that_owes_hints_stays() {
    let mut world = World::new(4, 10);
    world.settle();
    world.desired.replicas = 3;
    for _ in 0..100 {
        world.volumes.get_mut(&3).unwrap().node.hints = 5;
        world.tick();
    }
    assert_eq!(world.pods.len(), 4);
    world.settle();
}

#[test]
fn a_stateful_set_scaled_by_somebody_is_put_back() {
    let mut world = World::new(3, 11);
    world.settle();
    world.workload.as_mut().unwrap().replicas = 2;
    let plan = world.tick();
    assert_eq!(plan.action.unwrap().code(), "ScaleWorkload/PutBack");
    world.settle();
    world.workload.as_mut().unwrap().replicas = 6;
    world.settle();
    assert_eq!(world.actions.iter().filter(|action| **action == "ScaleWorkload/PutBack").count(), 2);
}

#[test]
fn a_lost_volume_is_replaced() {
    let mut world = World::new(3, 12);
    world.settle();
    world.lose_volume(1);
    world.settle();
    let ring = world.ring().unwrap();
    let member = ring.members.iter().find(|member| member.name == "demo-1").unwrap();
    assert_eq!(member.incarnation, world.volumes[&1].node.incarnation);
}

#[test]
fn a_node_whose_host_is_gone_is_replaced_after_a_while() {
    let mut world = World::new(4, 16);
    world.settle();
    let lost = world.volumes[&1].node.incarnation;
    world.lose_host(1);
    world.tick();
    for _ in 0..10 {
        let plan = world.tick();
        assert!(plan.waiting.iter().any(|reason| reason.code() == "VolumeStranded"), "{:?}", plan.waiting);
    }
    world.settle();
    assert_eq!(world.actions.iter().filter(|action| **action == "ReplaceVolume").count(), 1);
    assert!(world.ring().unwrap().member_by_incarnation(lost).is_none());
}

#[test]
fn a_member_that_leaves_and_whose_host_is_gone_does_not_block_the_scale_in() {
    let mut world = World::new(5, 17);
    world.settle();
    world.desired.replicas = 3;
    world.tick();
    world.lose_host(4);
    world.settle();
    assert_eq!(world.pods.len(), 3);
}

#[test]
fn what_may_be_the_last_copy_is_never_given_up() {
    let mut world = World::new(3, 18);
    world.settle();
    world.lose_host(1);
    (0..3).filter(|o| *o != 1).for_each(|ordinal| world.pods.get_mut(&ordinal).unwrap().silent = true);
    for _ in 0..60 {
        world.tick();
    }
    let plan = world.tick();
    assert!(plan.waiting.iter().any(|reason| reason.code() == "LastCopy"), "{:?}", plan.waiting);
    speak(&mut world);
    world.settle();
}

#[test]
fn partitions_are_split_while_nothing_moves() {
    let mut world = World::new(3, 19);
    world.settle();
    world.desired.replicas = 5;
    world.desired.partitions = PartitionCount::new(128).unwrap();
    world.settle();
    let ring = world.ring().unwrap();
    assert_eq!((ring.partitions.len(), ring.members.len()), (128, 5));
}

#[test]
fn n_goes_up_and_down_again() {
    let mut world = World::new(5, 20);
    world.settle();
    for n in [5, 3, 1, 3] {
        world.desired.quorums = Quorums { n, r: n / 2 + 1, w: n / 2 + 1, sloppy: true };
        world.settle();
        let ring = world.ring().unwrap();
        assert!(ring.partitions.iter().all(|placement| placement.preference.len() == usize::from(n)));
    }
}

#[test]
fn a_scale_in_that_does_not_fit_waits_and_goes_on_when_there_is_room() {
    let mut world = World::new(5, 21);
    world.settle();
    world.disk_bytes = 30_000;
    world.desired.replicas = 3;
    for _ in 0..20 {
        let plan = world.tick();
        let small = plan.waiting.iter().find(|reason| reason.code() == "DiskTooSmall");
        assert!(small.is_some(), "{:?}", plan.waiting);
        assert!(world.ring().unwrap().target.is_none(), "nothing is moved that does not fit");
    }
    world.disk_bytes = 100_000;
    world.settle();
    assert_eq!(world.pods.len(), 3);
}

#[test]
fn a_new_template_restarts_every_pod_once() {
    let mut world = World::new(3, 13);
    world.settle();
    world.revision = 2;
    world.objects_current = false;
    world.settle();
    assert!(world.pods.values().all(|pod| pod.revision == "r2"));
    assert_eq!(world.actions.iter().filter(|action| **action == "RestartPod").count(), 3);
}

#[test]
fn n_may_grow_together_with_the_cluster() {
    let mut world = World::new(3, 14);
    world.settle();
    world.desired.replicas = 5;
    world.desired.quorums.n = 5;
    world.desired.quorums.r = 3;
    world.desired.quorums.w = 3;
    world.settle();
    assert!(world.ring().unwrap().partitions.iter().all(|placement| placement.preference.len() == 5));
}

#[test]
fn nothing_is_done_while_paused() {
    let mut world = World::new(3, 15);
    world.settle();
    world.desired.paused = true;
    world.desired.replicas = 5;
    world.config_map = None;
    let plan = world.tick();
    assert!(plan.action.is_none() && plan.lagging.is_empty());
}

/// What happens to a cluster.
#[derive(Clone, Debug)]
enum Happening {
    Scale(u32),
    Ticks(u8),
    Silence(u32),
    Speak,
    DeleteRing,
    DamageRing,
    DeleteStatefulSet,
    ScaleStatefulSet(u32),
    NewTemplate,
    LoseVolume(u32),
    LoseHost(u32),
    Factor(u8),
    Split,
    Hints(u32),
    OnScaleIn(bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (3u32..8).prop_map(Happening::Scale),
        8 => (1u8..30).prop_map(Happening::Ticks),
        2 => (0u32..8).prop_map(Happening::Silence),
        2 => Just(Happening::Speak),
        1 => Just(Happening::DeleteRing),
        1 => Just(Happening::DamageRing),
        1 => Just(Happening::DeleteStatefulSet),
        1 => (0u32..9).prop_map(Happening::ScaleStatefulSet),
        1 => Just(Happening::NewTemplate),
        1 => (0u32..8).prop_map(Happening::LoseVolume),
        1 => (0u32..8).prop_map(Happening::LoseHost),
        2 => prop_oneof![Just(3u8), Just(5)].prop_map(Happening::Factor),
        1 => Just(Happening::Split),
        1 => (0u32..8).prop_map(Happening::Hints),
        1 => any::<bool>().prop_map(Happening::OnScaleIn),
    ]
}

/// Every pod that has a Node answers again.
fn speak(world: &mut World) {
    world.pods.values_mut().filter(|pod| pod.unscheduled.is_none()).for_each(|pod| pod.silent = false);
}

fn happen(world: &mut World, happening: &Happening, lost: &mut u32) {
    match happening {
        Happening::Scale(replicas) => {
            world.desired.replicas = (*replicas).max(world.desired.quorums.n.into());
        }
        Happening::Ticks(count) => (0..*count).for_each(|_| drop(world.tick())),
        Happening::Silence(ordinal) => {
            world.pods.entry(*ordinal).and_modify(|pod| pod.silent = true);
        }
        Happening::Speak => speak(world),
        Happening::DeleteRing => world.config_map = None,
        Happening::DamageRing => world.config_map = Some(Err(())),
        Happening::DeleteStatefulSet => {
            world.workload = None;
            world.pods.clear();
        }
        Happening::ScaleStatefulSet(replicas) => {
            if let Some(workload) = &mut world.workload {
                workload.replicas = *replicas;
            }
        }
        Happening::NewTemplate => {
            world.revision += 1;
            world.objects_current = false;
        }
        // One at most: with n = 3, r = w = 2, a second loss may rightly end in loss of data.
        Happening::LoseVolume(ordinal) if *lost == 0 && world.volumes.contains_key(ordinal) => {
            world.lose_volume(*ordinal);
            *lost += 1;
        }
        Happening::LoseHost(ordinal) if *lost == 0 && world.volumes.contains_key(ordinal) => {
            world.lose_host(*ordinal);
            *lost += 1;
        }
        Happening::LoseVolume(_) | Happening::LoseHost(_) => {}
        Happening::Factor(n) if u32::from(*n) <= world.desired.replicas => {
            let majority = n / 2 + 1;
            world.desired.quorums = Quorums { n: *n, r: majority, w: majority, sloppy: true };
        }
        Happening::Factor(_) => {}
        Happening::Split => {
            let doubled = (world.desired.partitions.get() * 2).min(256);
            world.desired.partitions = PartitionCount::new(doubled).unwrap();
        }
        Happening::Hints(ordinal) => {
            if let Some(volume) = world.volumes.get_mut(ordinal)
                && world.config_map.is_some()
            {
                volume.node.hints = 3;
            }
        }
        Happening::OnScaleIn(delete) => world.desired.delete_on_scale_in = *delete,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, in whatever order: nothing is lost, and once it stops, everything is as the spec says.
    #[test]
    fn any_story_ends_well(seed in any::<u64>(), story in prop::collection::vec(happening(), 1..25)) {
        let mut world = World::new(3, seed);
        let mut lost = 0;
        world.settle();
        for happening in &story {
            happen(&mut world, happening, &mut lost);
        }
        speak(&mut world);
        world.settle();
    }
}

//! The status says what was observed and done: followed through a scale out, a silence and a refused spec.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use annulus_operator::crd::{KeyValueCluster, KeyValueClusterStatus};
use annulus_operator::plan::{Action, Objects, Observed, Plan, StoredRing, plan};
use annulus_operator::status::{Round, status};
use annulus_operator::validate::Invalid;
use dynamo::ring::Quorums;
use dynamo::token::HashKey;
use k8s_openapi::jiff::Timestamp;
use world::{PARTITIONS, World};

/// The status that a round in this world would write, on top of the one before.
fn look(world: &World, cluster: &mut KeyValueCluster, second: i64) -> KeyValueClusterStatus {
    let observed = world.observe();
    let plan = plan(&world.desired, &observed, HashKey([0; 16]));
    look_with(world, cluster, second, &plan, None)
}

fn look_with(
    world: &World,
    cluster: &mut KeyValueCluster,
    second: i64,
    plan: &Plan,
    invalid: Option<&Invalid>,
) -> KeyValueClusterStatus {
    of_round(&world.observe(), plan, invalid, cluster, second)
}

fn of_round(
    observed: &Observed,
    plan: &Plan,
    invalid: Option<&Invalid>,
    cluster: &mut KeyValueCluster,
    second: i64,
) -> KeyValueClusterStatus {
    let ring = match &observed.stored {
        StoredRing::Held { ring, .. } => Some(&**ring),
        StoredRing::Missing | StoredRing::Damaged { .. } => None,
    };
    let now = Timestamp::from_second(second).unwrap();
    let round = Round { cluster, observed, invalid, plan, failed: None, ring, now };
    let found = status(&round);
    cluster.status = Some(found.clone());
    found
}

fn cluster() -> KeyValueCluster {
    let mut cluster = KeyValueCluster::new("demo", annulus_operator::crd::KeyValueClusterSpec::default());
    cluster.metadata.generation = Some(4);
    cluster
}

fn condition<'a>(status: &'a KeyValueClusterStatus, type_: &str) -> (&'a str, &'a str, i64) {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
    (&condition.status, &condition.reason, condition.last_transition_time.0.as_second())
}

#[test]
fn a_scale_out_is_accounted_for() {
    let (mut world, mut cluster) = (World::new(3, 1), cluster());
    world.settle();
    let before = look(&world, &mut cluster, 100);
    assert_eq!(before.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&before, "Available"), ("True", "QuorumsUp", 100));
    assert!(before.rebalance.is_none() && before.waiting.is_empty());

    world.desired.replicas = 5;
    let wished = look(&world, &mut cluster, 105);
    assert_eq!(
        wished.phase.as_deref(),
        Some("Updating"),
        "whoever waits for Running must not be told so too early"
    );
    while world.ring().unwrap().target.is_none() {
        world.tick();
    }
    let moves = world.ring().unwrap().target.as_ref().unwrap().replica_moves;
    let begun = look(&world, &mut cluster, 110).rebalance.unwrap();
    assert_eq!((begun.from, begun.to), (3, 5));
    assert_eq!(begun.bytes_before, 3 * 1000 * i64::from(PARTITIONS));
    assert_eq!(begun.bytes_total, 1000 * i64::from(moves));

    // Another operator that knows nothing but the objects says the same of the beginning.
    for second in 111..1000 {
        world.tick();
        let now = look(&world, &mut cluster, second);
        assert_eq!(condition(&now, "Available").0, "True");
        let Some(rebalance) = &now.rebalance else {
            break;
        };
        assert_eq!(now.phase.as_deref(), Some("Rebalancing"));
        assert_eq!((rebalance.bytes_before, &rebalance.started_at), (begun.bytes_before, &begun.started_at));
        assert!(rebalance.bytes_moved <= rebalance.bytes_total);
    }
    let after = look(&world, &mut cluster, 1001);
    let last = after.last_rebalance.unwrap();
    assert_eq!(last.bytes_moved, 1000 * i64::from(moves));
    assert_eq!((last.from, last.to, last.since), (3, 5, begun.since));
    assert!(last.finished_at > last.started_at);
    assert_eq!(after.ring.unwrap().members, 5);
}

/// While n grows, lists are longer than those the bytes were counted in; what is to be moved stays what it was.
#[test]
fn what_a_rise_of_n_moves_is_estimated_once() {
    let (mut world, mut cluster) = (World::new(5, 3), cluster());
    world.settle();
    look(&world, &mut cluster, 100);
    world.desired.quorums = Quorums { n: 5, r: 3, w: 3, sloppy: true };
    while world.ring().unwrap().target.is_none() {
        world.tick();
    }
    let begun = look(&world, &mut cluster, 110).rebalance.unwrap();
    let partitions = i64::from(PARTITIONS);
    assert_eq!(begun.bytes_before, 3 * 1000 * partitions);
    assert_eq!((begun.bytes_total, begun.bytes_minimum), (2 * 1000 * partitions, 2 * 1000 * partitions));
    for second in 111..1000 {
        world.tick();
        let Some(now) = look(&world, &mut cluster, second).rebalance else {
            break;
        };
        assert_eq!((now.bytes_total, now.bytes_minimum), (begun.bytes_total, begun.bytes_minimum));
    }
    let last = look(&world, &mut cluster, 1001).last_rebalance.unwrap();
    assert_eq!((last.bytes_moved, last.bytes_minimum), (begun.bytes_total, begun.bytes_minimum));
}

/// Whoever does not answer when it begins has data all the same.
#[test]
fn what_moves_is_estimated_from_those_that_answer() {
    let (mut world, mut cluster) = (World::new(3, 1), cluster());
    world.settle();
    world.desired.replicas = 5;
    while world.ring().unwrap().target.is_none() {
        world.tick();
    }
    world.pods.get_mut(&2).unwrap().silent = true;
    let begun = look(&world, &mut cluster, 110).rebalance.unwrap();
    let moves = world.ring().unwrap().target.as_ref().unwrap().replica_moves;
    assert_eq!(begun.bytes_before, 3 * 1000 * i64::from(PARTITIONS));
    assert_eq!(begun.bytes_total, 1000 * i64::from(moves));
}

/// What is written again every now and then is no news to whoever watches.
#[test]
fn writing_the_same_objects_again_is_no_progress() {
    let (mut world, mut cluster) = (World::new(3, 1), cluster());
    world.settle();
    let mut observed = world.observe();
    observed.objects = Objects::Due;
    let rest = plan(&world.desired, &observed, HashKey([0; 16]));
    assert!(matches!(rest.action, Some(Action::ApplyObjects { .. })), "{rest:?}");
    let found = of_round(&observed, &rest, None, &mut cluster, 100);
    assert_eq!(found.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&found, "Progressing"), ("False", "Settled", 100));

    world.desired.replicas = 5;
    let wish = plan(&world.desired, &observed, HashKey([0; 16]));
    assert!(matches!(wish.action, Some(Action::ScaleWorkload { .. })), "a wish waits for it: {wish:?}");
}

#[test]
fn silence_degrades_and_one_of_three_leaves_quorums() {
    let (mut world, mut cluster) = (World::new(3, 1), cluster());
    world.settle();
    look(&world, &mut cluster, 100);
    world.pods.get_mut(&1).unwrap().silent = true;
    let one = look(&world, &mut cluster, 101);
    assert_eq!(one.phase.as_deref(), Some("Degraded"));
    assert_eq!(condition(&one, "Degraded"), ("True", "NodesSilent", 101));
    assert_eq!(condition(&one, "Available"), ("True", "QuorumsUp", 100));
    world.pods.get_mut(&2).unwrap().silent = true;
    let two = look(&world, &mut cluster, 102);
    assert_eq!(condition(&two, "Available"), ("False", "PartitionsWithoutQuorum", 102));
    assert_eq!(two.ready_replicas, 1);
    assert!(two.waiting.iter().any(|waits| waits.starts_with("demo-1 does not answer")), "{:?}", two.waiting);
}

/// A ring in the status proves that there has been one, so it must outlive the `ConfigMap`.
#[test]
fn a_lost_ring_stays_in_the_status() {
    let (mut world, mut cluster) = (World::new(3, 1), cluster());
    world.settle();
    let before = look(&world, &mut cluster, 100).ring;
    world.config_map = None;
    let after = look(&world, &mut cluster, 101);
    assert_eq!(after.ring, before);
    assert_eq!(condition(&after, "Available"), ("False", "NoRing", 101));
    assert_eq!(after.phase.as_deref(), Some("Degraded"));
}

#[test]
fn a_refused_spec_says_so() {
    let (mut world, mut cluster) = (World::new(3, 1), cluster());
    world.settle();
    let now = look_with(&world, &mut cluster, 100, &Plan::default(), Some(&Invalid::NoImage));
    assert_eq!(condition(&now, "Valid"), ("False", "SpecRefused", 100));
    assert_eq!(now.observed_generation, Some(4));
}

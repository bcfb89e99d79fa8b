//! The planner's decision table: each row of the table in `docs/operator.md` is a situation made here, and what the
//! planner decides in it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use annulus_operator::plan::{Desired, Objects, Observation, Observed, Pod, StoredRing, plan};
use dynamo::ring::Quorums;
use dynamo::token::{HashKey, PartitionCount};
use uuid::Uuid;
use world::World;

const PAGE: &str = include_str!("../../docs/operator.md");

type Situation = (Desired, Observed);

/// A cluster of some replicas, settled.
fn settled(replicas: u32) -> World {
    let mut world = World::new(replicas, 1);
    world.settle();
    world
}

fn of(world: &World) -> Situation {
    (world.desired.clone(), world.observe())
}

/// Objects written, pods running, no ring yet.
fn begun(replicas: u32) -> World {
    let mut world = World::new(replicas, 1);
    world.tick();
    world
}

/// Five members of which two leave, everything moved away, nobody let go yet.
fn leaving() -> World {
    let mut world = settled(5);
    world.desired.replicas = 3;
    for _ in 0..1000 {
        let (desired, observed) = of(&world);
        let action = plan(&desired, &observed, HashKey([0; 16])).action;
        if action.is_some_and(|action| action.code() == "ScaleWorkload/Shrink") {
            return world;
        }
        world.tick();
    }
    panic!("never came to let go");
}

/// Two members let go on proof, still in the ring.
fn let_go(delete: bool) -> World {
    let mut world = leaving();
    world.desired.delete_on_scale_in = delete;
    world.tick();
    assert_eq!(world.actions.last(), Some(&"ScaleWorkload/Shrink"));
    world
}

fn silence(observed: &mut Observed, ordinal: u32) {
    pod(observed, ordinal).node = Observation::NoAnswer("no answer within 1500 ms".to_owned());
}

fn pod(observed: &mut Observed, ordinal: u32) -> &mut Pod {
    observed.pods.iter_mut().find(|pod| pod.ordinal == ordinal).unwrap()
}

fn answer(observed: &mut Observed, ordinal: u32) -> &mut annulus_operator::plan::Answer {
    match &mut pod(observed, ordinal).node {
        Observation::Answer(answer) => answer,
        Observation::NoAnswer(why) => panic!("{why}"),
    }
}

fn with(world: &World, change: impl FnOnce(&mut Observed)) -> Situation {
    let (desired, mut observed) = of(world);
    change(&mut observed);
    (desired, observed)
}

fn wanting(world: &World, change: impl FnOnce(&mut Desired)) -> Situation {
    let (mut desired, observed) = of(world);
    change(&mut desired);
    (desired, observed)
}

fn making() -> Vec<(&'static str, Situation)> {
    let foreign = Some(Uuid::from_u128(99));
    vec![
        ("`spec.paused`", wanting(&settled(3), |desired| desired.paused = true)),
        ("objects are missing, or were built from another spec", of(&World::new(3, 1))),
        ("no ring; every node answers that it has none", of(&begun(3))),
        ("no ring; a node does not answer", with(&begun(3), |observed| silence(observed, 1))),
        (
            "no ring; a volume holds another cluster's data",
            with(&begun(3), |observed| answer(observed, 1).cluster = foreign),
        ),
        (
            "no ring, though the status says that there was one",
            with(&begun(3), |observed| observed.known_epoch = 9),
        ),
        (
            "no ring; a volume beyond the wanted ones may hold one",
            with(&begun(5), |observed| {
                observed.pods.retain(|pod| pod.ordinal < 4);
            }),
        ),
        (
            "the `ConfigMap` is damaged, and no node holds a ring",
            with(&begun(3), |observed| {
                let (resource_version, why) = ("1".to_owned(), "it has no key ring.json".to_owned());
                observed.stored = StoredRing::Damaged { resource_version, why };
            }),
        ),
    ]
    .into_iter()
    .map(|(text, (mut desired, observed))| {
        if text.contains("beyond the wanted") {
            desired.replicas = 4;
        }
        (text, (desired, observed))
    })
    .collect()
}

fn restoring() -> Vec<(&'static str, Situation)> {
    let mut lost = settled(3);
    lost.config_map = None;
    let mut newer = settled(3);
    let mut ring = newer.ring().unwrap().clone();
    ring.epoch += 5;
    newer.volumes.get_mut(&0).unwrap().node.install(&ring);
    let mut older = settled(3);
    older.status_epoch = 9;
    vec![
        ("the `ConfigMap` is lost; every pod and member answers", of(&lost)),
        ("the `ConfigMap` is lost; a member does not answer", with(&lost, |observed| silence(observed, 2))),
        ("a node holds a newer ring than the `ConfigMap`", of(&newer)),
        ("the `ConfigMap` holds an older ring than the status says; everyone answers", of(&older)),
        (
            "the `ConfigMap` holds an older ring than the status says; a member does not answer",
            with(&older, |observed| silence(observed, 2)),
        ),
    ]
}

fn joining() -> Vec<(&'static str, Situation)> {
    let mut joined = settled(3);
    joined.desired.replicas = 5;
    joined.tick();
    vec![
        ("more replicas are wanted than there are pods", wanting(&settled(3), |desired| desired.replicas = 5)),
        ("newcomers run and all of them answer", of(&joined)),
        ("newcomers run and one does not answer", with(&joined, |observed| silence(observed, 4))),
        (
            "a newcomer still drops what it kept from an earlier membership",
            with(&joined, |observed| answer(observed, 4).status.leftover_partitions = 3),
        ),
        (
            "a newcomer's volume holds another cluster's data",
            with(&joined, |observed| answer(observed, 4).cluster = Some(Uuid::from_u128(99))),
        ),
    ]
}

/// Three members and two newcomers of whom the ring has just been told; all know it, and nothing moves yet.
fn targeted() -> Situation {
    let mut world = settled(3);
    world.desired.replicas = 5;
    while world.ring().unwrap().target.is_none() {
        world.tick();
    }
    let epoch = world.ring().unwrap().epoch;
    with(&world, |observed| (0..5).for_each(|ordinal| answer(observed, ordinal).status.epoch = epoch))
}

/// Three members, and two newcomers that copy.
fn copying() -> World {
    let mut moving = settled(3);
    moving.desired.replicas = 5;
    until_moving(moving)
}

fn until_moving(mut world: World) -> World {
    while world.ring().unwrap().partitions.iter().all(|placement| placement.also.is_none()) {
        world.tick();
    }
    world
}

/// Everyone knows the ring, and nobody has copied or compared anything for it.
fn nothing_synced(world: &World) -> Situation {
    let epoch = world.ring().unwrap().epoch;
    with(world, |observed| {
        for ordinal in 0..5 {
            let status = &mut answer(observed, ordinal).status;
            status.synced.clear();
            status.epoch = epoch;
        }
    })
}

fn moving() -> Vec<(&'static str, Situation)> {
    let mut joined = settled(3);
    joined.desired.replicas = 5;
    joined.tick();
    let moving = copying();
    let (_, quiet) = nothing_synced(&moving);
    vec![
        ("newcomers are not yet reached by all members", {
            let (desired, mut observed) = targeted();
            for newcomer in [3, 4] {
                let unmet = answer(&mut observed, newcomer).incarnation.as_bytes().to_vec();
                answer(&mut observed, 0).status.unreachable.push(unmet.into());
            }
            (desired, observed)
        }),
        ("newcomers are reached by all members", targeted()),
        ("newcomers copy", (moving.desired.clone(), quiet.clone())),
        (
            "fewer replicas are wanted while newcomers copy",
            (
                {
                    let mut desired = moving.desired.clone();
                    desired.replicas = 3;
                    desired
                },
                quiet,
            ),
        ),
        (
            "a document could be published, less than a second after the last",
            with(&joined, |observed| observed.published_just_now = true),
        ),
        ("a member does not answer; nothing else is wanted", with(&settled(3), |o| silence(o, 1))),
        (
            "a member's pod answers with a fresh volume",
            with(&settled(3), |observed| {
                let fresh = answer(observed, 1);
                fresh.incarnation = Uuid::from_u128(1234);
                fresh.status.epoch = 0;
            }),
        ),
        (
            "two pods run on each other's volumes",
            with(&settled(3), |observed| {
                let (one, two) = (answer(observed, 1).incarnation, answer(observed, 2).incarnation);
                answer(observed, 1).incarnation = two;
                answer(observed, 2).incarnation = one;
            }),
        ),
        (
            "n is raised beyond the members there are",
            wanting(&settled(3), |desired| {
                desired.replicas = 4;
                desired.quorums.n = 4;
            }),
        ),
    ]
}

fn shrinking() -> Vec<(&'static str, Situation)> {
    let world = leaving();
    let mut taken_back = leaving();
    taken_back.desired.replicas = 5;
    let mut stopping = of(&let_go(false));
    let leavers = of(&leaving()).1.pods.into_iter().filter(|pod| pod.ordinal >= 3);
    stopping.1.pods.extend(leavers.map(|pod| Pod { terminating: true, ..pod }));
    let mut scaled_down = settled(3);
    scaled_down.workload.as_mut().unwrap().replicas = 2;
    let mut scaled_up = settled(3);
    scaled_up.workload.as_mut().unwrap().replicas = 6;
    vec![
        ("fewer replicas are wanted", wanting(&settled(5), |desired| desired.replicas = 3)),
        ("fewer replicas are wanted, and the data does not fit on those that stay", {
            let mut small = settled(5);
            small.disk_bytes = 30_000;
            wanting(&small, |desired| desired.replicas = 3)
        }),
        ("leaving members prove that they are dispensable", of(&world)),
        ("a leaving member does not answer", with(&world, |observed| silence(observed, 4))),
        ("a leaving member owes hints", with(&world, |observed| answer(observed, 4).status.hints = 2)),
        ("a leaving member says that it is listed", with(&world, |o| answer(o, 4).status.listed_partitions = 1)),
        (
            "a leaving member has yet to hand partitions over",
            with(&world, |o| answer(o, 4).status.leftover_partitions = 1),
        ),
        ("a leaving member is at an older epoch", with(&world, |observed| answer(observed, 4).status.epoch -= 1)),
        ("leaving members prove it; a staying member does not answer", with(&world, |o| silence(o, 0))),
        ("leaving members are wanted again", of(&taken_back)),
        ("pods let go on proof are still there", stopping),
        ("pods let go are gone; volumes are retained", of(&let_go(false))),
        ("pods let go are gone; volumes are to be deleted", of(&let_go(true))),
        ("somebody lowered the `StatefulSet`'s replicas", of(&scaled_down)),
        ("somebody raised the `StatefulSet`'s replicas", of(&scaled_up)),
    ]
}

/// Five members in three zones, settled.
fn zoned() -> World {
    let mut world = World::new(5, 1);
    world.desired.zones = true;
    world.settle();
    world
}

/// Five members that begin to hold three replicas instead of five.
fn thinning() -> World {
    let mut world = World::new(5, 1);
    world.desired.quorums = quorums(5, 3, 3);
    world.settle();
    world.desired.quorums = quorums(3, 2, 2);
    until_moving(world)
}

fn quorums(n: u8, r: u8, w: u8) -> Quorums {
    Quorums { n, r, w, sloppy: true }
}

fn reshaping() -> Vec<(&'static str, Situation)> {
    let world = settled(5);
    let more = |world: &World| wanting(world, |desired| desired.quorums = quorums(5, 3, 3));
    vec![
        ("a higher n is wanted", more(&world)),
        ("a higher n is wanted, and the data does not fit", {
            let mut small = settled(5);
            small.disk_bytes = 30_000;
            more(&small)
        }),
        ("a lower n is wanted", wanting(&world, |desired| desired.quorums = quorums(2, 1, 2))),
        ("n is lowered; those that stay have yet to compare", nothing_synced(&thinning())),
        ("other r and w are wanted", wanting(&world, |desired| desired.quorums = quorums(3, 1, 3))),
        (
            "a zone's nodes are given more weight",
            wanting(&zoned(), |desired| {
                desired.zone_weights.insert("zone-0".to_owned(), 3);
            }),
        ),
        ("a member's pod runs in another zone than the ring says", {
            with(&zoned(), |observed| pod(observed, 1).zone = Some("zone-2".to_owned()))
        }),
        ("a newcomer's zone is not known", {
            let mut world = zoned();
            world.desired.replicas = 6;
            world.tick();
            with(&world, |observed| pod(observed, 5).zone = None)
        }),
    ]
}

fn tending() -> Vec<(&'static str, Situation)> {
    let outdated = |observed: &mut Observed| {
        observed.objects = Objects::Current;
        observed.workload.as_mut().unwrap().revision = "r2".to_owned();
    };
    let world = settled(3);
    vec![
        ("nothing is to be done", of(&world)),
        ("pods are of an older template, and everything is well", with(&world, outdated)),
        (
            "pods are of an older template; a node owes hints",
            with(&world, |observed| {
                outdated(observed);
                answer(observed, 0).status.hints = 1;
            }),
        ),
        (
            "pods are of an older template; a node cannot reach another",
            with(&world, |observed| {
                outdated(observed);
                answer(observed, 0).status.unreachable = vec![vec![0; 16].into()];
            }),
        ),
        (
            "pods are of an older template; one of them does not even run",
            with(&world, |observed| {
                outdated(observed);
                silence(observed, 0);
                pod(observed, 0).ready = false;
                pod(observed, 0).running = false;
            }),
        ),
        ("a volume's Node is gone, for less than `spec.replaceAfter`", host_gone(3)),
        ("a volume's Node is gone for longer", host_gone(30)),
        ("a volume's Node is gone, and it may hold the last copy of something", {
            let (desired, mut observed) = host_gone(30);
            [0, 2].into_iter().for_each(|ordinal| silence(&mut observed, ordinal));
            (desired, observed)
        }),
        (
            "more partitions are wanted",
            wanting(&world, |desired| {
                desired.partitions = PartitionCount::new(desired.partitions.get() * 2).unwrap();
            }),
        ),
        ("a volume is smaller than wanted", wanting(&world, |desired| desired.volume_bytes *= 2)),
    ]
}

/// A member whose Node has been gone for so many rounds.
fn host_gone(rounds: usize) -> Situation {
    let mut world = settled(3);
    world.lose_host(1);
    for _ in 0..rounds {
        world.tick();
        if world.actions.last() == Some(&"ReplaceVolume") {
            break;
        }
    }
    world.lose_host(1);
    world.tick();
    with(&world, |observed| pod(observed, 1).unscheduled_seconds = Some(rounds as u64))
}

fn row(text: &str, (desired, observed): &Situation) -> String {
    let plan = plan(desired, observed, HashKey([0; 16]));
    let action = plan.action.as_ref().map_or("—".to_owned(), |action| format!("`{}`", action.code()));
    let mut waiting: Vec<String> = plan.waiting.iter().map(|reason| format!("`{}`", reason.code())).collect();
    waiting.dedup();
    let waiting = if waiting.is_empty() { "—".to_owned() } else { waiting.join(", ") };
    format!("| {text} | {action} | {waiting} |\n")
}

fn table() -> String {
    let parts = [
        ("A first ring", making()),
        ("A lost ring", restoring()),
        ("Members", joining().into_iter().chain(moving()).collect()),
        ("Replicas, zones and weights", reshaping()),
        ("Scale in", shrinking()),
        ("Restarts and volumes", tending()),
    ];
    let mut table = String::new();
    for (title, rows) in parts {
        table.push_str(&format!("\n### {title}\n\n| situation | action | waits for |\n|---|---|---|\n"));
        table.extend(rows.iter().map(|(text, situation)| row(text, situation)));
    }
    table.push('\n');
    table
}

#[test]
fn the_published_table_is_what_the_planner_does() {
    let (_, after) = PAGE.split_once("<!-- decisions -->\n").expect("docs/operator.md has a mark for the table");
    let (published, _) = after.split_once("<!-- end of decisions -->").expect("docs/operator.md ends the table");
    let table = table();
    assert!(published == table, "docs/operator.md is out of date; between its marks there has to be:\n{table}");
}

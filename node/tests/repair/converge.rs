//! Replicas that differ become equal, at a cost that goes with what differs.

use super::cluster::{Cluster, wall_ms, written};
use annulus_node::config::Limits;
use bytes::Bytes;
use dynamo::object::Object;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const NODES: usize = 3;
const IDLE: Duration = Duration::from_secs(10);

fn key(number: usize) -> Bytes {
    Bytes::from(format!("key:{number:08}"))
}

/// What every node is to have in the end of the keys that differ, and how many bytes of them have to travel.
struct Divergence {
    wanted: BTreeMap<Bytes, Bytes>,
    bytes: usize,
}

/// The same items everywhere, but for some keys that are missing somewhere, older somewhere, or written concurrently.
fn diverge(cluster: &Cluster, keys: usize, differing: usize, value_bytes: usize) -> Divergence {
    let value = |number: usize, version: u8| {
        let mut value = format!("{number}.{version}.").into_bytes();
        value.resize(value_bytes, version);
        value
    };
    let step = keys / differing;
    let mut divergence = Divergence { wanted: BTreeMap::new(), bytes: 0 };
    let mut held: Vec<Vec<(Bytes, Bytes)>> = vec![Vec::new(); NODES];
    for number in 0..keys {
        let first = written(&Object::default(), 1, wall_ms() - 60_000, &value(number, 0));
        let mut objects = vec![Some(first.clone()); NODES];
        if number % step == 0 && number / step < differing {
            let turn = number / step;
            match turn % 4 {
                0 => objects[turn / 4 % NODES] = None,
                1 => {
                    objects = vec![None; NODES];
                    objects[turn / 4 % NODES] = Some(first.clone());
                }
                2 => {
                    let second = written(&first, 1, wall_ms() - 30_000, &value(number, 1));
                    objects[turn / 4 % NODES] = Some(second.clone());
                    objects[(turn / 4 + 1) % NODES] = Some(second);
                }
                _ => {
                    objects[0] = Some(written(&first, 2, wall_ms() - 30_000, &value(number, 2)));
                    objects[1] = Some(written(&first, 3, wall_ms() - 30_000, &value(number, 3)));
                }
            }
            // The oracle: all states merged, in no particular order.
            let merged = objects.iter().flatten().fold(Object::default(), |merged, object| merged.merge(object));
            let merged = merged.encode();
            let behind =
                objects.iter().filter(|object| object.as_ref().map(Object::encode) != Some(merged.clone()));
            divergence.bytes += behind.count() * (merged.len() + key(number).len());
            divergence.wanted.insert(key(number), merged);
        }
        for (node, object) in objects.into_iter().enumerate() {
            held[node].extend(object.map(|object| (key(number), object.encode())));
        }
    }
    for (node, items) in held.into_iter().enumerate() {
        cluster.plant(node, items);
    }
    divergence
}

async fn until_equal(cluster: &Cluster, divergence: &Divergence, limit: Duration) -> Duration {
    let began = Instant::now();
    loop {
        let open = (0..NODES).flat_map(|node| {
            divergence
                .wanted
                .iter()
                .filter(move |(key, object)| cluster.stored(node, key).as_ref() != Some(*object))
        });
        let open = open.count();
        if open == 0 {
            return began.elapsed();
        }
        assert!(began.elapsed() < limit, "{open} objects still differ");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Name of the threads that serve the measured nodes, by which they are told from those of tests beside this one.
const MEASURED: &str = "measured-nodes";

/// Processor time of these threads.
fn cpu() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).ok());
    let ticks = stats.filter_map(|stat| {
        let (name, after) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = after.split_whitespace().collect();
        // Fields 14 and 15 of the file: ticks of 10 ms in user and in system mode.
        let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        name.ends_with(MEASURED).then_some(ticks)
    });
    Duration::from_millis(10) * u32::try_from(ticks.sum::<u64>()).unwrap()
}

/// Runs nodes on threads of that name.
fn on_measured_threads(nodes: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).thread_name(MEASURED).enable_all();
    runtime.build().unwrap().block_on(nodes);
}

async fn measure(keys: usize, differing: usize, value_bytes: usize, limit: Duration) {
    let mut cluster = Cluster::new(NODES, 1024);
    let divergence = diverge(&cluster, keys, differing, value_bytes);
    let limits = Limits { disk_reserve_bytes: 0, ..Limits::default() };
    let opened = Instant::now();
    for node in 0..NODES {
        cluster.start(node, limits.clone()).await;
    }
    println!("started after {:?}", opened.elapsed());
    let before = cluster.wire.load(Ordering::Relaxed);
    let took = until_equal(&cluster, &divergence, limit).await;
    let wire = cluster.wire.load(Ordering::Relaxed) - before;
    let ratio = wire as f64 / divergence.bytes as f64;
    println!(
        "{keys} keys of {value_bytes} bytes, {differing} of them different: equal after {took:?}, {wire} bytes on \
         the wire for {} that differed: {ratio:.2}",
        divergence.bytes
    );
    // What was on its way when the last object arrived.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (wire, used) = (cluster.wire.load(Ordering::Relaxed), cpu());
    tokio::time::sleep(IDLE).await;
    let idle_bytes = (cluster.wire.load(Ordering::Relaxed) - wire) as f64 / IDLE.as_secs_f64() / NODES as f64;
    assert!(used > Duration::ZERO, "no thread has the name");
    let idle_cpu = (cpu() - used).as_secs_f64() / IDLE.as_secs_f64() / NODES as f64;
    println!(
        "idle: {idle_bytes:.0} bytes/s for each pair of nodes, {:.2} % of a core for each node",
        idle_cpu * 100.0
    );
    cluster.stop().await;
    assert!(ratio < 2.0, "{ratio}");
    assert!(idle_bytes < 2000.0, "{idle_bytes}");
    assert!(idle_cpu < 0.01, "{idle_cpu}");
}

#[test]
fn replicas_that_differ_become_equal() {
    on_measured_threads(measure(20_000, 1_000, 1_000, Duration::from_secs(60)));
}

/// All keys share a hash tag, so that they are in four leaves, which are then cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowded_leaf_is_cut() {
    let mut cluster = Cluster::new(NODES, 16);
    let tagged = |number: usize| Bytes::from(format!("{{tag}}{number}"));
    // One time for all nodes: a dot has one value.
    let now = wall_ms();
    let object = |number: usize| written(&Object::default(), 1, now, &[number as u8; 100]).encode();
    let mut divergence = Divergence { wanted: BTreeMap::new(), bytes: 0 };
    for node in 0..NODES {
        let missing = |number: &usize| number % 97 == node;
        cluster.plant(
            node,
            (0..10_000).filter(|number| !missing(number)).map(|number| (tagged(number), object(number))),
        );
    }
    for number in (0..10_000).filter(|number| number % 97 < NODES) {
        divergence
            .wanted
            .insert(tagged(number), cluster.stored((number % 97 + 1) % NODES, &tagged(number)).unwrap());
    }
    for node in 0..NODES {
        cluster.start(node, Limits { disk_reserve_bytes: 0, ..Limits::default() }).await;
    }
    let took = until_equal(&cluster, &divergence, Duration::from_secs(60)).await;
    println!("equal after {took:?}, {} bytes on the wire", cluster.wire.load(Ordering::Relaxed));
    cluster.stop().await;
}

/// A node whose disk was lost comes back empty under the same ring: everything is brought back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_anything_gets_everything() {
    let mut cluster = Cluster::new(NODES, 64);
    let object = |number: usize| written(&Object::default(), 1, wall_ms(), &[number as u8; 500]).encode();
    let items: BTreeMap<Bytes, Bytes> = (0..20_000).map(|number| (key(number), object(number))).collect();
    for node in 1..NODES {
        cluster.plant(node, items.clone());
    }
    for node in 0..NODES {
        cluster.start(node, Limits { disk_reserve_bytes: 0, ..Limits::default() }).await;
    }
    let divergence = Divergence { wanted: items, bytes: 0 };
    until_equal(&cluster, &divergence, Duration::from_secs(60)).await;
    cluster.stop().await;
}

#[test]
#[ignore = "prints figures: a million keys, some minutes in a debug build"]
fn a_million_keys() {
    on_measured_threads(measure(1_000_000, 10_000, 100, Duration::from_secs(120)));
}

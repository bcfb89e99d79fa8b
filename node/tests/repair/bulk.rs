//! A node that joins while nobody asks anything: partitions of many pages come at full speed, in whatever way is cheapest.

use super::cluster::{Cluster, until, written};
use annulus_node::config::Limits;
use annulus_node::handoff::MoveRecord;
use annulus_node::storage::{Engine, Space};
use annulus_proto::v1::{InstallRingRequest, StatusRequest};
use bytes::Bytes;
use dynamo::object::Object;
use dynamo::preference::MemberIndex;
use dynamo::ring::{Also, Phase, Ring, RingView, to_json};
use std::time::{Duration, Instant};

const JOINER: usize = 3;
const PARTITIONS: u32 = 16;
const PATIENCE: Duration = Duration::from_secs(30);
const KEYS: u32 = 1600;
const VALUE_BYTES: usize = 16 << 10;
const WRITTEN_AT_MS: u64 = 1_700_000_000_000;

/// The ring of three nodes that hold everything, with a fourth that is to hold it too.
fn joining(everyone: &Ring) -> Ring {
    let mut ring = everyone.clone();
    ring.epoch += 1;
    ring.quorums.n -= 1;
    ring.quorums.w = 2;
    let joiner = MemberIndex(u16::try_from(JOINER).unwrap());
    for placement in &mut ring.partitions {
        placement.preference.retain(|member| *member != joiner);
        let mut list = placement.preference.clone();
        list[2] = joiner;
        placement.also = Some(Also { list, phase: Phase::Filling });
        placement.since = ring.epoch;
    }
    ring
}

/// The ring after that one, in which the fourth holds what it was to hold.
fn joined(joining: &Ring) -> Ring {
    let mut ring = joining.clone();
    ring.epoch += 1;
    for placement in &mut ring.partitions {
        placement.preference = placement.also.take().unwrap().list;
        placement.since = ring.epoch;
    }
    ring
}

fn key(number: u32) -> Bytes {
    Bytes::from(format!("key {number}"))
}

fn object(number: u32) -> Bytes {
    let value = number.to_le_bytes().repeat(VALUE_BYTES / 4);
    written(&Object::default(), 1, WRITTEN_AT_MS, &value).encode()
}

/// Three nodes that hold so many objects, and a fourth that is to get them; none of them runs.
fn joiner_of(keys: u32) -> Cluster {
    let mut cluster = Cluster::new(JOINER + 1, PARTITIONS);
    cluster.view = RingView::new(joining(cluster.view.ring())).unwrap();
    for node in 0..JOINER {
        cluster.plant(node, (0..keys).map(|number| (key(number), object(number))));
    }
    cluster
}

async fn start(cluster: &mut Cluster, node: usize, limits: &Limits) {
    cluster.start(node, Limits { disk_reserve_bytes: 0, ..limits.clone() }).await;
}

/// Has the fourth node get so many objects; returns how many of them were loaded as runs.
async fn joins(limits: Limits, keys: u32) -> usize {
    let mut cluster = joiner_of(keys);
    for node in 0..=JOINER {
        start(&mut cluster, node, &limits).await;
    }
    until("everything is copied and compared", PATIENCE, async || {
        let status = cluster.control(JOINER).await.status(StatusRequest {}).await.unwrap().into_inner();
        status.synced.len() == PARTITIONS as usize
    })
    .await;
    let engine = &cluster.engines[JOINER];
    assert_eq!(engine.len(Space::Data), keys as usize);
    for number in (0..keys).step_by(97) {
        assert!(cluster.stored(JOINER, &key(number)) == Some(object(number)), "key {number}");
    }
    let recorded = |partition| {
        let record = MoveRecord { partition, since: cluster.view.epoch() };
        engine.get(Space::Meta, &record.synced_key()).unwrap().is_some()
    };
    assert!((0..PARTITIONS).all(recorded));
    let request = InstallRingRequest { ring: to_json(&joined(cluster.view.ring())).into() };
    cluster.control(JOINER).await.install_ring(request).await.unwrap();
    until("its moves are forgotten", PATIENCE, async || !(0..PARTITIONS).any(recorded)).await;
    // Such a look passes whatever was ever recorded of moves.
    assert_eq!(engine.scanned(Space::Meta).scans, 1, "looks at what is recorded, besides the one at the start");
    let loaded = engine.loaded();
    cluster.stop().await;
    loaded
}

/// As many partitions are copied at once as there is room for pages: if each kept its room until the next had come, all
/// would wait for each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_room_for_few_pages_all_partitions_get_on() {
    assert_eq!(joins(Limits::default(), KEYS).await, 0, "runs would be too short");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_room_for_many_pages_they_are_loaded_as_runs() {
    let loaded = joins(Limits { pull_bytes_under_way_min: 32 << 20, ..Limits::default() }, KEYS).await;
    assert!(loaded > KEYS as usize / 2, "{loaded} of {KEYS}");
}

/// What a process had received that was killed is taken up by the next one, whoever else is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_node_had_received_is_not_sent_again() {
    let mut cluster = joiner_of(KEYS);
    let spool = cluster.spools[JOINER].clone();
    let left = tokio::spawn(async move {
        loop {
            let now = spool.lock().clone();
            if !now.is_empty() {
                return now;
            }
            tokio::task::yield_now().await;
        }
    });
    for node in 0..=JOINER {
        start(&mut cluster, node, &Limits::default()).await;
    }
    let left = tokio::time::timeout(PATIENCE, left).await.unwrap().unwrap();
    cluster.stop().await;

    let mut alone = joiner_of(0);
    // To be given the ring.
    start(&mut alone, JOINER, &Limits::default()).await;
    until("the ring is there", PATIENCE, async || {
        alone.control(JOINER).await.status(StatusRequest {}).await.is_ok()
    })
    .await;
    alone.stop().await;
    assert_eq!(alone.engines[JOINER].len(Space::Data), 0);
    *alone.spools[JOINER].lock() = left;
    start(&mut alone, JOINER, &Limits::default()).await;
    until("its data is there", PATIENCE, async || alone.engines[JOINER].len(Space::Data) > 0).await;
    until("nothing is kept twice", PATIENCE, async || alone.spools[JOINER].lock().is_empty()).await;
    let status = alone.control(JOINER).await.status(StatusRequest {}).await.unwrap().into_inner();
    let here: Vec<u32> = (0..KEYS).filter(|&number| alone.stored(JOINER, &key(number)).is_some()).collect();
    assert!(here.iter().all(|&number| alone.stored(JOINER, &key(number)) == Some(object(number))));
    assert_eq!((status.moved.unwrap().items, status.keys), (here.len() as u64, here.len() as u64));
    alone.stop().await;
}

/// Of partitions that are a page each, every page is the last one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fits_into_a_page_is_copied_no_faster_than_allowed() {
    let keys = 2 * PARTITIONS;
    let bytes = u64::from(keys) * VALUE_BYTES as u64;
    let began = Instant::now();
    joins(Limits { transfer_bytes_per_second_max: Some(bytes / 2), ..Limits::default() }, keys).await;
    assert!(began.elapsed() >= Duration::from_millis(1500), "{bytes} bytes in {:?}", began.elapsed());
}

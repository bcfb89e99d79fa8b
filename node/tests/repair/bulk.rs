//! A node that joins while nobody asks anything: partitions of many pages come at full speed, in whatever way is cheapest.

use super::cluster::{Cluster, until, wall_ms, written};
use annulus_node::config::Limits;
use annulus_node::storage::Space;
use annulus_proto::v1::StatusRequest;
use bytes::Bytes;
use dynamo::object::Object;
use dynamo::preference::MemberIndex;
use dynamo::ring::{Also, Phase, Ring, RingView};
use std::time::{Duration, Instant};

const JOINER: usize = 3;
const PARTITIONS: u32 = 16;
const PATIENCE: Duration = Duration::from_secs(30);
const KEYS: u32 = 1600;
const VALUE_BYTES: usize = 16 << 10;

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

/// Has the fourth node get so many objects; returns how many of them were loaded as runs.
async fn joins(limits: Limits, keys: u32) -> usize {
    let mut cluster = Cluster::new(JOINER + 1, PARTITIONS);
    cluster.view = RingView::new(joining(cluster.view.ring())).unwrap();
    let value = |number: u32| number.to_le_bytes().repeat(VALUE_BYTES / 4);
    let written_at = wall_ms() - 1000;
    let object = |number: u32| written(&Object::default(), 1, written_at, &value(number)).encode();
    let key = |number: u32| Bytes::from(format!("key {number}"));
    for node in 0..JOINER {
        cluster.plant(node, (0..keys).map(|number| (key(number), object(number))));
    }
    for node in 0..=JOINER {
        let limits = Limits { disk_reserve_bytes: 0, ..limits.clone() };
        cluster.start(node, limits).await;
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

/// Of partitions that are a page each, every page is the last one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fits_into_a_page_is_copied_no_faster_than_allowed() {
    let keys = 2 * PARTITIONS;
    let bytes = u64::from(keys) * VALUE_BYTES as u64;
    let began = Instant::now();
    joins(Limits { transfer_bytes_per_second_max: Some(bytes / 2), ..Limits::default() }, keys).await;
    assert!(began.elapsed() >= Duration::from_millis(1500), "{bytes} bytes in {:?}", began.elapsed());
}

//! Hints for a node that is away wait for it without a look at each of them again and again, and arrive when it is back.

use super::cluster::{Cluster, incarnation, until, wall_ms, written};
use annulus_node::config::Limits;
use annulus_node::storage::{Change, Engine, ScanRange, Space};
use bytes::Bytes;
use dynamo::object::Object;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const HINTS: u32 = 2000;
const PAUSE: Duration = Duration::from_millis(20);

fn key(number: u32) -> Bytes {
    Bytes::from(format!("key {number}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_wait_for_who_is_away_at_little_cost_and_arrive_when_it_is_back() {
    let mut cluster = Cluster::new(2, 16);
    let hint = |number: u32| Change::Put {
        space: Space::Hints,
        key: [incarnation(1).as_bytes(), &cluster.storage_key(&key(number))[..]].concat().into(),
        value: written(&Object::default(), 1, wall_ms(), &number.to_be_bytes()).encode(),
    };
    cluster.engines[0].commit(&(0..HINTS).map(hint).collect::<Vec<_>>()).unwrap();
    let limits = || Limits { disk_reserve_bytes: 0, hint_pause: PAUSE, ..Limits::default() };
    cluster.start(0, limits()).await;
    // The pause would have let it go over them a hundred times.
    tokio::time::sleep(PAUSE * 100).await;
    let read = cluster.engines[0].scanned(Space::Hints).items;
    assert!(read >= 2 * u64::from(HINTS), "it counts them, and has a look at what is oldest: {read}");
    assert!(read <= 12 * u64::from(HINTS), "{read} hints were read for nobody");

    cluster.start(1, limits()).await;
    until("all have arrived", PATIENCE, async || {
        (0..HINTS).all(|number| cluster.stored(1, &key(number)).is_some())
    })
    .await;
    until("none is held any more", PATIENCE, async || {
        cluster.engines[0].scan(Space::Hints, &ScanRange::everything(), 1, 1).unwrap().items.is_empty()
    })
    .await;
    cluster.stop().await;
}

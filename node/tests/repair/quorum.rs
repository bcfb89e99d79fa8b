//! Quorums while lists have another length than n, as they do between a change of n and the end of its moves.

use super::cluster::{Cluster, until, wall_ms, written};
use annulus_node::config::Limits;
use bytes::Bytes;
use dynamo::object::Object;
use dynamo::ring::{Also, Phase, Quorums, RingView};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a node answers to `GET key`.
async fn get(cluster: &Cluster, node: usize) -> String {
    ask(cluster, node, "GET key").await
}

async fn ask(cluster: &Cluster, node: usize, command: &str) -> String {
    let mut client = TcpStream::connect(cluster.client_address(node)).await.unwrap();
    client.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
    let mut reply = vec![0; 512];
    let bytes = client.read(&mut reply).await.unwrap();
    String::from_utf8_lossy(&reply[..bytes]).into_owned()
}

/// n was lowered from 5 to 3, and the lists still have five members: a write is at three of them, so a read has to ask
/// three as well. The two that do not have it must not answer that there is nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_list_is_read_by_a_majority_of_it() {
    let mut cluster = Cluster::new(5, 16);
    let mut ring = cluster.view.ring().clone();
    ring.quorums = Quorums { n: 3, r: 2, w: 2, sloppy: false };
    cluster.view = RingView::new(ring).unwrap();
    let value = written(&Object::default(), 1, wall_ms() - 60_000, b"value").encode();
    for node in 0..3 {
        cluster.plant(node, [(Bytes::from_static(b"key"), value.clone())]);
    }
    // Nobody repairs: what is missing stays so for this test.
    let limits = Limits { disk_reserve_bytes: 0, repair_pause: Duration::from_secs(3600), ..Limits::default() };
    for node in [3, 4] {
        cluster.start(node, limits.clone()).await;
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        let reply = get(&cluster, 3).await;
        assert!(reply.starts_with('-'), "two of five answered {reply:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.start(2, limits).await;
    while get(&cluster, 3).await != "$5\r\nvalue\r\n" {
        assert!(began.elapsed() < PATIENCE, "three of five do not answer: {}", get(&cluster, 3).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.stop().await;
}

/// A write that comes to a node which has yet to be filled takes the place of what the others have, and does not stand
/// beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_being_filled_has_others_coordinate() {
    let mut cluster = Cluster::new(4, 16);
    let mut ring = cluster.view.ring().clone();
    ring.quorums = Quorums { n: 3, r: 2, w: 2, sloppy: false };
    for placement in &mut ring.partitions {
        let list = placement.preference.split_off(1);
        placement.preference.extend(&list[..2]);
        placement.also = Some(Also { list, phase: Phase::Filling });
    }
    cluster.view = RingView::new(ring).unwrap();
    let partition = cluster.view.partition(cluster.view.token(b"key"));
    let placement = cluster.view.placement(partition).unwrap();
    let (holders, filling) = (placement.preference.clone(), placement.also.as_ref().unwrap().list[2]);
    let value = written(&Object::default(), 1, wall_ms() - 60_000, b"value").encode();
    for member in &holders {
        cluster.plant(usize::from(member.0), [(Bytes::from_static(b"key"), value.clone())]);
    }
    // Nothing is copied, nor repaired.
    let repair_pause = Duration::from_secs(3600);
    let limits = Limits { disk_reserve_bytes: 0, repair_pause, parallel_pulls_max: 0, ..Limits::default() };
    for node in 0..4 {
        cluster.start(node, limits.clone()).await;
    }
    let at = usize::from(filling.0);
    until("the others answer", PATIENCE, async || get(&cluster, at).await == "$5\r\nvalue\r\n").await;
    assert_eq!(ask(&cluster, at, "SET key other").await, "+OK\r\n");
    for member in holders.iter().chain([&filling]) {
        let stored = || cluster.stored(usize::from(member.0), b"key");
        let what = format!("{member} gets it");
        until(&what, PATIENCE, async || stored().is_some_and(|object| object != value)).await;
        let values = stored().map(|object| Object::decode(object).unwrap().sibling_count());
        assert_eq!(values, Some(1), "what was there stands beside what was written, at {member}");
    }
    cluster.stop().await;
}

/// n is being lowered from 5 to 3: a write that both who go have, and one of those who stay, would be missed by a read
/// that asks the other two. So they compare before the shorter list serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_stay_in_a_shorter_list_get_what_those_who_go_have() {
    let mut cluster = Cluster::new(5, 16);
    let mut ring = cluster.view.ring().clone();
    ring.quorums = Quorums { n: 3, r: 2, w: 2, sloppy: false };
    for placement in &mut ring.partitions {
        let list = placement.preference[..3].to_vec();
        placement.also = Some(Also { list, phase: Phase::Filling });
    }
    cluster.view = RingView::new(ring).unwrap();
    let partition = cluster.view.partition(cluster.view.token(b"key"));
    let list = cluster.view.placement(partition).unwrap().preference.clone();
    let value = written(&Object::default(), 1, wall_ms() - 60_000, b"value").encode();
    for member in &list[2..] {
        cluster.plant(usize::from(member.0), [(Bytes::from_static(b"key"), value.clone())]);
    }
    let limits = Limits { disk_reserve_bytes: 0, repair_pause: Duration::from_secs(3600), ..Limits::default() };
    for node in 0..5 {
        cluster.start(node, limits.clone()).await;
    }
    let began = Instant::now();
    for member in &list[..2] {
        while cluster.stored(usize::from(member.0), b"key").as_ref() != Some(&value) {
            assert!(began.elapsed() < PATIENCE, "{member} stays and does not get it");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    cluster.stop().await;
}

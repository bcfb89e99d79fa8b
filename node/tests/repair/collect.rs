//! What is deleted or has expired leaves the disks, and nothing of it comes back.

use super::cluster::{Cluster, incarnation, put, until, wall_ms, written};
use annulus_node::config::Limits;
use annulus_node::storage::{Change, Engine, Space};
use annulus_proto::v1::collect_request::Stage;
use annulus_proto::v1::peer_client::PeerClient;
use annulus_proto::v1::{CollectRequest, DeadObject};
use bytes::Bytes;
use dynamo::object::{Object, Payload};
use dynamo::reconcile::item_hash;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const NODES: usize = 3;
const PAUSE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(30);

fn limits() -> Limits {
    Limits {
        disk_reserve_bytes: 0,
        repair_pause: PAUSE,
        collect_pause: PAUSE,
        replica_timeout: Duration::from_millis(500),
        ..Limits::default()
    }
}

fn key(number: usize) -> Bytes {
    Bytes::from(format!("key:{number:04}"))
}

fn live(number: usize) -> Object {
    written(&Object::default(), 1, wall_ms() - 60_000, &[number as u8; 50])
}

fn deleted(before: &Object) -> Object {
    put(before, 2, wall_ms() - 30_000, None, Payload::Tombstone)
}

fn expiring(number: usize, at_ms: u64) -> Object {
    let payload = Payload::Bytes(Bytes::from(vec![number as u8; 50]));
    put(&Object::default(), 1, wall_ms() - 60_000, Some(at_ms), payload)
}

/// How many of the keys a node has on its disk.
fn stored(cluster: &Cluster, node: usize, keys: impl IntoIterator<Item = usize>) -> usize {
    keys.into_iter().filter(|&number| cluster.stored(node, &key(number)).is_some()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_and_expired_keys_leave_every_disk_and_the_others_stay() {
    const EACH: usize = 1500;
    let hour_ms = 3_600_000;
    let mut cluster = Cluster::new(NODES, 64);
    // By turns: live, deleted, expired, to expire in an hour.
    let now = wall_ms();
    let object = |number: usize| match number % 4 {
        0 => live(number),
        1 => deleted(&live(number)),
        2 => expiring(number, now - 1000),
        _ => expiring(number, now + hour_ms),
    };
    let items: Vec<(Bytes, Bytes)> = (0..4 * EACH).map(|number| (key(number), object(number).encode())).collect();
    for node in 0..NODES {
        cluster.plant(node, items.clone());
    }
    for node in 0..NODES {
        cluster.start(node, limits()).await;
    }
    let count = |cluster: &Cluster, rest: usize| -> usize {
        (0..NODES).map(|node| stored(cluster, node, (rest..4 * EACH).step_by(4))).sum()
    };
    until("deleted keys are gone", PATIENCE, async || count(&cluster, 1) == 0).await;
    until("expired keys are gone", PATIENCE, async || count(&cluster, 2) == 0).await;
    assert_eq!(count(&cluster, 3), NODES * EACH, "their time has not come");
    cluster.ahead_ms.store(hour_ms + 1000, Ordering::Relaxed);
    until("keys are gone that have expired since the start", PATIENCE, async || count(&cluster, 3) == 0).await;
    assert_eq!(count(&cluster, 0), NODES * EACH, "live keys stay");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_brings_nothing_back() {
    let mut cluster = Cluster::new(NODES, 64);
    let old: Vec<(Bytes, Bytes)> = (0..100).map(|number| (key(number), live(number).encode())).collect();
    let dead: Vec<(Bytes, Bytes)> =
        (0..100).map(|number| (key(number), deleted(&live(number)).encode())).collect();
    for (node, items) in [(0, &dead), (1, &dead), (2, &old)] {
        cluster.plant(node, items.clone());
    }
    for node in 0..2 {
        cluster.start(node, limits()).await;
    }
    tokio::time::sleep(PAUSE * 15).await;
    let marks = (0..2).map(|node| stored(&cluster, node, 0..100)).sum::<usize>();
    assert_eq!(marks, 200, "nothing is collected while a member is away");
    cluster.start(2, limits()).await;
    let left = |cluster: &Cluster| (0..NODES).map(|node| stored(cluster, node, 0..100)).sum::<usize>();
    until("all of it is gone", PATIENCE, async || left(&cluster) == 0).await;
    tokio::time::sleep(PAUSE * 10).await;
    assert_eq!(left(&cluster), 0, "and stays so");
    cluster.stop().await;
}

/// Asks a node directly what it says to a stage of a collection; positions that it refuses.
async fn refused(cluster: &Cluster, node: usize, stage: Stage, objects: &[DeadObject]) -> Vec<u32> {
    let mut client = PeerClient::connect(format!("http://{}", cluster.peer_address(node))).await.unwrap();
    let request = CollectRequest {
        cluster: Bytes::copy_from_slice(cluster.view.ring().cluster.as_bytes()),
        epoch: cluster.view.epoch(),
        incarnation: Bytes::copy_from_slice(incarnation(node).as_bytes()),
        stage: stage.into(),
        objects: objects.to_vec(),
    };
    let mut refused = client.collect(request).await.unwrap().into_inner().refused;
    refused.sort_unstable();
    refused.dedup();
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_refuses_what_it_has_otherwise_and_what_a_hint_may_be_for() {
    let mut cluster = Cluster::new(NODES, 64);
    let dead = deleted(&live(0)).encode();
    let items = [
        (key(0), dead.clone()),
        (key(1), dead.clone()),
        // Not dead; and another object than the one that is asked about.
        (key(2), live(2).encode()),
        (key(3), put(&live(3), 3, wall_ms() - 30_000, None, Payload::Tombstone).encode()),
    ];
    cluster.plant(0, items.clone());
    // An older value for a member that is away.
    let mut hint_key = incarnation(2).as_bytes().to_vec();
    hint_key.extend_from_slice(&cluster.storage_key(&key(1)));
    let hint = Change::Put { space: Space::Hints, key: Bytes::from(hint_key), value: live(0).encode() };
    cluster.engines[0].commit(&[hint]).unwrap();
    cluster.start(0, limits()).await;
    let object = |number: usize, object: &Bytes| DeadObject {
        key: key(number),
        hash: item_hash(&cluster.storage_key(&key(number)), object),
    };
    let mut objects: Vec<DeadObject> = (0..2).map(|number| object(number, &dead)).collect();
    objects.extend([object(2, &live(2).encode()), object(3, &dead), object(4, &dead)]);
    assert_eq!(refused(&cluster, 0, Stage::Confirm, &objects).await, [2, 3, 4]);
    assert_eq!(refused(&cluster, 0, Stage::Check, &objects).await, [1, 2, 3, 4], "a hint is held for 1");
    assert_eq!(refused(&cluster, 0, Stage::Remove, &objects).await, [2, 3, 4]);
    assert_eq!(stored(&cluster, 0, 0..4), 2, "only what was so is gone");
    cluster.stop().await;
}

/// A write whose copies are still on their way could bring back what is collected in the meantime.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_waits_for_writes_that_are_under_way() {
    let mut cluster = Cluster::new(NODES, 64);
    for node in 0..NODES {
        cluster.start(node, limits()).await;
    }
    let mut client = TcpStream::connect(cluster.client_address(0)).await.unwrap();
    let mut set = async |number: usize| {
        let request = format!("SET key:{number:04} value\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut reply = [0; 5];
        client.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"+OK\r\n");
    };
    let everywhere = |number: usize| (0..NODES).all(|node| stored(&cluster, node, [number]) == 1);
    set(1).await;
    // Everyone is connected, and heartbeats are known well enough.
    until("the first write's copies", PATIENCE, async || everywhere(1)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.hold.store(true, Ordering::Relaxed);
    set(0).await;
    {
        let settle = refused(&cluster, 0, Stage::Settle, &[]);
        tokio::pin!(settle);
        let early = tokio::time::timeout(Duration::from_millis(300), &mut settle).await;
        assert!(early.is_err(), "it did not wait for the copies");
        cluster.hold.store(false, Ordering::Relaxed);
        assert!(settle.await.is_empty());
    }
    until("the held copies", PATIENCE, async || everywhere(0)).await;
    cluster.stop().await;
}

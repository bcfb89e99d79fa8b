//! A node on its way out: what it alone has it hands over, it gives up its data directory instead of emptying it, and takes
//! that back if it is wanted again.

use super::cluster::{Cluster, until, wall_ms, written};
use annulus_node::config::Limits;
use annulus_node::ring_state::is_retired;
use annulus_proto::v1::{InstallRingRequest, NodeStatus, StatusRequest};
use bytes::Bytes;
use dynamo::object::Object;
use dynamo::preference::MemberIndex;
use dynamo::reconcile::LEAVES;
use dynamo::ring::{MemberState, Ring, RingView, to_json};
use std::sync::atomic::Ordering;
use std::time::Duration;

const LEAVER: usize = 3;
const PATIENCE: Duration = Duration::from_secs(20);

/// The ring of all four, and the same with lists of three that the last of them is in none of.
fn without(ring: &Ring) -> Ring {
    let leaver = MemberIndex(LEAVER as u16);
    let mut next = ring.clone();
    next.epoch += 1;
    next.quorums.n -= 1;
    next.quorums.w = 2;
    next.members[LEAVER].state = MemberState::Leaving;
    for placement in &mut next.partitions {
        placement.preference.retain(|member| *member != leaver);
        placement.since = next.epoch;
    }
    next
}

async fn status(cluster: &Cluster, node: usize) -> NodeStatus {
    cluster.control(node).await.status(StatusRequest {}).await.unwrap().into_inner()
}

async fn install(cluster: &Cluster, ring: &Ring) {
    for node in 0..=LEAVER {
        let request = InstallRingRequest { ring: to_json(ring).into() };
        cluster.control(node).await.install_ring(request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_hands_over_what_it_has_and_gives_up_the_rest_unless_it_is_wanted_again() {
    let mut cluster = Cluster::new(LEAVER + 1, 16);
    let everyone = cluster.view.ring().clone();
    let leaving = without(&everyone);
    cluster.view = RingView::new(leaving.clone()).unwrap();
    let object = |number: u32| written(&Object::default(), 1, wall_ms() - 1000, &number.to_be_bytes()).encode();
    let key = |number: u32| Bytes::from(format!("key {number}"));
    // What everyone has, and what nobody has but the one that leaves.
    for node in 0..=LEAVER {
        let first = if node == LEAVER { 0 } else { 20 };
        cluster.plant(node, (first..400).map(|number| (key(number), object(number))));
    }
    for node in 0..=LEAVER {
        cluster.start(node, Limits { disk_reserve_bytes: 0, ..Limits::default() }).await;
    }
    until("it may go", PATIENCE, async || {
        let status = status(&cluster, LEAVER).await;
        status.epoch == leaving.epoch && status.listed_partitions + status.leftover_partitions == 0
    })
    .await;
    assert!(is_retired(cluster.engines[LEAVER].as_ref()).unwrap(), "it said so before it noted it");
    for number in 0..400 {
        let copies = (0..LEAVER).filter(|node| cluster.stored(*node, &key(number)).is_some()).count();
        assert!(copies >= 2, "key {number} is handed over to w of those who hold it: {copies}");
        assert!(cluster.stored(LEAVER, &key(number)).is_some(), "and nothing had to be dropped for that");
    }

    // Wanted again: in the commit that makes it a holder what it has counts again.
    let mut back = everyone.clone();
    back.epoch = leaving.epoch + 1;
    back.partitions.iter_mut().for_each(|placement| placement.since = back.epoch);
    install(&cluster, &back).await;
    assert!(!is_retired(cluster.engines[LEAVER].as_ref()).unwrap());
    install(&cluster, &without(&back)).await;
    until("it may go again", PATIENCE, async || status(&cluster, LEAVER).await.leftover_partitions == 0).await;
    assert!(is_retired(cluster.engines[LEAVER].as_ref()).unwrap());
    cluster.stop().await;
}

/// What is written while it waits for its turn makes a node's leftovers differ, key by key, from what the holders have.
/// To ask each of them about each key would take far more than the keys themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_overwritten_meanwhile_is_not_asked_about_key_by_key() {
    const KEYS: u32 = 2000;
    let mut cluster = Cluster::new(LEAVER + 1, 16);
    cluster.view = RingView::new(without(cluster.view.ring())).unwrap();
    let (mut older, mut newer) = (Vec::new(), Vec::new());
    for number in 0..KEYS {
        let key = Bytes::from(format!("key {number}"));
        let before = written(&Object::default(), 1, wall_ms() - 2000, b"before");
        newer.push((key.clone(), written(&before, 1, wall_ms() - 1000, b"after").encode()));
        older.push((key, before.encode()));
    }
    cluster.plant(LEAVER, older);
    let limits = Limits { disk_reserve_bytes: 0, ..Limits::default() };
    for node in 0..LEAVER {
        cluster.plant(node, newer.iter().cloned());
        cluster.start(node, limits.clone()).await;
    }
    let counted = cluster.wire.clone();
    let wire = || counted.load(Ordering::Relaxed);
    until("they have met", PATIENCE, async || wire() > 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = wire();
    cluster.start(LEAVER, limits).await;
    until("it may go", PATIENCE, async || status(&cluster, LEAVER).await.leftover_partitions == 0).await;
    // Each holder is told the sums of all leaves first.
    let to_each = (wire() - before) / LEAVER as u64 - LEAVES as u64 * size_of::<u64>() as u64;
    let for_each = to_each / u64::from(KEYS);
    println!("{for_each} bytes on the wire for each key and holder");
    assert!(for_each < 150, "{for_each} bytes on the wire for each key and holder");
    for (key, object) in &newer {
        assert!((0..LEAVER).all(|node| cluster.stored(node, key).as_ref() == Some(object)));
    }
    cluster.stop().await;
}

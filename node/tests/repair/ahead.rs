//! A node whose ring is older than a sender's answers at once about partitions whose lists are the same in both.

use super::cluster::{Cluster, incarnation};
use super::sender::Sender;
use annulus_node::config::Limits;
use annulus_proto::v1::{Frame, Read, Reply, Request, reply, request::Operation};
use bytes::Bytes;
use dynamo::ring::to_json;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_requests_about_changed_lists_wait_for_the_ring_of_their_sender() {
    let mut cluster = Cluster::new(3, 16);
    cluster.start(0, Limits { disk_reserve_bytes: 0, ..Limits::default() }).await;
    let mut newer = cluster.view.ring().clone();
    newer.epoch += 1;
    let partition_of = |key: &Bytes| cluster.view.partition(cluster.view.token(key));
    let changed = Bytes::from_static(b"changed");
    let partition = partition_of(&changed);
    let mut keys = (0..).map(|number: u32| Bytes::from(number.to_string()));
    let same = keys.find(|key| partition_of(key) != partition).unwrap();
    let placement = &mut newer.partitions[partition as usize];
    placement.preference.rotate_left(1);
    placement.since = newer.epoch;

    let mut sender = Sender::new(&cluster, &newer, incarnation(0)).await;
    let request = |id, key: &Bytes, since| Request {
        id,
        key: key.clone(),
        since,
        operation: Some(Operation::Read(Read { known: None })),
    };
    let requests = vec![request(1, &changed, newer.epoch), request(2, &same, newer.epoch - 1)];
    sender.send(Frame { epoch: newer.epoch, requests, ..Frame::default() }).await;
    let nothing = |id| vec![Reply { id, result: Some(reply::Result::Object(Bytes::new())) }];
    assert_eq!(
        tokio::time::timeout(PATIENCE, sender.replies()).await.unwrap(),
        nothing(2),
        "before any ring came"
    );

    let ring = Bytes::from(to_json(&newer));
    sender.send(Frame { epoch: newer.epoch, ring, ..Frame::default() }).await;
    assert_eq!(tokio::time::timeout(PATIENCE, sender.replies()).await.unwrap(), nothing(1));

    // Now it is the sender that is behind, and only where the lists have changed.
    let requests = vec![request(3, &changed, newer.epoch - 1), request(4, &same, newer.epoch - 1)];
    sender.send(Frame { epoch: newer.epoch - 1, requests, ..Frame::default() }).await;
    let replies = tokio::time::timeout(PATIENCE, sender.replies()).await.unwrap();
    assert!(
        matches!(&replies[..], [Reply { id: 3, result: Some(reply::Result::StaleEpoch(_)) }, same] if *same == nothing(4)[0]),
        "{replies:?}"
    );
    cluster.stop().await;
}

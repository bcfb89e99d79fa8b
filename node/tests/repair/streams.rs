//! Each member has one stream to a node, and begins another only when it has given that one up.

use super::cluster::{Cluster, incarnation};
use super::sender::Sender;
use annulus_node::config::Limits;
use annulus_proto::v1::{Frame, Read, Request, request::Operation};
use bytes::Bytes;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// A node that has lost its volume is two members for a while, at one address: who looks for the one finds the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_looks_for_another_incarnation_does_not_end_the_stream_with_this_one() {
    let mut cluster = Cluster::new(3, 16);
    cluster.start(0, Limits { disk_reserve_bytes: 0, ..Limits::default() }).await;
    let ring = cluster.view.ring().clone();
    let next = async |sender: &mut Sender| tokio::time::timeout(PATIENCE, sender.frame()).await.unwrap();

    let mut stream = Sender::new(&cluster, &ring, incarnation(0)).await;
    next(&mut stream).await.unwrap();
    let mut other = Sender::new(&cluster, &ring, incarnation(9)).await;
    let hello = next(&mut other).await.unwrap().hello.unwrap();
    assert_eq!(hello.incarnation, incarnation(0).as_bytes()[..], "it hears whom it has found");
    assert!(next(&mut other).await.is_err(), "and no more");

    let read = Some(Operation::Read(Read { known: None }));
    let request = Request { id: 1, key: Bytes::from_static(b"key"), since: ring.epoch, operation: read };
    stream.send(Frame { epoch: ring.epoch, requests: vec![request.clone()], ..Frame::default() }).await;
    assert_eq!(tokio::time::timeout(PATIENCE, stream.replies()).await.unwrap().len(), 1);

    let mut newer = Sender::new(&cluster, &ring, incarnation(0)).await;
    next(&mut newer).await.unwrap();
    let ended = async { while stream.frame().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("the stream before is given up");
    newer.send(Frame { epoch: ring.epoch, requests: vec![request], ..Frame::default() }).await;
    assert_eq!(tokio::time::timeout(PATIENCE, newer.replies()).await.unwrap().len(), 1);
    cluster.stop().await;
}

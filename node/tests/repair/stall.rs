//! A newcomer whose source has fallen silent says so, and whom it waits for.

use super::cluster::{Cluster, wall_ms, written};
use annulus_node::config::Limits;
use annulus_proto::v1::StatusRequest;
use bytes::Bytes;
use dynamo::object::Object;
use dynamo::preference::MemberIndex;
use dynamo::ring::{Also, Phase, RingView};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What a user is promised: any stall gives its reason within this time.
const REASON_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_copy_names_whom_it_waits_for_within_ten_seconds() {
    let mut cluster = Cluster::new(2, 16);
    let mut ring = cluster.view.ring().clone();
    for placement in &mut ring.partitions {
        placement.preference = vec![MemberIndex(0)];
        let list = vec![MemberIndex(0), MemberIndex(1)];
        placement.also = Some(Also { list, phase: Phase::Filling });
    }
    cluster.view = RingView::new(ring).unwrap();
    let value = written(&Object::default(), 1, wall_ms() - 60_000, b"value").encode();
    cluster.plant(0, (0..100).map(|number| (Bytes::from(format!("key {number}")), value.clone())));
    cluster.hold.store(true, Ordering::Relaxed);
    let limits = Limits { disk_reserve_bytes: 0, ..Limits::default() };
    cluster.start(0, limits.clone()).await;
    cluster.start(1, limits).await;
    let began = Instant::now();
    let mut control = cluster.control(1).await;
    loop {
        let status = control.status(StatusRequest {}).await.unwrap().into_inner();
        assert!(status.synced.is_empty() && status.copying_partitions > 0, "nothing gets through");
        if status.copying_error.contains("node-0") {
            break;
        }
        assert!(began.elapsed() < REASON_WITHIN, "it says only {:?}", status.copying_error);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.hold.store(false, Ordering::Relaxed);
    while control.status(StatusRequest {}).await.unwrap().into_inner().synced.len() < 16 {
        assert!(began.elapsed() < 5 * REASON_WITHIN, "it does not go on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let status = control.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.copying_error, "");
    cluster.stop().await;
}

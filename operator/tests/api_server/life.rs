//! One life, told from its beginning to its end.

use super::fate::Fate;
use super::stage::{NAME, Stage};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

#[allow(clippy::too_many_lines)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs KUBECONFIG to name an API server with the CRD applied"]
async fn a_cluster_lives_through_everything() {
    let mut stage = Stage::new().await;
    let sets = stage.api::<StatefulSet>();
    stage.operate(&Fate::kind()).await;
    stage.create(json!({"partitions": 64, "rebalance": {"parallelMoves": 16}})).await;
    stage.settled().await;

    // kubectl scale, and an operator that dies in the middle of it.
    let scale = json!({"spec": {"replicas": 5}});
    stage.clusters.patch_scale(NAME, &PatchParams::default(), &Patch::Merge(scale)).await.unwrap();
    stage.until("a rebalance", |_, status| status.rebalance.is_some()).await;
    stage.kill_operators().await;
    stage.operate(&Fate::kind()).await;
    stage.settled().await;
    let last = stage.status().await.last_rebalance.unwrap();
    assert_eq!((last.from, last.to), (3, 5));
    assert!(last.bytes_moved > 0);

    // The ring is deleted.
    let rings = stage.api::<ConfigMap>();
    let epoch = stage.status().await.ring.unwrap().epoch;
    rings.delete(&format!("{NAME}-ring"), &DeleteParams::default()).await.unwrap();
    let ring_name = format!("{NAME}-ring");
    stage.eventually("the ring's return", async || rings.get_opt(&ring_name).await.unwrap().is_some()).await;
    assert_eq!(stage.status().await.ring.unwrap().epoch, epoch);

    // Somebody scales the StatefulSet.
    let scale = json!({"spec": {"replicas": 2}});
    sets.patch_scale(NAME, &PatchParams::default(), &Patch::Merge(scale)).await.unwrap();
    let replicas = async || sets.get(NAME).await.unwrap().spec.unwrap().replicas;
    stage.eventually("five replicas again", async || replicas().await == Some(5)).await;
    let events = stage.api::<Event>();
    let told = async || {
        let events = events.list(&ListParams::default()).await.unwrap();
        events.iter().any(|e| e.reason.as_deref() == Some("StatefulSetScaledBack"))
    };
    stage.eventually("an Event about it", told).await;
    // What went by another's hand went without proof.
    stage.nodes.lock().unwrap().violations.clear();
    stage.settled().await;

    // A Service is deleted.
    let services = stage.api::<Service>();
    services.delete(NAME, &DeleteParams::default()).await.unwrap();
    stage.eventually("the Service's return", async || services.get_opt(NAME).await.unwrap().is_some()).await;

    // Scale in, with a change of mind on the way.
    stage.patch(json!({"replicas": 3})).await.unwrap();
    stage.until("a rebalance", |_, status| status.rebalance.is_some()).await;
    stage.patch(json!({"replicas": 4})).await.unwrap();
    stage.settled().await;
    stage.patch(json!({"replicas": 3})).await.unwrap();
    stage.settled().await;
    let claims = stage.api::<PersistentVolumeClaim>();
    let of_cluster = ListParams::default().labels(&format!("annulus.dev/cluster={NAME}"));
    assert_eq!(claims.list(&of_cluster).await.unwrap().items.len(), 3);

    // Another image: every pod restarts, one at a time.
    let pods = stage.api::<Pod>();
    let before: Vec<_> = pods.list(&of_cluster).await.unwrap().iter().map(ResourceExt::uid).collect();
    stage.patch(json!({"image": "node:2"})).await.unwrap();
    let all_new = async || {
        let now = pods.list(&of_cluster).await.unwrap();
        now.items.len() == 3 && now.iter().all(|pod| !before.contains(&pod.uid()))
    };
    stage.eventually("three new pods", all_new).await;
    stage.settled().await;

    // n grows with the cluster.
    stage.patch(json!({"replicas": 5, "replicationFactor": 5})).await.unwrap();
    stage.settled().await;

    stage.end().await;
}

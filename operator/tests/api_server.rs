//! The operator against a real API server and its StatefulSet, garbage and disruption controllers, without kubelets:
//! this test gives pods their addresses, and answers for their nodes over gRPC.
//!
//! It needs `KUBECONFIG` to name an API server with the CRD applied, and is therefore not run by default:
//! `cargo test -p annulus-operator --test api_server -- --ignored`
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use annulus_operator::build::Defaults;
use annulus_operator::controller::Operator;
use annulus_operator::crd::{KeyValueCluster, KeyValueClusterStatus};
use annulus_operator::metrics::Metrics;
use annulus_operator::nodes::GrpcNodes;
use annulus_proto::v1::control_server::{Control, ControlServer};
use annulus_proto::v1::{
    GetRingRequest, GetRingResponse, InstallRingRequest, InstallRingResponse, NodeStatus, StatusRequest,
};
use dynamo::ring;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};
use uuid::Uuid;
use world::node::FakeNode;

const NAMESPACE: &str = "default";
const NAME: &str = "api-server-test";

type Nodes = Arc<Mutex<BTreeMap<u32, Running>>>;

/// A node that answers on an address of its own, with the data of the claim of this UID.
struct Running {
    claim: String,
    node: FakeNode,
    cluster: Uuid,
    server: JoinHandle<()>,
}

struct Door {
    nodes: Nodes,
    ordinal: u32,
}

impl Door {
    fn with<T>(&self, act: impl FnOnce(&mut Running) -> T) -> Result<T, Status> {
        let mut nodes = self.nodes.lock().unwrap();
        nodes.get_mut(&self.ordinal).map(act).ok_or_else(|| Status::unavailable("stopped"))
    }
}

#[tonic::async_trait]
impl Control for Door {
    async fn install_ring(
        &self,
        request: Request<InstallRingRequest>,
    ) -> Result<Response<InstallRingResponse>, Status> {
        let ring =
            ring::from_json(&request.into_inner().ring).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let epoch = self.with(|running| {
            if ring.epoch == 1 && running.node.ring.is_none() {
                running.node.begin(&ring);
            }
            running.node.install(&ring)
        })?;
        Ok(Response::new(InstallRingResponse { epoch }))
    }

    async fn get_ring(&self, _: Request<GetRingRequest>) -> Result<Response<GetRingResponse>, Status> {
        let json = self.with(|running| running.node.ring.as_ref().map(ring::to_json))?;
        Ok(Response::new(GetRingResponse { ring: json.unwrap_or_default().into() }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<NodeStatus>, Status> {
        Ok(Response::new(self.with(|running| running.node.status(running.cluster))?))
    }
}

/// Plays kubelet: pods get an address and become ready, and a node answers there.
async fn kubelet(client: Client, nodes: Nodes) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client, NAMESPACE);
    let ours = ListParams::default().labels(&format!("annulus.dev/cluster={NAME}"));
    let mut rng = StdRng::seed_from_u64(1);
    let mut stopped: BTreeMap<String, FakeNode> = BTreeMap::new();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let Ok(list) = pods.list(&ours).await else {
            continue;
        };
        let ordinals: Vec<u32> =
            list.iter().filter_map(|p| p.name_any().rsplit('-').next()?.parse().ok()).collect();
        let gone: Vec<u32> = nodes.lock().unwrap().keys().copied().filter(|o| !ordinals.contains(o)).collect();
        for ordinal in gone {
            let running = nodes.lock().unwrap().remove(&ordinal).unwrap();
            running.server.abort();
            stopped.insert(running.claim, running.node);
        }
        for (pod, ordinal) in list.iter().zip(&ordinals) {
            if pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some()) {
                continue;
            }
            let Ok(claim) = claims.get(&format!("data-{}", pod.name_any())).await else {
                continue;
            };
            let uid = claim.labels()["annulus.dev/cluster-uid"].parse().unwrap();
            // The pod may have been replaced between two looks.
            let earlier = nodes.lock().unwrap().remove(ordinal);
            if let Some(earlier) = earlier {
                earlier.server.abort();
                let _ = earlier.server.await;
                stopped.insert(earlier.claim, earlier.node);
            }
            start(&nodes, *ordinal, claim.uid().unwrap(), uid, &mut stopped);
            let status = running(address(*ordinal));
            let _ = pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await;
        }
        let mut nodes = nodes.lock().unwrap();
        let sources = nodes.values().map(|r| (r.node.incarnation, r.node.holds.clone())).collect();
        nodes.values_mut().for_each(|running| running.node.work(&sources, &mut rng));
    }
}

/// The status of a pod that runs and is ready.
fn running(address: Ipv4Addr) -> serde_json::Value {
    json!({"status": {
        "podIP": address.to_string(),
        "podIPs": [{"ip": address.to_string()}],
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{
            "name": "node", "ready": true, "restartCount": 0, "image": "x", "imageID": "x",
            "state": {"running": {}}
        }]
    }})
}

fn address(ordinal: u32) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 77, u8::try_from(ordinal).unwrap() + 1)
}

fn start(nodes: &Nodes, ordinal: u32, claim: String, cluster: Uuid, stopped: &mut BTreeMap<String, FakeNode>) {
    let node = stopped.remove(&claim).unwrap_or_else(|| FakeNode::new(Uuid::new_v4()));
    let door = Door { nodes: nodes.clone(), ordinal };
    let listen = SocketAddr::from((address(ordinal), 7400));
    let server = tokio::spawn(async move {
        let service = ControlServer::new(door);
        tonic::transport::Server::builder().add_service(service).serve(listen).await.unwrap();
    });
    nodes.lock().unwrap().insert(ordinal, Running { claim, node, cluster, server });
}

struct Stage {
    client: Client,
    clusters: Api<KeyValueCluster>,
    operator: Option<JoinHandle<()>>,
}

impl Stage {
    fn operate(&mut self) {
        let defaults =
            Defaults { node_image: Some("node:1".to_owned()), operator_namespace: NAMESPACE.to_owned() };
        let nodes = Arc::new(GrpcNodes { timeout: Duration::from_millis(1500) });
        let mut operator = Operator::new(self.client.clone(), nodes, defaults, Arc::new(Metrics::default()));
        operator.namespace = Some(NAMESPACE.to_owned());
        operator.resync = Duration::from_secs(5);
        self.operator = Some(tokio::spawn(Arc::new(operator).run(std::future::pending())));
    }

    /// The operator dies where it stands, and another starts.
    async fn replace_operator(&mut self) {
        let operator = self.operator.take().unwrap();
        operator.abort();
        let _ = operator.await;
        self.operate();
    }

    async fn status(&self) -> KeyValueClusterStatus {
        self.clusters.get(NAME).await.unwrap().status.unwrap_or_default()
    }

    async fn until(&self, what: &str, holds: impl Fn(&KeyValueClusterStatus) -> bool) {
        let started = Instant::now();
        loop {
            let status = self.status().await;
            if holds(&status) {
                println!("{what} after {:.1} s", started.elapsed().as_secs_f32());
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(90), "{what} did not happen: {status:#?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn settled(&self, replicas: i32) {
        self.until(&format!("{replicas} run"), |status| {
            status.phase.as_deref() == Some("Running")
                && status.replicas == replicas
                && status.ready_replicas == replicas
                && status.ring.as_ref().is_some_and(|ring| ring.members == replicas)
        })
        .await;
    }

    async fn patch(&self, spec: serde_json::Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.clusters.patch(NAME, &PatchParams::default(), &patch).await.unwrap();
    }

    fn api<T: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<T> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn eventually(&self, what: &str, holds: impl AsyncFn() -> bool) {
        for _ in 0..150 {
            if holds().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("{what} did not happen");
    }
}

// One life, told from its beginning to its end.
#[allow(clippy::too_many_lines)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs KUBECONFIG to name an API server with the CRD applied"]
async fn a_cluster_lives_through_everything() {
    let client = Client::try_default().await.unwrap();
    let clusters: Api<KeyValueCluster> = Api::namespaced(client.clone(), NAMESPACE);
    let _ = clusters.delete(NAME, &DeleteParams::default()).await;
    let kubelet = tokio::spawn(kubelet(client.clone(), Nodes::default()));
    let mut stage = Stage { client, clusters, operator: None };
    let sets = stage.api::<StatefulSet>();
    stage.eventually("the earlier cluster going", async || sets.get_opt(NAME).await.unwrap().is_none()).await;
    stage.operate();

    let cluster: KeyValueCluster = serde_json::from_value(json!({
        "apiVersion": "annulus.dev/v1alpha1", "kind": "KeyValueCluster", "metadata": {"name": NAME},
        "spec": {"partitions": 64, "storage": {"size": "1Gi", "onScaleIn": "Delete", "onDelete": "Delete"},
                 "rebalance": {"parallelMoves": 16}},
    }))
    .unwrap();
    stage.clusters.create(&PostParams::default(), &cluster).await.unwrap();
    stage.settled(3).await;

    // kubectl scale, and an operator that dies in the middle of it.
    let scale = json!({"spec": {"replicas": 5}});
    stage.clusters.patch_scale(NAME, &PatchParams::default(), &Patch::Merge(scale)).await.unwrap();
    stage.until("a rebalance", |status| status.rebalance.is_some()).await;
    stage.replace_operator().await;
    stage.settled(5).await;
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
    stage.settled(5).await;

    // A Service is deleted.
    let services = stage.api::<Service>();
    services.delete(NAME, &DeleteParams::default()).await.unwrap();
    stage.eventually("the Service's return", async || services.get_opt(NAME).await.unwrap().is_some()).await;

    // Scale in, with a change of mind on the way.
    stage.patch(json!({"replicas": 3})).await;
    stage.until("a rebalance", |status| status.rebalance.is_some()).await;
    stage.patch(json!({"replicas": 4})).await;
    stage.settled(4).await;
    stage.patch(json!({"replicas": 3})).await;
    stage.settled(3).await;
    let claims = stage.api::<PersistentVolumeClaim>();
    let of_cluster = ListParams::default().labels(&format!("annulus.dev/cluster={NAME}"));
    assert_eq!(claims.list(&of_cluster).await.unwrap().items.len(), 3);

    // Another image: every pod restarts, one at a time.
    let pods = stage.api::<Pod>();
    let before: Vec<_> = pods.list(&of_cluster).await.unwrap().iter().map(ResourceExt::uid).collect();
    stage.patch(json!({"image": "node:2"})).await;
    let all_new = async || {
        let now = pods.list(&of_cluster).await.unwrap();
        now.items.len() == 3 && now.iter().all(|pod| !before.contains(&pod.uid()))
    };
    stage.eventually("three new pods", all_new).await;
    stage.settled(3).await;

    // n grows with the cluster.
    stage.patch(json!({"replicas": 5, "replicationFactor": 5})).await;
    stage.settled(5).await;

    stage.clusters.delete(NAME, &DeleteParams::default()).await.unwrap();
    let all_gone = async || {
        sets.get_opt(NAME).await.unwrap().is_none()
            && rings.get_opt(&ring_name).await.unwrap().is_none()
            && claims.list(&of_cluster).await.unwrap().items.is_empty()
    };
    stage.eventually("everything going", all_gone).await;
    kubelet.abort();
}

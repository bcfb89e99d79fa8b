//! A cluster on the API server, its operator, and what the tests wait for.

use super::fate::Fate;
use super::kubelet::{Nodes, kubelet};
use annulus_operator::build::Defaults;
use annulus_operator::controller::Operator;
use annulus_operator::crd::{KeyValueCluster, KeyValueClusterStatus};
use annulus_operator::metrics::Metrics;
use annulus_operator::nodes::GrpcNodes;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

pub const NAMESPACE: &str = "default";
pub const NAME: &str = "api-server-test";
const LIMIT: Duration = Duration::from_secs(60);
/// Of the operators here, so that a scale takes a second.
const BEAT: Duration = Duration::from_millis(30);

pub struct Stage {
    pub client: Client,
    pub clusters: Api<KeyValueCluster>,
    pub nodes: Arc<Mutex<Nodes>>,
    operators: Vec<JoinHandle<()>>,
    kubelet: JoinHandle<()>,
}

impl Stage {
    /// An empty one: what an earlier run has left goes first.
    pub async fn new() -> Self {
        let client = Client::try_default().await.unwrap();
        let clusters: Api<KeyValueCluster> = Api::namespaced(client.clone(), NAMESPACE);
        let _ = clusters.delete(NAME, &DeleteParams::default()).await;
        let nodes = Arc::new(Mutex::new(Nodes::default()));
        let kubelet = tokio::spawn(kubelet(client.clone(), nodes.clone()));
        let stage = Self { client, clusters, nodes, operators: Vec::new(), kubelet };
        stage.eventually("the earlier cluster going", async || stage.is_empty().await).await;
        stage
    }

    /// Whether nothing of the cluster is left.
    pub async fn is_empty(&self) -> bool {
        let of_cluster = ListParams::default().labels(&format!("annulus.dev/cluster={NAME}"));
        let claims: Api<PersistentVolumeClaim> = self.api();
        let sets: Api<StatefulSet> = self.api();
        sets.get_opt(NAME).await.unwrap().is_none() && claims.list(&of_cluster).await.unwrap().items.is_empty()
    }

    /// Creates the cluster; with these members of the spec beside those that all have.
    pub async fn create(&self, more: serde_json::Value) {
        let mut spec = json!({
            "partitions": 16, "rebalance": {"parallelMoves": 64},
            "storage": {"size": "1Gi", "onScaleIn": "Delete", "onDelete": "Delete"},
            // No host is one of these, so that no kubelet takes the pods.
            "podTemplate": {"nodeSelector": {"annulus.dev/host": "of-a-test"}},
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let cluster: KeyValueCluster = serde_json::from_value(json!({
            "apiVersion": "annulus.dev/v1alpha1", "kind": "KeyValueCluster", "metadata": {"name": NAME}, "spec": spec,
        }))
        .unwrap();
        self.clusters.create(&PostParams::default(), &cluster).await.unwrap();
    }

    /// Starts an operator, beside those that run already.
    pub async fn operate(&mut self, fate: &Fate) {
        self.operate_with(fate, BEAT).await;
    }

    /// The same with another beat.
    pub async fn operate_with(&mut self, fate: &Fate, beat: Duration) {
        let defaults =
            Defaults { node_image: Some("node:1".to_owned()), operator_namespace: NAMESPACE.to_owned() };
        let nodes = Arc::new(GrpcNodes { timeout: Duration::from_millis(1500) });
        let mut operator = Operator::new(fate.client().await, nodes, defaults, Arc::new(Metrics::default()));
        operator.namespace = Some(NAMESPACE.to_owned());
        operator.resync = Duration::from_secs(2);
        operator.beat = beat;
        self.operators.push(tokio::spawn(Arc::new(operator).run(std::future::pending())));
    }

    /// All operators die where they stand.
    pub async fn kill_operators(&mut self) {
        for operator in self.operators.drain(..) {
            operator.abort();
            let _ = operator.await;
        }
    }

    pub async fn status(&self) -> KeyValueClusterStatus {
        self.clusters.get(NAME).await.unwrap().status.unwrap_or_default()
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&KeyValueCluster, &KeyValueClusterStatus) -> bool) {
        let started = Instant::now();
        loop {
            if let Some(cluster) = self.clusters.get_opt(NAME).await.unwrap_or_default() {
                let status = cluster.status.clone().unwrap_or_default();
                if holds(&cluster, &status) {
                    return;
                }
                assert!(started.elapsed() < LIMIT, "{what} did not happen: {status:#?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until everything is as the spec says, and sees that nothing went wrong on the way.
    pub async fn settled(&self) {
        self.until("everything as the spec says", |cluster, status| {
            status.phase.as_deref() == Some("Running")
                && status.observed_generation == cluster.metadata.generation
                && status.replicas == cluster.spec.replicas
                && status.ready_replicas == cluster.spec.replicas
                && status.ring.as_ref().is_some_and(|ring| ring.members == cluster.spec.replicas)
        })
        .await;
        self.nothing_went_wrong();
    }

    pub fn nothing_went_wrong(&self) {
        let violations = &self.nodes.lock().unwrap().violations;
        assert!(violations.is_empty(), "{violations:#?}");
    }

    pub async fn patch(&self, spec: serde_json::Value) -> Result<KeyValueCluster, kube::Error> {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.clusters.patch(NAME, &PatchParams::default(), &patch).await
    }

    pub fn api<T: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<T> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub async fn eventually(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let started = Instant::now();
        while !holds().await {
            assert!(started.elapsed() < LIMIT, "{what} did not happen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Deletes the cluster, and waits until nothing of it is left.
    pub async fn end(mut self) {
        self.nothing_went_wrong();
        self.nodes.lock().unwrap().ending = true;
        self.clusters.delete(NAME, &DeleteParams::default()).await.unwrap();
        self.eventually("everything going", async || self.is_empty().await).await;
        self.kill_operators().await;
        self.kubelet.abort();
        self.nodes.lock().unwrap().stop();
    }
}

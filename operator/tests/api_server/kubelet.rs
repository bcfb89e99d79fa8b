//! Plays the kubelets and the nodes: pods get an address and become ready, and a node answers there. Notes down whatever
//! goes without proof.

use super::stage::{NAME, NAMESPACE};
use super::world::node::{FakeNode, holds};
use annulus_proto::v1::control_server::{Control, ControlServer};
use annulus_proto::v1::{
    GetRingRequest, GetRingResponse, InstallRingRequest, InstallRingResponse, NodeStatus, StatusRequest,
};
use dynamo::ring;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// All nodes, and what has gone wrong with them.
#[derive(Default)]
pub struct Nodes {
    /// By ordinal of their pods.
    running: BTreeMap<u32, Running>,
    /// Of pods that are not there, by the UID of the claim that has their data.
    stopped: BTreeMap<String, FakeNode>,
    /// The whole cluster goes: its pods and volumes may go in any order.
    pub ending: bool,
    /// What must never happen, and did.
    pub violations: Vec<String>,
}

/// A node that answers on an address of its own, with the data of the claim of this UID.
struct Running {
    claim: String,
    node: FakeNode,
    cluster: Uuid,
    server: JoinHandle<()>,
}

type Shared = Arc<Mutex<Nodes>>;

struct Door {
    nodes: Shared,
    ordinal: u32,
}

impl Door {
    fn with<T>(&self, act: impl FnOnce(&mut Running) -> T) -> Result<T, Status> {
        let mut nodes = self.nodes.lock().unwrap();
        nodes.running.get_mut(&self.ordinal).map(act).ok_or_else(|| Status::unavailable("stopped"))
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
        let (epoch, second) = self.with(|running| {
            let second = running.node.ring.as_ref().is_some_and(|held| held.hash_key != ring.hash_key);
            if ring.epoch == 1 && running.node.ring.is_none() {
                running.node.begin(&ring);
            }
            (running.node.install(&ring), second)
        })?;
        if second {
            let mut nodes = self.nodes.lock().unwrap();
            nodes.violations.push(format!("node {} is given a second ring", self.ordinal));
        }
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

impl Nodes {
    /// From now on all that run say that they copy so much a second beside their clients; `None`: they have none.
    pub fn have_clients(&mut self, bytes_per_second: Option<u64>) {
        self.running.values_mut().for_each(|running| running.node.beside_clients = bytes_per_second);
    }

    /// Stops all of them.
    pub fn stop(&mut self) {
        std::mem::take(&mut self.running).into_values().for_each(|running| running.server.abort());
    }

    /// A pod that is gone for good: its node must hold nothing, owe nothing, and be in no list that it knows.
    fn let_go(&mut self, ordinal: u32, node: &FakeNode) {
        if !node.holds.is_empty() || node.hints > 0 {
            let holds = node.holds.len();
            self.violations.push(format!("pod {ordinal} is let go and holds {holds} parts of the ring"));
        }
    }

    /// Every member of an effective list holds the partition.
    fn check_data(&mut self) {
        let all: BTreeMap<Uuid, &FakeNode> = (self.running.values().map(|running| &running.node))
            .chain(self.stopped.values())
            .map(|node| (node.incarnation, node))
            .collect();
        let newest = all.values().filter_map(|node| node.ring.as_ref()).max_by_key(|ring| ring.epoch);
        let Some(newest) = newest else { return };
        let mut missing = Vec::new();
        for (partition, placement) in (0..).zip(&newest.partitions) {
            for index in &placement.preference {
                let member = newest.member(*index).unwrap();
                // There is no data before the first ring; whoever has yet to be told of it holds its part from then on.
                let awaits_first = |node: &&&FakeNode| newest.epoch == 1 && node.ring.is_none();
                let node = all.get(&member.incarnation);
                if node.filter(awaits_first).is_some() {
                    continue;
                }
                if !node.is_some_and(|node| holds(&node.holds, newest, partition)) {
                    missing.push(format!("epoch {}: {} lacks {partition}", newest.epoch, member.name));
                }
            }
        }
        self.violations.extend(missing);
    }
}

/// Runs pods until it is aborted.
pub async fn kubelet(client: Client, nodes: Shared) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), NAMESPACE);
    let sets: Api<StatefulSet> = Api::namespaced(client, NAMESPACE);
    let ours = ListParams::default().labels(&format!("annulus.dev/cluster={NAME}"));
    let mut rng = StdRng::seed_from_u64(1);
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (Ok(list), Ok(kept), Ok(set)) =
            (pods.list(&ours).await, claims.list(&ours).await, sets.get_opt(NAME).await)
        else {
            continue;
        };
        let replicas = set.and_then(|set| set.spec?.replicas).unwrap_or(0);
        stop_those_gone(&nodes, &list.items, &kept.items, replicas);
        for pod in &list.items {
            if pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some()) {
                continue;
            }
            let claim = kept.iter().find(|claim| claim.name_any() == format!("data-{}", pod.name_any()));
            let Some((claim, ordinal)) = claim.zip(ordinal(pod)) else { continue };
            let uid = claim.labels()["annulus.dev/cluster-uid"].parse().unwrap();
            start(&nodes, ordinal, claim.uid().unwrap(), uid).await;
            let status = running(address(ordinal));
            let _ = pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await;
        }
        let mut nodes = nodes.lock().unwrap();
        let sources = nodes.running.values().map(|r| (r.node.incarnation, r.node.holds.clone())).collect();
        nodes.running.values_mut().for_each(|running| running.node.work(&sources, &mut rng));
        if !nodes.ending {
            nodes.check_data();
        }
    }
}

fn ordinal(pod: &Pod) -> Option<u32> {
    pod.name_any().rsplit('-').next()?.parse().ok()
}

/// Stops nodes whose pods are gone, and forgets those whose volumes are.
fn stop_those_gone(nodes: &Shared, pods: &[Pod], claims: &[PersistentVolumeClaim], replicas: i32) {
    let mut nodes = nodes.lock().unwrap();
    let there: Vec<u32> = pods.iter().filter_map(ordinal).collect();
    let gone: Vec<u32> = nodes.running.keys().copied().filter(|ordinal| !there.contains(ordinal)).collect();
    for ordinal in gone {
        let running = nodes.running.remove(&ordinal).unwrap();
        running.server.abort();
        if !nodes.ending && ordinal >= replicas.unsigned_abs() {
            nodes.let_go(ordinal, &running.node);
        }
        nodes.stopped.insert(running.claim, running.node);
    }
    let kept: Vec<String> = claims.iter().filter_map(ResourceExt::uid).collect();
    let lost: Vec<String> = nodes.stopped.keys().filter(|claim| !kept.contains(claim)).cloned().collect();
    for claim in lost {
        let node = nodes.stopped.remove(&claim).unwrap();
        if !nodes.ending && !node.holds.is_empty() {
            nodes.violations.push(format!("a volume with {} parts of the ring is deleted", node.holds.len()));
        }
    }
}

async fn start(nodes: &Shared, ordinal: u32, claim: String, cluster: Uuid) {
    // The pod may have been replaced between two looks.
    let earlier = nodes.lock().unwrap().running.remove(&ordinal);
    if let Some(earlier) = earlier {
        earlier.server.abort();
        let _ = earlier.server.await;
        nodes.lock().unwrap().stopped.insert(earlier.claim, earlier.node);
    }
    let kept = nodes.lock().unwrap().stopped.remove(&claim);
    let node = kept.unwrap_or_else(|| FakeNode::new(Uuid::new_v4()));
    let door = Door { nodes: nodes.clone(), ordinal };
    let listen = SocketAddr::from((address(ordinal), 7400));
    let server = tokio::spawn(async move {
        // An earlier server of this address may take a moment to let go of it.
        let listener = loop {
            match tokio::net::TcpListener::bind(listen).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let service = ControlServer::new(door);
        let _ = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await;
    });
    nodes.lock().unwrap().running.insert(ordinal, Running { claim, node, cluster, server });
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

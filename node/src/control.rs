//! What the operator asks of a node: take this ring, give me yours, how are you.

use crate::coordinator::Coordinator;
use crate::node::Parts;
use crate::replica::Replica;
use crate::ring_state::Installed;
use annulus_proto::v1::control_server::{Control as ControlApi, ControlServer};
use annulus_proto::v1::{
    GetRingRequest, GetRingResponse, InstallRingRequest, InstallRingResponse, Moved, NodeStatus, StatusRequest,
    Synced,
};
use bytes::Bytes;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Largest ring document taken: Q = 16384 with n = 5 while every partition moves stays below.
const RING_BYTES_MAX: usize = 8 << 20;

/// The `Control` service of a node.
pub struct Control {
    parts: Arc<Parts>,
    coordinator: Coordinator,
}

impl Control {
    /// The service, to be added to a server.
    pub fn server(parts: Arc<Parts>, coordinator: Coordinator) -> ControlServer<Self> {
        ControlServer::new(Self { parts, coordinator }).max_decoding_message_size(RING_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl ControlApi for Control {
    async fn install_ring(
        &self,
        request: Request<InstallRingRequest>,
    ) -> Result<Response<InstallRingResponse>, Status> {
        let json = request.into_inner().ring;
        let replica = &self.parts.replica;
        let installed = self.parts.ring.install(&json, || replica.fence_writers()).await;
        let epoch = installed.map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new(InstallRingResponse { epoch }))
    }

    async fn get_ring(&self, _: Request<GetRingRequest>) -> Result<Response<GetRingResponse>, Status> {
        let ring = self.parts.ring.load().map(|installed| installed.json.clone()).unwrap_or_default();
        Ok(Response::new(GetRingResponse { ring }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<NodeStatus>, Status> {
        Ok(Response::new(status(&self.parts, &self.coordinator)))
    }
}

/// What the node says of itself. Everything that speaks about the ring is of one epoch.
fn status(parts: &Parts, coordinator: &Coordinator) -> NodeStatus {
    let installed = parts.ring.load();
    let listed =
        installed.as_ref().map_or(0, |installed| installed.me.map_or(0, |me| installed.view.ring().listed(me)));
    let leftover =
        installed.as_ref().map_or(0, |installed| crate::handoff::left(installed, &parts.ring, &parts.replica));
    let pulls = parts.pulls.view();
    let (hints, hint_bytes) = parts.replica.hints.held();
    let stored = parts.replica.counters().total();
    let disk = parts.replica.engine().disk().unwrap_or_default();
    NodeStatus {
        cluster: Bytes::copy_from_slice(parts.ring.cluster().as_bytes()),
        incarnation: Bytes::copy_from_slice(parts.ring.incarnation().as_bytes()),
        epoch: installed.as_ref().map_or(0, |installed| installed.view.epoch()),
        listed_partitions: clamp(listed),
        hints,
        hint_bytes,
        hint_oldest_ms: parts.replica.hints.oldest_ms().unwrap_or(0),
        synced: pulls
            .synced
            .iter()
            .map(|record| Synced { partition: record.partition, since: record.since })
            .collect(),
        moved: Some(Moved { since: pulls.moved.since, bytes: pulls.moved.bytes, items: pulls.moved.items }),
        keys: stored.live,
        bytes: stored.bytes,
        serving_bytes: installed.as_ref().map_or(0, |installed| serving_bytes(installed, &parts.replica)),
        keys_owned: coordinator.keys_owned(),
        disk_bytes_free: disk.bytes_free,
        disk_bytes_total: disk.bytes_total,
        unreachable: parts
            .peers
            .all()
            .iter()
            .filter(|peer| !peer.is_up())
            .map(|peer| Bytes::copy_from_slice(peer.incarnation().as_bytes()))
            .collect(),
        leftover_partitions: clamp(leftover),
        version: String::from(env!("CARGO_PKG_VERSION")),
        copying_partitions: clamp(pulls.copying),
        beside_clients_bytes_per_second: pulls.beside_clients.map(|rate| rate as u64),
        copying_error: pulls.last_error.unwrap_or_default(),
    }
}

/// Bytes of the partitions whose effective list names this node.
fn serving_bytes(installed: &Installed, replica: &Replica) -> u64 {
    let serves = |partition| {
        let placement = installed.view.placement(partition);
        installed.me.is_some_and(|me| placement.is_some_and(|placement| placement.preference.contains(&me)))
    };
    replica.counters().sum(installed.view.count(), serves).bytes
}

fn clamp(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

//! A whole node: its parts put together, its servers started, and its end.

use crate::config::Limits;
use crate::control::Control;
use crate::coordinator::{self, Coordinator, Overview};
use crate::handoff::{self, Foreground, Pulls, Spool};
use crate::net::{Connector, Incoming};
use crate::peers::{PeerService, Peers};
use crate::repair::{Collector, Repair};
use crate::replica::{self, Overlay, Overlays, Replica, WallClock};
use crate::ring_state::RingState;
use crate::server;
use crate::storage::{Births, Committer, Engine, EngineError, Space, StorageError};
use dynamo::hedge::Budget;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a node that has left the ring serves those who are connected to it, once it is told to end.
const FAREWELL_MAX: Duration = Duration::from_secs(12);
/// How long connections have to finish what they are at when the node stops.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// How long a node that has just started waits for others before it takes clients without them.
const COMPANY_WAIT_MAX: Duration = Duration::from_secs(10);

/// Part of the reads for which a further replica may be asked in the long run, and how many may be saved up.
const HEDGED_PART_MAX: f64 = 0.03;
const HEDGES_SAVED_MAX: f64 = 100.0;

/// What a node is told about itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// UID of the cluster.
    pub cluster: Uuid,
    /// Identity of the data directory.
    pub incarnation: Uuid,
    /// Name for people.
    pub name: String,
}

/// Where connections come in.
pub struct Listeners {
    /// RESP.
    pub resp: Incoming,
    /// gRPC for clients.
    pub grpc: Incoming,
    /// gRPC for peers and the operator.
    pub peer: Incoming,
    /// HTTP for people and Prometheus.
    pub http: Incoming,
}

/// What a node stores in and reads time from.
pub struct Resources {
    /// Storage engine.
    pub engine: Arc<dyn Engine>,
    /// The queue in front of it, whose callback clears `overlays`.
    pub committer: Committer,
    /// Pending objects.
    pub overlays: Overlays,
    /// Source of births.
    pub births: Births,
    /// Wall clock.
    pub wall: WallClock,
    /// What is copied here is kept there until it is durable.
    pub spool: Spool,
}

/// The parts of a running node.
pub struct Parts {
    /// Ring in force.
    pub ring: Arc<RingState>,
    /// Objects and hints.
    pub replica: Arc<Replica>,
    /// The other members.
    pub peers: Arc<Peers>,
    /// Moves into this node.
    pub pulls: Arc<Pulls>,
    /// Comparing with the other members.
    pub repair: Arc<Repair>,
    /// Collecting what is dead.
    pub collector: Arc<Collector>,
    /// Reads for which a further replica was asked.
    pub hedged: Arc<AtomicU64>,
    /// What this node's clients feel of what is copied.
    pub foreground: Arc<Foreground>,
    /// When the node started.
    pub started: Instant,
}

/// Why a node could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The engine cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine cannot be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The engine failed in a way that only opening it again mends. What was acknowledged is on disk.
    #[error("storage is broken; the node has to start again")]
    Broken,
    /// A server ended.
    #[error("the {0} server ended: {1}")]
    Server(&'static str, String),
}

/// Overlays of both keyspaces and the committer callback's part of clearing them.
#[must_use]
pub fn overlays() -> Overlays {
    overlays_with_cache(Limits::default().object_cache_bytes_max)
}

/// [`overlays`] with a cache of recent objects of this many bytes.
#[must_use]
pub fn overlays_with_cache(object_cache_bytes_max: usize) -> Overlays {
    Overlays { data: Overlay::new(Space::Data, object_cache_bytes_max), hints: Overlay::new(Space::Hints, 0) }
}

/// Runs a node until `shutdown`, then finishes what clients have asked for, hands everything queued to the disk and
/// returns.
///
/// `ring`: a ring document to begin with if it is newer than the stored one, such as the mounted `ConfigMap`.
///
/// # Errors
/// [`NodeError`] when a part cannot be started or a server fails.
pub async fn run(
    identity: Identity,
    limits: Limits,
    listeners: Listeners,
    connector: Connector,
    resources: Resources,
    ring: Option<Vec<u8>>,
    shutdown: CancellationToken,
) -> Result<(), NodeError> {
    let limits = Arc::new(limits);
    let committer = resources.committer.clone();
    let background = CancellationToken::new();
    let parts = assemble(&identity, &limits, connector, resources, &background)?;
    // Before anyone hears from this node: what it had received counts among what it has.
    parts.pulls.recover().await;
    if let Some(json) = ring {
        let fence = || parts.replica.fence_writers();
        if let Err(error) = parts.ring.install(&json, fence).await {
            tracing::warn!(%error, "the ring document given at the start was not installed");
        }
    }
    let coordinator = coordinator(&identity, &limits, &parts);
    let tasks = start_background(&parts, &limits, &background);
    let served = serve(&parts, &coordinator, listeners, &shutdown).await;
    background.cancel();
    let drained = drain(tasks).await;
    committer.close().await;
    if drained && served.is_ok() {
        keep_counts(&parts);
    }
    served
}

fn assemble(
    identity: &Identity,
    limits: &Arc<Limits>,
    connector: Connector,
    resources: Resources,
    background: &CancellationToken,
) -> Result<Arc<Parts>, NodeError> {
    let Resources { engine, committer, overlays, births, wall, spool } = resources;
    let ring = RingState::open(identity.cluster, identity.incarnation, engine.as_ref(), committer.clone())?;
    let ring = Arc::new(ring);
    let parts = replica::Parts { engine, committer, overlays, ring: ring.clone(), births, wall };
    let replica = Arc::new(Replica::open(parts, limits)?);
    let peers = Peers::new(ring.clone(), replica.clone(), connector, limits.clone(), background.child_token());
    let foreground = Arc::new(Foreground::default());
    let pulls = Pulls::open(ring.clone(), replica.clone(), peers.clone(), foreground.clone(), spool, limits)?;
    let repair = Repair::new(ring.clone(), replica.clone(), peers.clone(), limits);
    let collector = Collector::new(ring.clone(), replica.clone(), peers.clone(), limits);
    Ok(Arc::new(Parts {
        ring,
        replica,
        peers,
        pulls,
        repair,
        collector,
        hedged: Arc::default(),
        foreground,
        started: Instant::now(),
    }))
}

fn coordinator(identity: &Identity, limits: &Arc<Limits>, parts: &Arc<Parts>) -> Coordinator {
    let vitals = {
        let (parts, name) = (parts.clone(), identity.name.clone());
        Arc::new(move || overview(&parts, &name))
    };
    Coordinator::new(coordinator::Parts {
        name: identity.name.clone(),
        ring: parts.ring.clone(),
        replica: parts.replica.clone(),
        peers: parts.peers.clone(),
        limits: limits.clone(),
        hedging: parking_lot::Mutex::new(Budget::new(HEDGED_PART_MAX, HEDGES_SAVED_MAX)),
        hedged: parts.hedged.clone(),
        foreground: parts.foreground.clone(),
        vitals,
    })
}

fn start_background(parts: &Arc<Parts>, limits: &Limits, stop: &CancellationToken) -> JoinSet<()> {
    let Parts { ring, replica, peers, pulls, repair, collector, foreground, .. } = parts.as_ref();
    let mut tasks = JoinSet::new();
    tasks.spawn(peers.clone().follow_ring());
    tasks.spawn(pulls.clone().run(stop.clone()));
    tasks.spawn(repair.clone().run(stop.clone()));
    tasks.spawn(collector.clone().run(stop.clone()));
    let hints = handoff::Delivery {
        pause: limits.hint_pause,
        ring: ring.clone(),
        replica: replica.clone(),
        peers: peers.clone(),
        foreground: foreground.clone(),
    };
    tasks.spawn(hints.run(stop.clone()));
    let leftovers = handoff::Leftovers::new(ring.clone(), replica.clone(), peers.clone(), foreground.clone());
    tasks.spawn(leftovers.run_until(stop.clone()));
    tasks
}

/// Serves on all listeners until `shutdown`; a server that ends by itself ends the node.
async fn serve(
    parts: &Arc<Parts>,
    coordinator: &Coordinator,
    listeners: Listeners,
    shutdown: &CancellationToken,
) -> Result<(), NodeError> {
    let Listeners { resp, grpc, peer, http } = listeners;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(server::StorageMetrics(parts.replica.committer().stats().clone())));
    let metrics = server::Metrics::with_registry(coordinator.clone(), parts.foreground.clone(), registry);
    let clients_done = CancellationToken::new();
    let handler = Arc::new(coordinator.clone());
    let service = PeerService::new(parts.ring.clone(), parts.peers.clone(), handler);
    let peer_router = tonic::transport::Server::builder()
        .initial_stream_window_size(Some(4 << 20))
        .initial_connection_window_size(Some(16 << 20))
        .add_service(service.grpc())
        .add_service(Control::server(parts.clone(), coordinator.clone()));
    let peer = service.sort_out(peer, clients_done.clone());
    let mut peers = tokio::spawn(peer_router.serve_with_incoming_shutdown(peer, {
        let done = clients_done.clone();
        async move { done.cancelled().await }
    }));
    let web = tokio::spawn(server::http::serve(http, coordinator.clone(), metrics.clone(), clients_done.clone()));
    let stop = CancellationToken::new();
    tokio::spawn(see_out(parts.clone(), metrics.clone(), shutdown.clone(), stop.clone()));
    let mut rpc = tokio::spawn(server::grpc::serve(grpc, coordinator.clone(), metrics.clone(), stop.clone()));
    let clients = server::resp::serve(resp, coordinator.clone(), metrics, stop.clone());
    let result = tokio::select! {
        () = clients => Ok(()),
        () = broken(parts) => Err(NodeError::Broken),
        why = ended_early(&mut rpc, &stop) => Err(NodeError::Server("gRPC", why)),
        ended = &mut peers => Err(NodeError::Server("peer", format!("{ended:?}"))),
    };
    shutdown.cancel();
    stop.cancel();
    if !rpc.is_finished() {
        let _ = tokio::time::timeout(DRAIN_MAX, rpc).await;
    }
    // Peers are served until the last client is: this node's own requests may need them to answer.
    clients_done.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(1), web).await;
    result
}

/// Tells the servers for clients to end when the node is told to. One that is in no list any more first serves on for
/// those who are connected: their maps of the ring still name it, and are made anew every ten seconds or so.
async fn see_out(
    parts: Arc<Parts>,
    metrics: server::Metrics,
    shutdown: CancellationToken,
    stop: CancellationToken,
) {
    shutdown.cancelled().await;
    let left = parts.ring.load().is_some_and(|installed| {
        let ring = installed.view.ring();
        installed.me.is_none_or(|me| ring.listed(me) == 0)
    });
    if left {
        let gone = async {
            while metrics.connections() > 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL_MAX, gone).await;
    }
    stop.cancel();
}

/// Returns when a server ends by itself. One that ends because it was told to, and may have had nobody to see out, is
/// waited for elsewhere: it must not cut short those whose clients are still being answered.
async fn ended_early<T: std::fmt::Debug>(server: &mut JoinHandle<T>, shutdown: &CancellationToken) -> String {
    let ended = server.await;
    if shutdown.is_cancelled() {
        std::future::pending::<()>().await;
    }
    format!("{ended:?}")
}

/// Returns once storage has failed for good. Only opening it again helps, so the node ends and is started anew.
async fn broken(parts: &Parts) {
    while !parts.replica.committer().is_broken() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Waits for tasks to end, for a while. Returns whether all have.
async fn drain(mut tasks: JoinSet<()>) -> bool {
    let all = async { while tasks.join_next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(5), all).await.is_ok()
}

/// With them the next start need not count what is here, which takes the longer the more that is.
fn keep_counts(parts: &Parts) {
    match parts.replica.keep_counts() {
        Ok(true) => {}
        Ok(false) => {
            tracing::info!("the counts are not kept, since a write came to nothing; the next start makes them")
        }
        Err(error) => tracing::warn!(%error, "the counts could not be kept; the next start makes them anew"),
    }
}

/// A node that has just started is sent no clients before it has met half of the others, or given up waiting for them.
fn has_company(parts: &Parts) -> bool {
    let peers = parts.peers.all();
    let met = peers.iter().filter(|peer| peer.is_up()).count();
    met * 2 >= peers.len() || parts.started.elapsed() > COMPANY_WAIT_MAX
}

fn overview(parts: &Parts, name: &str) -> Overview {
    let installed = parts.ring.load();
    let stored = parts.replica.counters().total();
    let (hints, hint_bytes) = parts.replica.hints.held();
    let pulls = parts.pulls.view();
    let repair = parts.repair.view();
    let collector = parts.collector.view();
    let disk = parts.replica.engine().disk().unwrap_or_default();
    Overview {
        incarnation: parts.ring.incarnation(),
        name: name.to_owned(),
        epoch: installed.as_ref().map_or(0, |installed| installed.view.epoch()),
        keys: stored.live,
        bytes: stored.bytes,
        hints,
        hint_bytes,
        hint_age_ms: parts
            .replica
            .hints
            .oldest_ms()
            .map_or(0, |oldest| parts.replica.now_ms().saturating_sub(oldest)),
        siblings_refused: parts.replica.siblings_refused(),
        copying_partitions: u32::try_from(pulls.copying).unwrap_or(u32::MAX),
        moved_bytes: pulls.moved_since_start,
        handed_out_bytes: parts.foreground.handed_out(),
        transfer_bytes_per_second: pulls.bytes_per_second,
        repair_comparisons: repair.comparisons,
        repair_failures: repair.failed,
        repaired_here: repair.found.fetched,
        repaired_there: repair.found.sent,
        repair_bytes: repair.found.bytes,
        dead: parts.replica.counters().dead(0..usize::from(dynamo::token::SLOTS)),
        hedged_reads: parts.hedged.load(Ordering::Relaxed),
        collected: collector.collected,
        collect_failures: collector.failed,
        ready: installed.is_some_and(|installed| installed.me.is_some()) && has_company(parts),
        unreachable: parts
            .peers
            .all()
            .iter()
            .filter(|peer| !peer.is_up())
            .map(|peer| peer.name().to_owned())
            .collect(),
        disk_bytes_free: disk.bytes_free,
        disk_bytes_total: disk.bytes_total,
    }
}

//! `annulus-node serve`: from flags to a running node.

use annulus_node::config::{Limits, RedisSettings};
use annulus_node::handoff::Spool;
use annulus_node::net;
use annulus_node::node::{self, Identity, Listeners, Resources};
use annulus_node::ring_state::is_retired;
use annulus_node::server::resp;
use annulus_node::storage::{Births, Committer, DataDirectory, Engine, FjallEngine, FjallOptions};
use anyhow::Context;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Flags of `serve`; each can be given by the environment too.
#[derive(clap::Args)]
pub struct Arguments {
    /// Directory that holds this node's data; made if it is not there. Never shared between nodes.
    #[arg(long, env = "ANNULUS_DATA_DIR")]
    data_dir: PathBuf,
    /// UID of the cluster that the node belongs to.
    #[arg(long, env = "ANNULUS_CLUSTER")]
    cluster: Uuid,
    /// Name of the node, for people.
    #[arg(long, env = "ANNULUS_NAME")]
    name: String,
    /// Address for Redis clients.
    #[arg(long, env = "ANNULUS_RESP", default_value = "127.0.0.1:6379")]
    resp: SocketAddr,
    /// Address for gRPC clients.
    #[arg(long, env = "ANNULUS_GRPC", default_value = "127.0.0.1:7379")]
    grpc: SocketAddr,
    /// Address for the other nodes and the operator.
    #[arg(long, env = "ANNULUS_PEER", default_value = "127.0.0.1:7400")]
    peer: SocketAddr,
    /// Address for /metrics, /healthz, /readyz and /ui.
    #[arg(long, env = "ANNULUS_HTTP", default_value = "127.0.0.1:9090")]
    http: SocketAddr,
    /// Ring document to begin with if it is newer than the stored one (the mounted `ConfigMap`).
    #[arg(long, env = "ANNULUS_RING_FILE")]
    ring_file: Option<PathBuf>,
    /// Longest value taken, in bytes.
    #[arg(long, env = "ANNULUS_VALUE_BYTES_MAX", default_value_t = Limits::default().value_bytes_max)]
    value_bytes_max: usize,
    /// Most bytes of hints held for other nodes.
    #[arg(long, env = "ANNULUS_HINT_BYTES_MAX", default_value_t = Limits::default().hint_bytes_max)]
    hint_bytes_max: u64,
    /// Most client connections.
    #[arg(long, env = "ANNULUS_CONNECTIONS_MAX", default_value_t = Limits::default().connections_max)]
    connections_max: usize,
    /// Writes are refused when the disk has less than this left, in bytes.
    #[arg(long, env = "ANNULUS_DISK_RESERVE_BYTES", default_value_t = Limits::default().disk_reserve_bytes)]
    disk_reserve_bytes: u64,
    /// Bytes a second that moves may bring to this node; as fast as it goes if absent.
    #[arg(long, env = "ANNULUS_TRANSFER_BYTES_PER_SECOND")]
    transfer_bytes_per_second: Option<u64>,
    /// File of the users who may connect over RESP, in the format of a Redis ACL file; without it everyone may.
    #[arg(long, env = "ANNULUS_ACL_FILE")]
    acl_file: Option<PathBuf>,
    /// Let FLUSHALL delete all keys.
    #[arg(long, env = "ANNULUS_FLUSH_ALLOWED")]
    flush_allowed: bool,
    /// Memory for cached blocks of data, in bytes.
    #[arg(long, env = "ANNULUS_CACHE_BYTES", default_value_t = 64 << 20)]
    cache_bytes: u64,
    /// Memory for objects read or written of late, in bytes.
    #[arg(long, env = "ANNULUS_OBJECT_CACHE_BYTES", default_value_t = Limits::default().object_cache_bytes_max)]
    object_cache_bytes: usize,
    /// End when standard input does: so a node does not outlive the supervisor that holds the other end.
    #[arg(long, hide = true)]
    end_with_stdin: bool,
}

/// Runs the node until SIGTERM or SIGINT.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    stop_on_signals(&shutdown, arguments.end_with_stdin)?;
    let limits = limits(&arguments);
    if let Some(path) = &arguments.acl_file {
        resp::check_acl_file(path).context("reading the users of the Redis interface")?;
    }
    let mut directory = DataDirectory::open(&arguments.data_dir).context("opening the data directory")?;
    directory.bind_cluster(arguments.cluster).context("checking whose data this is")?;
    let options = FjallOptions { cache_bytes: arguments.cache_bytes, ..FjallOptions::default() };
    let engine: Arc<dyn Engine> = Arc::new(open_engine(&mut directory, &options)?);
    let overlays = node::overlays_with_cache(limits.object_cache_bytes_max);
    let committer = {
        let overlays = overlays.clone();
        Committer::start(engine.clone(), &limits, move |changes, stored| {
            overlays.data.committed(changes, stored.is_ok());
            overlays.hints.committed(changes, stored.is_ok());
        })
        .context("starting the committer")?
    };
    let births = Births::open(engine.clone(), rand::random()).context("reserving births")?;
    let spool = Spool::in_directory(&directory.spool(), directory.incarnation());
    let resources = Resources { engine, committer, overlays, births, wall: Arc::new(wall_ms), spool };
    let ring = match &arguments.ring_file {
        Some(path) => tokio::fs::read(path).await.ok(),
        None => None,
    };
    let identity = Identity {
        cluster: arguments.cluster,
        incarnation: directory.incarnation(),
        name: arguments.name.clone(),
    };
    let listeners = listen(&arguments).await?;
    tracing::info!(name = identity.name, incarnation = %identity.incarnation, "node starts");
    node::run(identity, limits, listeners, net::tcp_connector(), resources, ring, shutdown).await?;
    tracing::info!("node has stopped");
    Ok(())
}

/// Opens what is in the data directory; if it was given up, because the node of before has left its ring, nothing of it.
fn open_engine(directory: &mut DataDirectory, options: &FjallOptions) -> anyhow::Result<FjallEngine> {
    let open = |directory: &DataDirectory| {
        FjallEngine::open(&directory.data(), options).context("opening the storage engine")
    };
    let engine = open(directory)?;
    if !is_retired(&engine).context("reading the storage engine")? {
        return Ok(engine);
    }
    drop(engine);
    let before = directory.incarnation();
    directory.renew().context("emptying a data directory that was given up")?;
    tracing::info!(%before, now = %directory.incarnation(), "the data of a node that has left its ring is removed");
    open(directory)
}

async fn listen(arguments: &Arguments) -> anyhow::Result<Listeners> {
    let open = async |what: &str, address: SocketAddr| {
        let opened = net::tcp_incoming(address).await;
        let (address, incoming) = opened.with_context(|| format!("listening on {address} for {what}"))?;
        tracing::info!(%address, what, "listening");
        anyhow::Ok(incoming)
    };
    Ok(Listeners {
        resp: open("RESP", arguments.resp).await?,
        grpc: open("gRPC", arguments.grpc).await?,
        peer: open("peers", arguments.peer).await?,
        http: open("HTTP", arguments.http).await?,
    })
}

fn limits(arguments: &Arguments) -> Limits {
    Limits {
        value_bytes_max: arguments.value_bytes_max,
        hint_bytes_max: arguments.hint_bytes_max,
        connections_max: arguments.connections_max,
        disk_reserve_bytes: arguments.disk_reserve_bytes,
        object_cache_bytes_max: arguments.object_cache_bytes,
        transfer_bytes_per_second_max: arguments.transfer_bytes_per_second,
        redis: RedisSettings { acl_file: arguments.acl_file.clone(), flush_allowed: arguments.flush_allowed },
        ..Limits::default()
    }
}

fn stop_on_signals(shutdown: &CancellationToken, end_with_stdin: bool) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: finishing what clients have asked for");
        stop.cancel();
    });
    if end_with_stdin {
        let stop = shutdown.clone();
        // A thread of its own: a read of standard input cannot be cancelled and must not hold up the runtime's end.
        std::thread::spawn(move || {
            let mut sink = [0; 64];
            while matches!(std::io::Read::read(&mut std::io::stdin(), &mut sink), Ok(read) if read > 0) {}
            stop.cancel();
        });
    }
    Ok(())
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

//! Accepting connections and, at the end, seeing them out.

use super::acl::Acl;
use super::clients::Clients;
use super::error_counts::ErrorCounts;
use super::memory::Memory;
use super::reply::Reply;
use super::slow_log::SlowLog;
use super::{cluster, pipeline};
use crate::coordinator::KeyValue;
use crate::net::BoxedIo;
use crate::server::metrics::{FrontMetrics, Metrics};
use futures::{Stream, StreamExt};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a client that is turned away may take to read why.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a client may take to read its last replies when the server ends.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// Most walks along the ring at once; each connection has one at most, and the others wait.
const WALKS_MAX: usize = 16;

/// What all connections of a server share.
pub(super) struct Server<K> {
    /// The store.
    pub(super) store: K,
    /// Open connections.
    pub(super) clients: Arc<Clients>,
    /// Counters.
    pub(super) metrics: Arc<FrontMetrics>,
    /// The ring as it was last told to a cluster client.
    pub(super) slots: cluster::SlotsCache,
    /// Who may do what.
    pub(super) acl: Acl,
    /// Commands that took long.
    pub(super) slow_log: SlowLog,
    /// Errors answered, by their first word.
    pub(super) errors: ErrorCounts,
    /// What its connections hold.
    pub(super) memory: Arc<Memory>,
    /// Those who walk along the ring: each looks at much at once.
    pub(super) walks: Semaphore,
    /// When the server started, in milliseconds since 1970.
    pub(super) started_ms: u64,
}

impl<K> Server<K> {
    /// Counts a reply if it is an error.
    pub(super) fn note_error(&self, reply: &Reply) {
        if let Reply::Error(text) = reply {
            self.errors.note(text);
        }
    }
}

/// Serves RESP on every connection that comes in, until `shutdown` is cancelled or `incoming` ends.
///
/// At shutdown no further connection is accepted and no further byte read; commands that were received are carried out
/// and answered, then the connections close; those that take longer than a request may take are cut. An error of
/// `incoming` is logged and the next connection awaited: pausing when there are no file descriptors left is the
/// listener's business.
pub async fn serve<K, I>(incoming: I, store: K, metrics: Metrics, shutdown: CancellationToken)
where
    K: KeyValue,
    I: Stream<Item = io::Result<BoxedIo>>,
{
    let server = Arc::new(Server {
        started_ms: store.now_ms(),
        acl: Acl::open(store.limits().redis.acl_file.as_deref()),
        slow_log: SlowLog::default(),
        errors: ErrorCounts::default(),
        walks: Semaphore::new(WALKS_MAX),
        memory: Arc::new(Memory::new(store.limits().client_bytes_max)),
        store,
        clients: Arc::default(),
        metrics: metrics.front,
        slots: cluster::SlotsCache::default(),
    });
    // A request that was received may take as long as any; then its reply has to be taken.
    let drain_timeout = server.store.limits().request_timeout + REPLY_TIMEOUT;
    let mut connections = JoinSet::new();
    let mut incoming = pin!(incoming);
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = incoming.next() => accepted,
        };
        match accepted {
            None => break,
            Some(Err(error)) => tracing::warn!(%error, "a RESP connection could not be accepted"),
            Some(Ok(io)) => accept(&server, &mut connections, io),
        }
    }
    server.clients.stop_all();
    let ended = tokio::time::timeout(drain_timeout, async { while connections.join_next().await.is_some() {} });
    if ended.await.is_err() {
        tracing::warn!(connections = connections.len(), "RESP connections did not end in time and are cut");
        connections.shutdown().await;
    }
}

fn accept<K: KeyValue>(server: &Arc<Server<K>>, connections: &mut JoinSet<()>, mut io: BoxedIo) {
    let connections_max = server.store.limits().connections_max;
    let Some(entry) = server.clients.enter(io.ends(), server.store.now_ms(), connections_max) else {
        server.metrics.turned_away.fetch_add(1, Relaxed);
        // Those who wait for their refusal are bounded too; beyond that the connection is just closed.
        if connections.len() < connections_max.saturating_mul(2) {
            connections.spawn(async move {
                let refusal = io.write_all(b"-ERR max number of clients reached\r\n");
                let _ = tokio::time::timeout(TURN_AWAY_TIMEOUT, refusal).await;
            });
        }
        return;
    };
    server.metrics.accepted.fetch_add(1, Relaxed);
    let server = server.clone();
    connections.spawn(async move {
        server.metrics.connections.fetch_add(1, Relaxed);
        let open = OpenConnection(server.metrics.clone());
        if let Err(error) = pipeline::run(io, &server, &entry.client).await {
            tracing::debug!(client = entry.client.id, %error, "a RESP connection broke");
        }
        drop((open, entry));
    });
}

/// Counts a connection as open until dropped, however it ends.
struct OpenConnection(Arc<FrontMetrics>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

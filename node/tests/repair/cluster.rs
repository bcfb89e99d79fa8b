//! Whole nodes in this process, on engines in memory, over sockets whose bytes are counted and can be held back.

use annulus_node::config::Limits;
use annulus_node::handoff::{Memory, Spool};
use annulus_node::net::{self, BoxedIo, Connector};
use annulus_node::node::{self, Identity, Listeners, Resources};
use annulus_node::storage::{Births, Change, Committer, Engine, MemoryEngine, Space};
use annulus_proto::v1::control_client::ControlClient;
use bytes::Bytes;
use dynamo::moves::{self, Wanted, Wish};
use dynamo::object::{Actor, Context, Object, Payload, Value};
use dynamo::ring::{Quorums, Ring, RingView, to_json};
use dynamo::token::{HashKey, PartitionCount};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use uuid::Uuid;

/// Nodes that hold everything: n of n.
pub struct Cluster {
    pub engines: Vec<Arc<MemoryEngine>>,
    /// What each node keeps aside of what it copies.
    pub spools: Vec<Memory>,
    pub view: RingView,
    /// Bytes on connections between nodes, in both directions.
    pub wire: Arc<AtomicU64>,
    /// How far all nodes' wall clocks are ahead of this machine's.
    pub ahead_ms: Arc<AtomicU64>,
    /// While set, nothing that nodes say to those whom they have called gets out.
    pub hold: Arc<AtomicBool>,
    ports: Vec<[u16; 4]>,
    running: Vec<Option<(CancellationToken, JoinHandle<()>)>>,
}

/// A port below those that the system gives to connections, which could take it before it is listened at.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) as u32 + std::process::id() * 64;
        let port = 12_000 + u16::try_from(step % 16_000).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub fn wall_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

pub fn incarnation(node: usize) -> Uuid {
    Uuid::from_u128(100 + node as u128)
}

impl Cluster {
    pub fn new(nodes: usize, partitions: u32) -> Self {
        let ports: Vec<[u16; 4]> = (0..nodes).map(|_| [(); 4].map(|()| free_port())).collect();
        let members = (0..nodes).map(|node| Wanted {
            incarnation: incarnation(node),
            name: format!("node-{node}"),
            peer_address: format!("127.0.0.1:{}", ports[node][2]),
            client_address: format!("127.0.0.1:{}", ports[node][0]),
            zone: None,
            weight: 1,
        });
        let n = u8::try_from(nodes).unwrap();
        let wish = Wish {
            partitions: PartitionCount::new(partitions).unwrap(),
            quorums: Quorums { n, r: 1, w: 1, sloppy: true },
            members: members.collect(),
            gone: std::collections::BTreeSet::new(),
        };
        let ring: Ring = moves::create(Uuid::from_u128(7), HashKey([9; 16]), &wish).unwrap();
        Self {
            engines: (0..nodes).map(|_| Arc::new(MemoryEngine::new())).collect(),
            spools: (0..nodes).map(|_| Memory::default()).collect(),
            view: RingView::new(ring).unwrap(),
            wire: Arc::default(),
            ahead_ms: Arc::default(),
            hold: Arc::default(),
            ports,
            running: (0..nodes).map(|_| None).collect(),
        }
    }

    /// Puts objects straight onto a node's disk, while the node does not run.
    pub fn plant(&self, node: usize, items: impl IntoIterator<Item = (Bytes, Bytes)>) {
        assert!(self.running[node].is_none());
        let put =
            |(key, value): (Bytes, Bytes)| Change::Put { space: Space::Data, key: self.storage_key(&key), value };
        let changes: Vec<Change> = items.into_iter().map(put).collect();
        self.engines[node].commit(&changes).unwrap();
    }

    pub fn storage_key(&self, key: &[u8]) -> Bytes {
        annulus_node::replica::storage_key(self.view.token(key), key)
    }

    /// What is on a node's disk under a key.
    pub fn stored(&self, node: usize, key: &[u8]) -> Option<Bytes> {
        self.engines[node].get(Space::Data, &self.storage_key(key)).unwrap()
    }

    pub async fn start(&mut self, node: usize, limits: Limits) {
        let engine: Arc<dyn Engine> = self.engines[node].clone();
        let overlays = node::overlays();
        let callback = overlays.clone();
        let committer = Committer::start(engine.clone(), &limits, move |changes, stored| {
            callback.data.committed(changes, stored.is_ok());
            callback.hints.committed(changes, stored.is_ok());
        });
        let resources = Resources {
            engine: engine.clone(),
            committer: committer.unwrap(),
            overlays,
            births: Births::open(engine, u32::try_from(node).unwrap()).unwrap(),
            wall: {
                let ahead_ms = self.ahead_ms.clone();
                Arc::new(move || wall_ms() + ahead_ms.load(Ordering::Relaxed))
            },
            spool: Spool::in_memory(self.spools[node].clone(), incarnation(node)),
        };
        let ring = self.view.ring();
        let identity =
            Identity { cluster: ring.cluster, incarnation: incarnation(node), name: format!("node-{node}") };
        let [resp, grpc, peer, http] = self.ports[node];
        let open = async |port: u16| net::tcp_incoming(([127, 0, 0, 1], port).into()).await.unwrap().1;
        let listeners = Listeners {
            resp: open(resp).await,
            grpc: open(grpc).await,
            peer: open(peer).await,
            http: open(http).await,
        };
        let stop = CancellationToken::new();
        let connector = counting(self.wire.clone(), self.hold.clone());
        let json = to_json(ring).into_bytes();
        let run = node::run(identity, limits, listeners, connector, resources, Some(json), stop.clone());
        self.running[node] = Some((stop, tokio::spawn(async move { run.await.unwrap() })));
    }

    /// `host:port` where a node answers clients that speak RESP.
    pub fn client_address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node][0])
    }

    /// `host:port` where a node answers its peers.
    pub fn peer_address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node][2])
    }

    /// What the operator speaks to a node through.
    pub async fn control(&self, node: usize) -> ControlClient<Channel> {
        ControlClient::connect(format!("http://{}", self.peer_address(node))).await.unwrap()
    }

    pub async fn stop(&mut self) {
        for (stop, node) in self.running.iter_mut().filter_map(Option::take) {
            stop.cancel();
            node.await.unwrap();
        }
    }
}

/// Waits until something is so.
pub async fn until(what: &str, patience: Duration, mut done: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !done().await {
        assert!(began.elapsed() < patience, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A write of one actor, on top of what a replica has.
pub fn written(before: &Object, actor: u64, millis: u64, value: &[u8]) -> Object {
    put(before, actor, millis, None, Payload::Bytes(Bytes::copy_from_slice(value)))
}

/// The same with a time of expiry, or of a tombstone.
pub fn put(before: &Object, actor: u64, millis: u64, expires_at_ms: Option<u64>, payload: Payload) -> Object {
    let actor = Actor { incarnation: actor, birth: 1 };
    let timestamp = dynamo::hlc::Hlc::from_wall(millis);
    let context: Context = before.context();
    before.put(actor, &context, Value { timestamp, expires_at_ms, payload })
}

fn counting(wire: Arc<AtomicU64>, hold: Arc<AtomicBool>) -> Connector {
    let connect = net::tcp_connector();
    Arc::new(move |address: String| {
        let (connect, wire, hold) = (connect.clone(), wire.clone(), hold.clone());
        Box::pin(async move { Ok(BoxedIo::new(Counted(connect(address).await?, wire, hold))) })
    })
}

struct Counted(BoxedIo, Arc<AtomicU64>, Arc<AtomicBool>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(cx, buf);
        self.1.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.2.load(Ordering::Relaxed) {
            let waker = cx.waker().clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                waker.wake();
            });
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.0).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            self.1.fetch_add(written as u64, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

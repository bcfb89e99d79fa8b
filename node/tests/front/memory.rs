//! A store in memory: one replica of everything, with real objects, real tokens and a ring of three members.

use annulus_node::config::Limits;
use annulus_node::coordinator::{
    Causality, KeyValue, Overview, ReadOptions, RequestError, ScanPage, Write, WriteOptions, Written,
};
use annulus_node::server::Metrics;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use dynamo::hlc::Hlc;
use dynamo::object::{Actor, By, Change, Object, Outcome, Value};
use dynamo::preference::MemberIndex;
use dynamo::ring::{Member, MemberState, Placement, Quorums, Ring, RingView};
use dynamo::token::{HashKey, first_token, last_token};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const NAMES: [&str; 3] = ["demo-0", "demo-1", "demo-2"];

/// The store; clones share everything.
#[derive(Clone)]
pub struct Memory(Arc<Shared>);

pub struct Shared {
    objects: Mutex<BTreeMap<Bytes, Object>>,
    view: Arc<RingView>,
    pub limits: Limits,
    clock: AtomicU64,
    /// Added to the wall clock.
    pub ahead_ms: AtomicU64,
    /// What every request is answered with, if set.
    pub failure: Mutex<Option<RequestError>>,
    /// How long reads and writes take.
    pub delay_ms: AtomicU64,
    /// Reads and writes under way, and the most there ever were.
    under_way: AtomicU64,
    pub most_under_way: AtomicU64,
    pub without_ring: AtomicBool,
    pub unreachable: Mutex<Vec<String>>,
}

impl std::ops::Deref for Memory {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Memory {
    pub fn new(limits: Limits) -> Self {
        Self::with_addresses(limits, ["127.0.0.1:7001", "node-1.demo:6379", "[::1]:6379"])
    }

    pub fn with_addresses(limits: Limits, addresses: [&str; 3]) -> Self {
        Self(Arc::new(Shared {
            objects: Mutex::default(),
            view: Arc::new(RingView::new(ring(addresses)).unwrap()),
            limits,
            clock: AtomicU64::new(1),
            ahead_ms: AtomicU64::new(0),
            failure: Mutex::default(),
            delay_ms: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            most_under_way: AtomicU64::new(0),
            without_ring: AtomicBool::new(false),
            unreachable: Mutex::default(),
        }))
    }

    /// Lets a key have another concurrent value, as from a replica that was cut off.
    pub fn put_blind(&self, key: &[u8], value: Value, actor: u64) {
        let mut objects = self.objects.lock().unwrap();
        let object = objects.entry(self.storage_key(key)).or_default();
        *object = object.put(Actor { incarnation: actor, birth: 1 }, &dynamo::object::Context::default(), value);
    }

    pub fn object(&self, key: &[u8]) -> Object {
        self.objects.lock().unwrap().get(&self.storage_key(key)).cloned().unwrap_or_default()
    }

    fn storage_key(&self, key: &[u8]) -> Bytes {
        let mut storage_key = BytesMut::with_capacity(key.len() + 8);
        storage_key.put_u64(self.view.token(key).0);
        storage_key.put_slice(key);
        storage_key.freeze()
    }

    fn apply(&self, key: &Bytes, write: Write) -> Written {
        let mut objects = self.objects.lock().unwrap();
        let now_ms = self.now_ms();
        let timestamp = self.next_timestamp(now_ms);
        let object = objects.entry(self.storage_key(key)).or_default();
        let existed = object.visible(now_ms).is_some();
        let value = Value { timestamp, expires_at_ms: write.expires_at_ms, payload: write.payload };
        let actor = Actor { incarnation: 1, birth: 1 };
        *object = match &write.causality {
            Causality::Overwrite => object.overwrite(actor, value),
            Causality::Context(context) => object.put(actor, context, value),
        };
        Written { timestamp, context: object.context(), existed }
    }

    fn next_timestamp(&self, now_ms: u64) -> Hlc {
        let timestamp = Hlc::from_wall(now_ms).max(Hlc(self.clock.load(SeqCst) + 1));
        self.clock.store(timestamp.0, SeqCst);
        timestamp
    }

    async fn work<T>(&self, work: impl FnOnce() -> T) -> Result<T, RequestError> {
        let under_way = self.under_way.fetch_add(1, SeqCst) + 1;
        self.most_under_way.fetch_max(under_way, SeqCst);
        let delay_ms = self.delay_ms.load(SeqCst);
        if delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        let failure = self.failure.lock().unwrap().clone();
        let result = failure.map_or_else(|| Ok(work()), Err);
        self.under_way.fetch_sub(1, SeqCst);
        result
    }
}

impl KeyValue for Memory {
    async fn get(&self, key: Bytes, _: ReadOptions) -> Result<Object, RequestError> {
        self.work(|| self.object(&key)).await
    }

    async fn put(&self, key: Bytes, write: Write, _: WriteOptions) -> Result<Written, RequestError> {
        let (bytes, bytes_max) = (key.len(), self.limits.key_bytes_max);
        if bytes > bytes_max {
            return Err(RequestError::KeyTooLong { bytes, bytes_max });
        }
        self.work(|| self.apply(&key, write)).await
    }

    async fn change(&self, key: Bytes, change: Change, _: WriteOptions) -> Result<Outcome, RequestError> {
        let (bytes, bytes_max) = (key.len(), self.limits.key_bytes_max);
        if bytes > bytes_max {
            return Err(RequestError::KeyTooLong { bytes, bytes_max });
        }
        self.work(|| {
            let now_ms = self.now_ms();
            let timestamp = self.next_timestamp(now_ms);
            let mut objects = self.objects.lock().unwrap();
            let object = objects.entry(self.storage_key(&key)).or_default();
            let by = By { actor: Actor { incarnation: 1, birth: 1 }, timestamp, now_ms };
            let (changed, outcome) = object.change(&change, by);
            if let Some(changed) = changed {
                *object = changed;
            }
            outcome
        })
        .await
    }

    async fn scan(
        &self,
        partition: u32,
        after: Option<Bytes>,
        items_max: usize,
    ) -> Result<ScanPage, RequestError> {
        self.work(|| {
            let first = Bytes::copy_from_slice(&first_token(partition, self.view.count()).0.to_be_bytes());
            let last = last_token(partition, self.view.count()).0;
            let from = after.map_or(Bound::Included(first), Bound::Excluded);
            let objects = self.objects.lock().unwrap();
            let mut found = objects
                .range((from, Bound::Unbounded))
                .take_while(|(key, _)| (&key[..]).get_u64() <= last)
                .map(|(key, object)| (key.clone(), object.clone()));
            let items: Vec<(Bytes, Object)> = found.by_ref().take(items_max).collect();
            let next = found.next().and_then(|_| items.last().map(|(key, _)| key.clone()));
            ScanPage { items: items.into_iter().map(|(key, object)| (key.slice(8..), object)).collect(), next }
        })
        .await
    }

    async fn key_count(&self) -> Result<u64, RequestError> {
        let now_ms = self.now_ms();
        let count = || {
            let objects = self.objects.lock().unwrap();
            objects.values().filter(|object| object.visible(now_ms).is_some()).count() as u64
        };
        self.work(count).await
    }

    fn ring(&self) -> Option<Arc<RingView>> {
        (!self.without_ring.load(SeqCst)).then(|| self.view.clone())
    }

    fn limits(&self) -> &Limits {
        &self.0.limits
    }

    fn now_ms(&self) -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_millis() as u64 + self.ahead_ms.load(SeqCst)
    }

    fn overview(&self) -> Overview {
        Overview {
            incarnation: Uuid::from_u128(1),
            name: NAMES[0].to_owned(),
            epoch: self.view.epoch(),
            keys: self.objects.lock().unwrap().len() as u64,
            ready: !self.without_ring.load(SeqCst),
            unreachable: self.unreachable.lock().unwrap().clone(),
            ..Overview::default()
        }
    }
}

fn ring(addresses: [&str; 3]) -> Ring {
    let member = |index: usize| Member {
        index: MemberIndex(u16::try_from(index).unwrap()),
        incarnation: Uuid::from_u128(index as u128 + 1),
        name: NAMES[index].to_owned(),
        peer_address: String::new(),
        client_address: addresses[index].to_owned(),
        zone: None,
        weight: 1,
        state: MemberState::Active,
        gone: false,
    };
    let placement = |partition: u16| Placement {
        preference: (0..3).map(|step| MemberIndex((partition + step) % 3)).collect(),
        also: None,
        since: 7,
    };
    Ring {
        cluster: Uuid::from_u128(99),
        epoch: 7,
        quorums: Quorums { n: 3, r: 2, w: 2, sloppy: true },
        hash_key: HashKey([5; 16]),
        members: (0..3).map(member).collect(),
        partitions: (0..64).map(placement).collect(),
        target: None,
    }
}

/// A RESP server on loopback.
pub struct Served {
    pub address: SocketAddr,
    pub store: Memory,
    pub metrics: Metrics,
    pub shutdown: CancellationToken,
    pub server: tokio::task::JoinHandle<()>,
}

/// Serves a store on some port of the loopback address.
pub async fn serve(store: Memory) -> Served {
    let (address, incoming) = annulus_node::net::tcp_incoming(([127, 0, 0, 1], 0).into()).await.unwrap();
    let metrics = Metrics::new(store.clone(), Arc::default());
    let shutdown = CancellationToken::new();
    let server = annulus_node::server::resp::serve(incoming, store.clone(), metrics.clone(), shutdown.clone());
    Served { address, store, metrics, server: tokio::spawn(server), shutdown }
}

//! What the front ends ask of a node: the seam between protocols (RESP, gRPC) and the store.

use crate::config::Limits;
use bytes::Bytes;
use dynamo::hlc::Hlc;
use dynamo::object::{Change, Context, Object, Outcome, Payload};
use dynamo::ring::RingView;
use std::future::Future;
use std::sync::Arc;
use uuid::Uuid;

/// The store as a front end sees it. Cheap to clone; any node serves any key.
pub trait KeyValue: Clone + Send + Sync + 'static {
    /// All concurrent values of a key, from r replicas merged. An absent key is an empty object.
    fn get(&self, key: Bytes, options: ReadOptions) -> impl Future<Output = Result<Object, RequestError>> + Send;

    /// The same for a read that need not wait for other nodes, answered at once. `None`: use [`KeyValue::get`].
    fn get_now(&self, _key: &Bytes, _options: ReadOptions) -> Option<Object> {
        None
    }

    /// Writes a value or, with [`Payload::Tombstone`], deletes.
    fn put(
        &self,
        key: Bytes,
        write: Write,
        options: WriteOptions,
    ) -> impl Future<Output = Result<Written, RequestError>> + Send;

    /// Carries out a change in one step at a replica that coordinates it, on top of what r replicas know; changes that
    /// [need one coordinator](Change::needs_one_coordinator) at the owner of the key's partition alone, on top of what
    /// a majority knows and to be stored by one.
    ///
    /// The outcome is what the coordinator saw. [`Outcome::Refused`]: nothing was written.
    fn change(
        &self,
        key: Bytes,
        change: Change,
        options: WriteOptions,
    ) -> impl Future<Output = Result<Outcome, RequestError>> + Send;

    /// Keys of one partition with their objects in token order, from one replica: what that replica has.
    ///
    /// `after` is the `next` of the page before. Tombstones and expired values are included; the caller filters.
    fn scan(
        &self,
        partition: u32,
        after: Option<Bytes>,
        items_max: usize,
    ) -> impl Future<Output = Result<ScanPage, RequestError>> + Send;

    /// Number of keys in the cluster: what every owner counts for its partitions, tombstones left out, expired keys
    /// counted until they are swept.
    fn key_count(&self) -> impl Future<Output = Result<u64, RequestError>> + Send;

    /// The ring this node serves by; `None` until it has received one.
    fn ring(&self) -> Option<Arc<RingView>>;

    /// Bounds in force.
    fn limits(&self) -> &Limits;

    /// Wall clock in milliseconds since 1970, as this node reads it.
    fn now_ms(&self) -> u64;

    /// What INFO and the metrics page tell of this node.
    fn overview(&self) -> Overview;
}

/// How a read is to be done. The default asks what the cluster says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Replicas to ask, capped at the list's length; `None`: the cluster's r.
    pub replicas: Option<u8>,
    /// Do not let fallbacks answer for unreachable replicas. `false`: as the cluster says.
    pub strict: bool,
}

/// How a write is to be done. The default does what the cluster says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Replicas that must have it durably, capped at each list's length; `None`: the cluster's w.
    pub replicas: Option<u8>,
    /// Do not let hints at fallbacks count. `false`: as the cluster says.
    pub strict: bool,
    /// Fail when the key's lists change while the write is under way, rather than follow them.
    pub fenced: bool,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// A value or a tombstone.
    pub payload: Payload,
    /// When it ceases to be readable, in milliseconds since 1970; `None`: never.
    pub expires_at_ms: Option<u64>,
    /// What it replaces.
    pub causality: Causality,
}

/// What a write replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Causality {
    /// All that the coordinating replica knows: last writer wins.
    Overwrite,
    /// What this context covers; an empty one replaces nothing.
    Context(Context),
}

/// A write that w replicas have durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Timestamp the write was given.
    pub timestamp: Hlc,
    /// Causal context after the write, at the coordinating replica.
    pub context: Context,
    /// Whether the coordinating replica had a live value before.
    pub existed: bool,
}

/// One page of a partition.
#[derive(Clone, Debug, Default)]
pub struct ScanPage {
    /// Keys and their objects in token order.
    pub items: Vec<(Bytes, Object)>,
    /// Cursor for the next page; `None`: the partition is at its end.
    pub next: Option<Bytes>,
}

/// What a node tells of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overview {
    /// Identity of the data directory.
    pub incarnation: Uuid,
    /// Name, such as the pod's.
    pub name: String,
    /// Epoch installed; zero: none.
    pub epoch: u64,
    /// Keys stored here, tombstones left out.
    pub keys: u64,
    /// Bytes of keys and objects stored here.
    pub bytes: u64,
    /// Hints held for others.
    pub hints: u64,
    /// Their bytes.
    pub hint_bytes: u64,
    /// Partitions being copied to this node.
    pub copying_partitions: u32,
    /// Bytes received by moves since the process started.
    pub moved_bytes: u64,
    /// Bytes handed out to members that copy from here since the process started, what they never received included.
    pub handed_out_bytes: u64,
    /// Bytes a second that moves may bring here at present, by what clients feel of them.
    pub transfer_bytes_per_second: f64,
    /// Comparisons with other members that this node has begun since the process started.
    pub repair_comparisons: u64,
    /// Of these, the ones that ended early.
    pub repair_failures: u64,
    /// Objects they brought here.
    pub repaired_here: u64,
    /// Objects they brought to the others.
    pub repaired_there: u64,
    /// Bytes they exchanged.
    pub repair_bytes: u64,
    /// Age of the oldest write that a hint here holds, in milliseconds; zero: there is none.
    pub hint_age_ms: u64,
    /// Writes refused because the key had too many siblings.
    pub siblings_refused: u64,
    /// Reads for which a further replica was asked because one was slow.
    pub hedged_reads: u64,
    /// Objects here that were deleted and wait for every member to be asked.
    pub dead: u64,
    /// Objects removed everywhere, deleted or expired, under this node's lead since it started.
    pub collected: u64,
    /// Attempts at that which ended early, as when a member is away.
    pub collect_failures: u64,
    /// Whether the node has a ring that names it and may be sent requests.
    pub ready: bool,
    /// Names of members that this node cannot reach now.
    pub unreachable: Vec<String>,
    /// Free and total bytes of the file system that holds the data.
    pub disk_bytes_free: u64,
    /// Total bytes of that file system.
    pub disk_bytes_total: u64,
}

/// Why a request was not carried out, and what became of the data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The node has received no ring yet. Nothing was read or written.
    #[error("this node has no ring yet; it serves as soon as the operator has published one")]
    NoRing,
    /// Too few replicas answered. A write may have been stored at some of them and may yet become visible.
    #[error("{got} of {need} needed replicas answered; missing: {missing}")]
    Unavailable {
        /// Replicas that answered.
        got: usize,
        /// Replicas needed.
        need: usize,
        /// Names of those that did not, with reasons.
        missing: String,
    },
    /// Queues are full. Nothing was written.
    #[error("overloaded: {0}; try again later")]
    Overloaded(&'static str),
    /// The key is longer than allowed. Nothing was written.
    #[error("the key has {bytes} bytes; the limit is {bytes_max}")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The value is longer than allowed. Nothing was written.
    #[error("the value has {bytes} bytes; the limit is {bytes_max}")]
    ValueTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The key has as many concurrent values as allowed. Nothing was written; read, merge and put with the context.
    #[error(
        "the key has {siblings} concurrent values, the most allowed; get them, merge and put with the context"
    )]
    TooManySiblings {
        /// How many.
        siblings: usize,
    },
    /// The disk is full. Nothing was written here; reads go on.
    #[error(
        "disk full: {bytes_free} bytes free, {bytes_reserved} kept in reserve; writes resume when there is room"
    )]
    DiskFull {
        /// Free now.
        bytes_free: u64,
        /// Below this, writes are refused.
        bytes_reserved: u64,
    },
    /// The storage engine failed. A write may have been stored.
    #[error("storage failed: {0}")]
    Storage(String),
    /// The request cannot be carried out as asked. Nothing was written.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// Time ran out. A write may have been stored.
    #[error("timed out after {0:?}")]
    TimedOut(std::time::Duration),
}

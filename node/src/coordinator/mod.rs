//! Carrying out reads and writes on the replicas of a key.
//!
//! Any node takes any request. A write is coordinated by a replica of the key: this node if it is one, else the first
//! replica that can be reached (`forward`). A read asks r replicas (`get`).

mod api;
mod change;
mod forward;
mod get;
mod plain_read;
mod plain_write;
mod put;
mod replicate;
mod scan;
mod serve;

pub use api::{Causality, KeyValue, Overview, ReadOptions, RequestError, ScanPage, Write, WriteOptions, Written};

use crate::config::Limits;
use crate::handoff::Foreground;
use crate::peers::Peers;
use crate::replica::{Replica, ReplicaError};
use crate::ring_state::{Installed, RingState};
use crate::storage::StorageError;
use bytes::Bytes;
use dynamo::hedge::Budget;
use dynamo::object::{Change, Object, Outcome};
use dynamo::ring::RingView;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The coordinator of a node.
#[derive(Clone)]
pub struct Coordinator {
    parts: Arc<Parts>,
}

/// What a coordinator works with.
pub struct Parts {
    /// Name of this node, for people.
    pub name: String,
    /// Ring in force.
    pub ring: Arc<RingState>,
    /// Objects and hints of this node.
    pub replica: Arc<Replica>,
    /// The other members.
    pub peers: Arc<Peers>,
    /// Bounds.
    pub limits: Arc<Limits>,
    /// What may be read beyond what has to be.
    pub hedging: parking_lot::Mutex<Budget>,
    /// Reads for which a further replica was asked since the node started.
    pub hedged: Arc<AtomicU64>,
    /// What this node's clients feel of what is copied.
    pub foreground: Arc<Foreground>,
    /// What this node says of itself besides.
    pub vitals: Arc<dyn Fn() -> Overview + Send + Sync>,
}

impl Coordinator {
    /// Puts a coordinator together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    fn installed(&self) -> Result<Arc<Installed>, RequestError> {
        self.parts.ring.load().ok_or(RequestError::NoRing)
    }

    fn check_key(&self, key: &[u8]) -> Result<(), RequestError> {
        let (bytes, bytes_max) = (key.len(), self.parts.limits.key_bytes_max);
        if bytes > bytes_max { Err(RequestError::KeyTooLong { bytes, bytes_max }) } else { Ok(()) }
    }

    fn check_change(&self, change: &Change) -> Result<(), RequestError> {
        let (bytes, bytes_max) = (change.bytes(), self.parts.limits.value_bytes_max);
        if bytes > bytes_max { Err(RequestError::ValueTooLong { bytes, bytes_max }) } else { Ok(()) }
    }

    /// Bounds the time of a request.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, RequestError>>) -> Result<T, RequestError> {
        let limit = self.parts.limits.request_timeout;
        tokio::time::timeout(limit, work).await.unwrap_or(Err(RequestError::TimedOut(limit)))
    }
}

impl KeyValue for Coordinator {
    async fn get(&self, key: Bytes, options: ReadOptions) -> Result<Object, RequestError> {
        self.check_key(&key)?;
        self.read(key, options).await
    }

    fn get_now(&self, key: &Bytes, options: ReadOptions) -> Option<Object> {
        self.check_key(key).ok()?;
        self.read_here(key, options)
    }

    async fn put(&self, key: Bytes, write: Write, options: WriteOptions) -> Result<Written, RequestError> {
        self.check_key(&key)?;
        if let dynamo::object::Payload::Bytes(value) = &write.payload {
            let (bytes, bytes_max) = (value.len(), self.parts.limits.value_bytes_max);
            if bytes > bytes_max {
                return Err(RequestError::ValueTooLong { bytes, bytes_max });
            }
        }
        if let Some(written) = self.write_plainly(&key, &write, options).await {
            return written;
        }
        // Boxed, so that the usual write, which does not come here, is no larger for it.
        Box::pin(self.in_time(self.write(key, write, options))).await
    }

    async fn change(&self, key: Bytes, change: Change, options: WriteOptions) -> Result<Outcome, RequestError> {
        self.check_key(&key)?;
        self.check_change(&change)?;
        self.in_time(self.write_change(key, change, options)).await
    }

    async fn scan(
        &self,
        partition: u32,
        after: Option<Bytes>,
        items_max: usize,
    ) -> Result<ScanPage, RequestError> {
        self.in_time(self.scan_partition(partition, after, items_max)).await
    }

    async fn key_count(&self) -> Result<u64, RequestError> {
        self.in_time(self.count_keys()).await
    }

    fn ring(&self) -> Option<Arc<RingView>> {
        self.parts.ring.load().map(|installed| installed.view.clone())
    }

    fn limits(&self) -> &Limits {
        &self.parts.limits
    }

    fn now_ms(&self) -> u64 {
        self.parts.replica.now_ms()
    }

    fn overview(&self) -> Overview {
        (self.parts.vitals)()
    }
}

impl From<StorageError> for RequestError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::DiskFull { bytes_free, bytes_reserved } => Self::DiskFull { bytes_free, bytes_reserved },
            StorageError::Overloaded { .. } => Self::Overloaded("the commit queue is full"),
            other => Self::Storage(other.to_string()),
        }
    }
}

impl From<ReplicaError> for RequestError {
    fn from(error: ReplicaError) -> Self {
        match error {
            ReplicaError::TooManySiblings { siblings } => Self::TooManySiblings { siblings },
            ReplicaError::Storage(error) => error.into(),
            other => Self::Storage(other.to_string()),
        }
    }
}

//! The ring this node serves by: installed once for each epoch, persisted before it counts, and the fence that keeps
//! senders with another idea of a partition's lists from being answered.

use crate::planted;
use crate::storage::{Change, Committer, Engine, Space, StorageError};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use dynamo::preference::MemberIndex;
use dynamo::ring::{DocumentError, Ring, RingView, from_json, to_json};
use dynamo::token::Token;
use std::cmp::Ordering;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};
use uuid::Uuid;

/// Where the document in force is kept, among what a node keeps about itself.
pub const RING_KEY: &[u8] = b"ring";

/// A ring document as this node holds it.
#[derive(Debug)]
pub struct Installed {
    /// The document, ready for serving.
    pub view: Arc<RingView>,
    /// The document as JSON, for whoever is behind.
    pub json: Bytes,
    /// This node's index in it; `None` when it is not a member.
    pub me: Option<MemberIndex>,
}

/// What to do with a request about a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Both mean the same lists, whichever ring is the newer.
    Serve,
    /// The sender is behind, and the lists have changed since: refuse, and hand over the ring.
    SenderIsStale,
    /// The lists have changed in a ring that the sender has: fetch it first.
    ReceiverIsBehind,
}

impl Installed {
    /// Derives what serving needs from a document.
    fn new(ring: Ring, incarnation: Uuid) -> Option<Self> {
        let json = Bytes::from(to_json(&ring));
        let me = ring.member_by_incarnation(incarnation).map(|member| member.index);
        Some(Self { view: Arc::new(RingView::new(ring)?), json, me })
    }

    /// Decides about a request from a sender by whose ring the lists of the token's partition are what they are
    /// [since](RingView::since) that epoch.
    #[must_use]
    pub fn fence(&self, token: Token, since: u64) -> Fence {
        match since.cmp(&self.view.since(token)) {
            Ordering::Greater => Fence::ReceiverIsBehind,
            Ordering::Less if !planted::is("stale-epoch-accepted") => Fence::SenderIsStale,
            Ordering::Less | Ordering::Equal => Fence::Serve,
        }
    }
}

/// Why a ring document was not installed. The one before stays in force.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The text is not a ring document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It belongs to another cluster.
    #[error("the ring is of cluster {theirs}; this node belongs to cluster {ours}")]
    OtherCluster {
        /// This node's.
        ours: Uuid,
        /// The document's.
        theirs: Uuid,
    },
    /// It could not be persisted.
    #[error("the ring could not be stored: {0}")]
    Storage(#[from] StorageError),
}

/// Holder of the installed ring.
pub struct RingState {
    cluster: Uuid,
    incarnation: Uuid,
    installed: ArcSwapOption<Installed>,
    epoch: watch::Sender<u64>,
    installing: Mutex<()>,
    committer: Committer,
}

impl RingState {
    /// Takes up the ring that was persisted last, if there is one.
    ///
    /// # Errors
    /// When the engine cannot be read. A persisted document that cannot be read, or is of another cluster, is
    /// passed over with a warning: the operator or a peer hands over a good one.
    pub fn open(
        cluster: Uuid,
        incarnation: Uuid,
        engine: &dyn Engine,
        committer: Committer,
    ) -> Result<Self, crate::storage::EngineError> {
        let mut installed = None;
        if let Some(json) = engine.get(Space::Meta, RING_KEY)? {
            match from_json(&json) {
                Ok(ring) if ring.cluster == cluster => installed = Installed::new(ring, incarnation),
                Ok(ring) => tracing::warn!(cluster = %ring.cluster, "the stored ring is of another cluster"),
                Err(error) => tracing::warn!(%error, "the stored ring cannot be read"),
            }
        }
        let epoch = installed.as_ref().map_or(0, |installed| installed.view.epoch());
        Ok(Self {
            cluster,
            incarnation,
            installed: ArcSwapOption::from(installed.map(Arc::new)),
            epoch: watch::Sender::new(epoch),
            installing: Mutex::new(()),
            committer,
        })
    }

    /// UID of the cluster this node belongs to.
    #[must_use]
    pub fn cluster(&self) -> Uuid {
        self.cluster
    }

    /// Identity of this node's data directory.
    #[must_use]
    pub fn incarnation(&self) -> Uuid {
        self.incarnation
    }

    /// The ring in force.
    #[must_use]
    pub fn load(&self) -> Option<Arc<Installed>> {
        self.installed.load_full()
    }

    /// A short look at the installed ring; `None`: there is none.
    pub fn look<T>(&self, look: impl FnOnce(&Installed) -> T) -> Option<T> {
        self.installed.load().as_deref().map(look)
    }

    /// Its epoch; zero when there is none.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        *self.epoch.borrow()
    }

    /// Told of each installed epoch.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// Waits until at least `epoch` is installed. Never returns if that never happens: put a timeout around it.
    pub async fn reached(&self, epoch: u64) {
        let mut watch = self.epoch.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = watch.wait_for(|installed| *installed >= epoch).await;
    }

    /// Installs a document if it is newer than the one in force; returns the epoch in force afterwards.
    ///
    /// `fence_writers` must return only when every write that was let in by the old ring is in the commit queue: from
    /// then on a snapshot taken behind the queue holds all of them.
    ///
    /// # Errors
    /// [`InstallError`]; the ring before stays in force.
    pub async fn install(&self, json: &[u8], fence_writers: impl Fn()) -> Result<u64, InstallError> {
        let ring = from_json(json)?;
        if ring.cluster != self.cluster {
            return Err(InstallError::OtherCluster { ours: self.cluster, theirs: ring.cluster });
        }
        let _one_at_a_time = self.installing.lock().await;
        let current = self.look(|installed| installed.view.epoch()).unwrap_or(0);
        if ring.epoch <= current {
            return Ok(current);
        }
        let epoch = ring.epoch;
        let Some(installed) = Installed::new(ring, self.incarnation) else {
            return Ok(current);
        };
        if !planted::is("ring-not-persisted") {
            self.persist(installed.json.clone()).await?;
        }
        self.installed.store(Some(Arc::new(installed)));
        fence_writers();
        self.epoch.send_replace(epoch);
        tracing::debug!(epoch, "ring installed");
        Ok(epoch)
    }

    async fn persist(&self, json: Bytes) -> Result<(), StorageError> {
        let change = Change::Put { space: Space::Meta, key: Bytes::from_static(RING_KEY), value: json };
        let reservation = self.committer.reserve_control().await;
        self.committer.submit(vec![change], reservation).await
    }
}

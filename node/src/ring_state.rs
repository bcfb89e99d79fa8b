//! The ring this node serves by: installed once for each epoch, persisted before it counts, and the fence that keeps
//! senders with another idea of a partition's lists from being answered.

use crate::planted;
use crate::storage::{Change, Committer, Engine, EngineError, Space, StorageError};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use dynamo::preference::MemberIndex;
use dynamo::ring::{DocumentError, Ring, RingView, from_json, to_json};
use dynamo::token::Token;
use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering as Atomically};
use tokio::sync::{Mutex, watch};
use uuid::Uuid;

/// Where the document in force is kept, among what a node keeps about itself.
pub const RING_KEY: &[u8] = b"ring";

/// Whether this node has said that it may go, in the same place: what is in its data directory is not to be used any more
/// once the process has ended. An empty record; see [`RingState::retire`].
const RETIRED_KEY: &[u8] = b"retired";

/// Whether what an engine holds was given up by the node that had it: it is to be emptied, and whoever starts on it is
/// another incarnation.
///
/// # Errors
/// When the engine cannot be read.
pub fn is_retired(engine: &dyn Engine) -> Result<bool, EngineError> {
    Ok(engine.get(Space::Meta, RETIRED_KEY)?.is_some())
}

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
    retired: AtomicBool,
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
    ) -> Result<Self, EngineError> {
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
            retired: AtomicBool::new(is_retired(engine)?),
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
        let wanted = installed.me.is_some_and(|me| !installed.view.ring().is_released(me));
        if !planted::is("ring-not-persisted") {
            self.persist(installed.json.clone(), wanted && self.is_retired()).await?;
        }
        if wanted {
            self.retired.store(false, Atomically::Release);
        }
        self.installed.store(Some(Arc::new(installed)));
        fence_writers();
        self.epoch.send_replace(epoch);
        tracing::debug!(epoch, "ring installed");
        Ok(epoch)
    }

    /// Gives up what this node holds, if it still serves by the ring of `epoch`, is on its way out and in no list.
    /// [Then](Self::is_retired) it is durable: whoever starts on the data directory is another incarnation, with nothing
    /// in it, unless this one is wanted again before its process ends.
    ///
    /// # Errors
    /// [`StorageError`]; nothing was given up.
    pub async fn retire(&self, epoch: u64) -> Result<(), StorageError> {
        let _one_at_a_time = self.installing.lock().await;
        let released = |installed: &Installed| {
            installed.view.epoch() == epoch && installed.me.is_some_and(|me| installed.view.ring().is_released(me))
        };
        if !self.is_retired() && self.look(released).unwrap_or(false) {
            let key = Bytes::from_static(RETIRED_KEY);
            self.commit(vec![Change::Put { space: Space::Meta, key, value: Bytes::new() }]).await?;
            self.retired.store(true, Atomically::Release);
            tracing::info!(epoch, "nothing depends on this node any more; its data directory is given up");
        }
        Ok(())
    }

    /// Whether this node has given up what it holds, and is not wanted again.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.load(Atomically::Acquire)
    }

    /// Keeps the document, and takes back in the same commit that this node has given up what it holds.
    async fn persist(&self, json: Bytes, wanted_again: bool) -> Result<(), StorageError> {
        let mut changes = vec![Change::Put { space: Space::Meta, key: Bytes::from_static(RING_KEY), value: json }];
        if wanted_again {
            changes.push(Change::Remove { space: Space::Meta, key: Bytes::from_static(RETIRED_KEY) });
        }
        self.commit(changes).await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StorageError> {
        let reservation = self.committer.reserve_control().await;
        self.committer.submit(changes, reservation).await
    }
}

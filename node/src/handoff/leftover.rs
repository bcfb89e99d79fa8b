//! What is left of partitions that the ring no longer lists this node for: handed over, then dropped. A node that is on
//! its way out drops nothing: once all is handed over it gives up its data directory as a whole.

use super::ITEMS_AT_ONCE;
use super::foreground::Foreground;
use super::give_way::GiveWay;
use super::hand_over::{HandOverError, hand_over};
use super::handed_over::HandedOver;
use crate::peers::Peers;
use crate::planted;
use crate::replica::{PageBounds, RemovedPage, Replica, ReplicaError};
use crate::ring_state::{Installed, RingState};
use crate::storage::{ScanRange, Space};
use bytes::Bytes;
use dynamo::ring::{MemberState, Phase, Placement};
use dynamo::token;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What is dropped at once.
const PAGE: PageBounds = PageBounds { items: 128, bytes: 1 << 20 };
/// Percentage of the disk that has to be free for what is left over to wait until nothing is copied any more.
const LEFTOVERS_WAIT_FREE: u64 = 10;
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What a node has left over.
pub struct Leftovers {
    ring: Arc<RingState>,
    replica: Arc<Replica>,
    peers: Arc<Peers>,
    foreground: Arc<Foreground>,
}

impl Leftovers {
    /// Leftovers of this replica. Its clients' latencies are in `foreground`: dropping gives way to them.
    #[must_use]
    pub fn new(
        ring: Arc<RingState>,
        replica: Arc<Replica>,
        peers: Arc<Peers>,
        foreground: Arc<Foreground>,
    ) -> Self {
        Self { ring, replica, peers, foreground }
    }

    /// Sees to leftovers after each ring change until shutdown.
    ///
    /// What is here is handed over before it goes: see `hand_over`.
    pub async fn run_until(self, shutdown: CancellationToken) {
        let mut epochs = self.ring.watch();
        let mut handed_over = HandedOver::default();
        loop {
            let seen_to = async {
                let Some(installed) = self.ring.load() else { return };
                if leaves(&installed) && has_room(&self.replica) {
                    self.retire(&installed, &mut handed_over).await;
                } else {
                    self.drop_all(&installed).await;
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = seen_to => {}
            }
            let left = self.ring.load().is_some_and(|ring| left(&ring, &self.ring, &self.replica) > 0);
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = epochs.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY_PAUSE), if left => {}
            }
        }
    }

    /// Hands over what is left over here, and gives up the data directory once that is everything. Until then others may
    /// copy from here, and this node may be wanted again: so nothing is dropped before, and nothing has to be after.
    async fn retire(&self, installed: &Installed, handed_over: &mut HandedOver) {
        let mut complete = true;
        for partition in leftovers(installed, &self.replica) {
            if handed_over.contains(&installed.view, partition) {
                continue;
            }
            match self.hand_over(installed, partition, None, "given-up-unhanded").await {
                Ok(()) => handed_over.insert(&installed.view, partition),
                Err(error) => {
                    tracing::warn!(partition, %error, "a partition could not be handed over yet");
                    complete = false;
                }
            }
        }
        if complete && let Err(error) = self.ring.retire(installed.view.epoch()).await {
            tracing::warn!(%error, "the data directory could not be given up yet");
        }
    }

    /// Drops what the ring leaves over, unless something is to be copied first.
    async fn drop_all(&self, installed: &Installed) {
        let pace = GiveWay::new(self.foreground.clone());
        for partition in leftovers(installed, &self.replica) {
            if self.ring.load().is_some_and(|now| copies(&now)) && has_room(&self.replica) {
                return;
            }
            if let Err(error) = self.drop_partition(installed, partition, &pace).await {
                tracing::warn!(partition, %error, "a leftover partition could not be dropped yet");
            }
        }
    }
}

/// Whether this node is on its way out.
fn leaves(installed: &Installed) -> bool {
    let me = installed.me.and_then(|me| installed.view.member(me));
    me.is_some_and(|me| me.state == MemberState::Leaving)
}

/// Whether partitions are copied from here or to here. Dropping takes a source as much of its processor as copying does,
/// and would hold up the newcomers.
fn copies(installed: &Installed) -> bool {
    let takes_part = |placement: &Placement| {
        let fills = placement.also.as_ref().is_some_and(|also| also.phase == Phase::Filling);
        fills && installed.me.is_some_and(|me| placement.names(me))
    };
    installed.view.ring().partitions.iter().any(takes_part)
}

/// Whether what is left over does no harm for a while.
fn has_room(replica: &Replica) -> bool {
    replica.engine().disk().is_ok_and(|disk| disk.bytes_free > disk.bytes_total / 100 * LEFTOVERS_WAIT_FREE)
}

/// Why a partition was not dropped, or not all of it.
#[derive(Debug, thiserror::Error)]
enum DropError {
    #[error(transparent)]
    HandOver(#[from] HandOverError),
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

/// How many partitions this node has yet to hand over: those that have data here and name it in neither list. None is left
/// once the whole data directory is given up.
pub(crate) fn left(installed: &Installed, ring: &RingState, replica: &Replica) -> usize {
    if ring.is_retired() { 0 } else { leftovers(installed, replica).len() }
}

/// Partitions with data here that name this node in neither list.
fn leftovers(installed: &Installed, replica: &Replica) -> Vec<u32> {
    let counters = replica.counters();
    let named = |partition: u32| {
        let placement = installed.view.placement(partition);
        let names = |placement: &Placement, me| match planted::is("leftovers-ignore-second-list") {
            true => placement.preference.contains(&me),
            false => placement.names(me),
        };
        placement.is_none_or(|placement| installed.me.is_some_and(|me| names(placement, me)))
    };
    let count = installed.view.count();
    (0..count.get()).filter(|&partition| !named(partition) && counters.of(partition, count).items > 0).collect()
}

impl Leftovers {
    /// Sees to it that those who hold a partition now have what is here of it, unless that bug is planted.
    async fn hand_over(
        &self,
        installed: &Installed,
        partition: u32,
        pace: Option<&GiveWay>,
        unless: &str,
    ) -> Result<(), DropError> {
        let Self { ring, replica, peers, .. } = self;
        replica.committer().barrier().await.map_err(ReplicaError::from)?;
        if !planted::is(unless) {
            hand_over(ring, replica, peers, installed, partition, pace).await?;
        }
        Ok(())
    }

    async fn drop_partition(
        &self,
        installed: &Installed,
        partition: u32,
        pace: &GiveWay,
    ) -> Result<(), DropError> {
        let Self { ring, replica, .. } = self;
        let count = installed.view.count();
        let first = token::first_token(partition, count).0;
        let mut range = ScanRange::tokens(first, token::last_token(partition, count).0);
        self.hand_over(installed, partition, Some(pace), "leftovers-dropped-unhanded").await?;
        loop {
            let still = ring.load().is_some_and(|now| leftovers(&now, replica).contains(&partition));
            let (bytes, after) = match replica.drop_unlisted_page(&range, PAGE).await? {
                Some(RemovedPage { bytes, after, submitted }) => {
                    if let Some(removed) = submitted {
                        removed.await.map_err(ReplicaError::from)?;
                    }
                    (bytes, after)
                }
                None => self.drop_one_by_one(&range).await?,
            };
            pace.pay(bytes as u64).await;
            if after.is_none() || !still {
                return Ok(());
            }
            range.after = after;
        }
    }

    /// The same for a page on which too much happens for that: returns its bytes, and where the next begins.
    async fn drop_one_by_one(&self, range: &ScanRange) -> Result<(usize, Option<Bytes>), ReplicaError> {
        let page = self.replica.engine().scan(Space::Data, range, PAGE.items, PAGE.bytes)?;
        let mut removals = Vec::with_capacity(page.items.len());
        for (at, (storage_key, _)) in page.items.iter().enumerate() {
            if at % ITEMS_AT_ONCE == ITEMS_AT_ONCE - 1 {
                // Requests go first.
                tokio::task::yield_now().await;
            }
            removals.extend(self.replica.drop_unlisted(storage_key).await?);
        }
        for removed in removals {
            removed.await?;
        }
        let bytes = page.items.iter().map(|(key, object)| key.len() + object.len()).sum();
        Ok((bytes, page.items.last().filter(|_| page.more).map(|(key, _)| key.clone())))
    }
}

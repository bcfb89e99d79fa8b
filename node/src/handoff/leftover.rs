//! Dropping partitions that the ring no longer lists this node for.

use super::hand_over::{HandOverError, hand_over};
use crate::peers::Peers;
use crate::planted;
use crate::replica::{Replica, ReplicaError};
use crate::ring_state::{Installed, RingState};
use crate::storage::{ScanRange, Space};
use dynamo::ring::Placement;
use dynamo::token;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PAGE_ITEMS: usize = 512;
const PAGE_BYTES: usize = 4 << 20;
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Drops leftovers after each ring change until shutdown.
///
/// What is here is handed over first: see `hand_over`.
pub async fn drop_leftovers(
    ring: Arc<RingState>,
    replica: Arc<Replica>,
    peers: Arc<Peers>,
    shutdown: CancellationToken,
) {
    let mut epochs = ring.watch();
    loop {
        if let Some(installed) = ring.load() {
            for partition in leftovers(&installed, &replica) {
                if shutdown.is_cancelled() {
                    return;
                }
                let dropped = tokio::select! {
                    () = shutdown.cancelled() => return,
                    dropped = drop_partition(&ring, &replica, &peers, &installed, partition) => dropped,
                };
                if let Err(error) = dropped {
                    tracing::warn!(partition, %error, "a leftover partition could not be dropped yet");
                }
            }
        }
        let left = ring.load().is_some_and(|installed| !leftovers(&installed, &replica).is_empty());
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = epochs.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY_PAUSE), if left => {}
        }
    }
}

/// Why a partition was not dropped, or not all of it.
#[derive(Debug, thiserror::Error)]
enum DropError {
    #[error(transparent)]
    HandOver(#[from] HandOverError),
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

/// Partitions with data here that name this node in neither list.
pub(crate) fn leftovers(installed: &Installed, replica: &Replica) -> Vec<u32> {
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

async fn drop_partition(
    ring: &RingState,
    replica: &Replica,
    peers: &Peers,
    installed: &Installed,
    partition: u32,
) -> Result<(), DropError> {
    let count = installed.view.count();
    let first = token::first_token(partition, count).0;
    let mut range = ScanRange::tokens(first, token::last_token(partition, count).0);
    replica.committer().barrier().await.map_err(ReplicaError::from)?;
    if !planted::is("leftovers-dropped-unhanded") {
        hand_over(ring, replica, peers, installed, partition).await?;
    }
    loop {
        let still = ring.load().is_some_and(|now| leftovers(&now, replica).contains(&partition));
        let page =
            replica.engine().scan(Space::Data, &range, PAGE_ITEMS, PAGE_BYTES).map_err(ReplicaError::from)?;
        let mut removals = Vec::with_capacity(page.items.len());
        for (storage_key, _) in &page.items {
            removals.extend(replica.drop_unlisted(storage_key).await?);
        }
        for removed in removals {
            removed.await.map_err(ReplicaError::from)?;
        }
        match page.items.last() {
            Some((last, _)) if page.more && still => range.after = Some(last.clone()),
            _ => break,
        }
    }
    Ok(())
}

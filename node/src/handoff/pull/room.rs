//! How much may be on its way at once: asked for and not yet durable, so that a host that loses power is sent it again. Of
//! that, what was asked for and is not kept aside yet is sent again to a process that is killed.
//!
//! Parts of all that is to be copied, which is known only roughly: from what holders say of the partitions.

use crate::handoff::spool::Kept;
use crate::storage::{StorageError, Submitted};
use dynamo::throttle::under_way_max;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// What a bound is divided into.
const PLACES: u32 = 1 << 10;
/// Part of what may be asked for that a page takes at most, so that several partitions are copied at once.
const PAGE_PART: u64 = 4;
/// Part of what may be on its way that a page takes at most: where pages land as runs, some of them wait for others.
const WAITING_PAGE_PART: u64 = 12;
/// Part of what may be on its way that waits for the turn of a partition to land.
const WAITING_PART: u64 = 8;
/// Pages land as runs if so many bytes may be on their way. With fewer an engine would get runs so short that their flushes
/// cost more than the rest.
const RUN_BOUND_MIN: u64 = 8 << 20;
/// Smaller pages would cost more than they are worth.
const PAGE_BYTES_MIN: u64 = 16 << 10;

/// Bounds what all pulls of a node have on their way.
pub(super) struct Rooms {
    under_way: Arc<Semaphore>,
    asked: Arc<Semaphore>,
    least: u64,
    /// Whether a process that is killed leaves to the next what it had received.
    spooled: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `since` of the target that all this is about.
    since: u64,
    /// Partitions that it brings here.
    partitions: u64,
    /// What holders have said of some of them.
    heard: u64,
    heard_bytes: u64,
}

/// The place of one page, and where the page is kept aside.
pub(super) struct Room {
    _under_way: Option<OwnedSemaphorePermit>,
    asked: Option<OwnedSemaphorePermit>,
    kept: Option<JoinHandle<Option<Kept>>>,
}

/// What a page may take: bytes, and places of both bounds.
struct Share {
    bytes: u32,
    under_way: u32,
    asked: u32,
}

impl Rooms {
    /// `least`: bytes that may be on their way, however few there are. `spooled`: they survive the process.
    pub(super) fn new(least: u64, spooled: bool) -> Self {
        let [under_way, asked] = [(); 2].map(|()| Arc::new(Semaphore::new(PLACES as usize)));
        Self { under_way, asked, least, spooled, state: Mutex::default() }
    }

    /// Copying for a target, which brings so many partitions here.
    pub(super) fn expect(&self, since: u64, partitions: impl FnOnce() -> usize) {
        let mut state = self.state.lock();
        if state.since != since {
            *state = State { since, partitions: partitions() as u64, ..State::default() };
        }
    }

    /// A holder has said how large a partition is.
    pub(super) fn learn(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.heard += 1;
        state.heard_bytes += bytes;
    }

    /// Waits for room for a page of at most so many bytes; returns how many it may have. Whoever holds room until another
    /// page has come must not wait for it, or all might wait for each other.
    pub(super) async fn take(&self, bytes_max: u32) -> (Room, u32) {
        let Share { bytes, under_way, asked } = self.share(bytes_max);
        // Never closed.
        let under_way = self.under_way.clone().acquire_many_owned(under_way).await.ok();
        let asked = self.asked.clone().acquire_many_owned(asked).await.ok();
        (Room { _under_way: under_way, asked, kept: None }, bytes)
    }

    /// How many pages of at most so many bytes may wait for the turn of their partition to land: with those of the others
    /// they must leave room for the one whose turn it is.
    pub(super) fn pages_waiting_max(&self, bytes_max: u32) -> usize {
        let (under_way, asked) = self.bounds();
        let waiting = under_way / WAITING_PART / u64::from(bytes_max).min(page_bytes_max(under_way, asked));
        usize::try_from(waiting).unwrap_or(usize::MAX)
    }

    fn share(&self, bytes_max: u32) -> Share {
        let (under_way, asked) = self.bounds();
        let bytes = u64::from(bytes_max).min(page_bytes_max(under_way, asked));
        let places = |bound| {
            let places = (bytes * u64::from(PLACES)).div_ceil(bound).clamp(1, u64::from(PLACES));
            u32::try_from(places).unwrap_or(PLACES)
        };
        let (under_way, asked) = (places(under_way), places(asked));
        Share { bytes: u32::try_from(bytes).unwrap_or(bytes_max), under_way, asked }
    }

    /// Whether there is room for pages to land as runs.
    pub(super) fn is_ample(&self) -> bool {
        self.bounds().0 >= RUN_BOUND_MIN
    }

    /// Bytes that may be on their way until they are durable, and that may be asked for until they are kept aside.
    fn bounds(&self) -> (u64, u64) {
        let state = self.state.lock();
        let mean = state.heard_bytes / state.heard.max(1);
        let bound = |spooled| under_way_max(mean.saturating_mul(state.partitions), self.least, spooled);
        (bound(self.spooled), bound(false))
    }
}

fn page_bytes_max(under_way: u64, asked: u64) -> u64 {
    (asked / PAGE_PART).min(under_way / WAITING_PAGE_PART).max(PAGE_BYTES_MIN)
}

impl Room {
    /// Its page has come, and is being kept aside.
    pub(super) fn keep(&mut self, kept: impl Future<Output = Option<Kept>> + Send + 'static) {
        let asked = self.asked.take();
        self.kept = Some(tokio::spawn(async move {
            let kept = kept.await;
            drop(asked);
            kept
        }));
    }

    /// Kept until its page is durable.
    pub(super) async fn until(self, submitted: Submitted) -> Result<(), StorageError> {
        submitted.await?;
        self.landed().await;
        Ok(())
    }

    /// Its page is durable.
    pub(super) async fn landed(self) {
        let Some(kept) = self.kept else { return };
        if let Ok(Some(kept)) = kept.await {
            kept.landed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::pull::fetch_ahead::WAITING_MAX;
    use crate::handoff::pull::order::AHEAD;

    const LEAST: u64 = 512 << 10;
    const PARTITIONS: u64 = 192;

    #[test]
    fn whoever_waits_for_a_turn_leaves_room_for_the_one_that_has_it() {
        for move_bytes in [64 << 20, 217 << 20, 1 << 30, 8 << 30] {
            for spooled in [false, true] {
                let rooms = Rooms::new(LEAST, spooled);
                rooms.expect(1, || PARTITIONS as usize);
                rooms.learn(move_bytes / PARTITIONS + 1);
                if !rooms.is_ample() {
                    continue;
                }
                let page = rooms.share(1 << 20).bytes;
                // Those that wait in line, and the one that waits for its turn or is on its way.
                let waiting = AHEAD * (rooms.pages_waiting_max(1 << 20).min(WAITING_MAX) + 1);
                let bytes = (waiting as u64 + 1) * u64::from(page);
                assert!(bytes <= rooms.bounds().0, "{bytes} of {:?}, {move_bytes} {spooled}", rooms.bounds());
            }
        }
    }
}

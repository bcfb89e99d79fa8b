//! How much may be on its way at once: asked for and not yet durable, so that a crash loses it and it is sent again.
//!
//! A small part of all that is to be copied, which is known only roughly: from what holders say of the partitions.

use crate::storage::{StorageError, Submitted};
use dynamo::throttle::under_way_max;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What the bound is divided into.
const PLACES: u32 = 1 << 10;
/// Part of the bound that a page takes at most, so that several partitions are copied at once.
const PAGE_PART: u64 = 8;
/// Smaller pages would cost more than they are worth.
const PAGE_BYTES_MIN: u64 = 16 << 10;

/// Bounds what all pulls of a node have on their way.
pub(super) struct Rooms {
    places: Arc<Semaphore>,
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

/// The place of one page.
pub(super) struct Room(#[expect(dead_code, reason = "kept until it is dropped")] Option<OwnedSemaphorePermit>);

impl Rooms {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(PLACES as usize)), state: Mutex::default() }
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

    /// Waits for room for a page of at most so many bytes; returns how many it may have.
    pub(super) async fn take(&self, bytes_max: u32) -> (Room, u32) {
        let bound = self.bound();
        let bytes = u64::from(bytes_max).min((bound / PAGE_PART).max(PAGE_BYTES_MIN));
        let places = (bytes * u64::from(PLACES)).div_ceil(bound).clamp(1, u64::from(PLACES));
        let places = u32::try_from(places).unwrap_or(PLACES);
        // Never closed.
        let permit = self.places.clone().acquire_many_owned(places).await.ok();
        (Room(permit), u32::try_from(bytes).unwrap_or(bytes_max))
    }

    fn bound(&self) -> u64 {
        let state = self.state.lock();
        let mean = state.heard_bytes / state.heard.max(1);
        under_way_max(mean.saturating_mul(state.partitions))
    }
}

impl Room {
    /// Kept until something is durable.
    pub(super) async fn until(self, submitted: Submitted) -> Result<(), StorageError> {
        submitted.await
    }
}

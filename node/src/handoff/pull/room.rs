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
/// The same where pages land as runs, for which some of them wait.
const RUN_PAGE_PART: u64 = 12;
/// Pages land as runs if the bound is so many bytes. With less on its way an engine would get runs so short that their
/// flushes cost more than the rest.
const RUN_BOUND_MIN: u64 = 8 << 20;
/// Smaller pages would cost more than they are worth.
const PAGE_BYTES_MIN: u64 = 16 << 10;

/// Bounds what all pulls of a node have on their way.
pub(super) struct Rooms {
    places: Arc<Semaphore>,
    least: u64,
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
    /// `least`: bytes that may be on their way, however few there are.
    pub(super) fn new(least: u64) -> Self {
        Self { places: Arc::new(Semaphore::new(PLACES as usize)), least, state: Mutex::default() }
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
        let (places, bytes) = self.page(bytes_max);
        // Never closed.
        let permit = self.places.clone().acquire_many_owned(places).await.ok();
        (Room(permit), bytes)
    }

    /// The same if there is room at once.
    pub(super) fn try_take(&self, bytes_max: u32) -> Option<(Room, u32)> {
        let (places, bytes) = self.page(bytes_max);
        let permit = self.places.clone().try_acquire_many_owned(places).ok()?;
        Some((Room(Some(permit)), bytes))
    }

    /// Places and bytes of a page.
    fn page(&self, bytes_max: u32) -> (u32, u32) {
        let bound = self.bound();
        let part = if bound < RUN_BOUND_MIN { PAGE_PART } else { RUN_PAGE_PART };
        let bytes = u64::from(bytes_max).min((bound / part).max(PAGE_BYTES_MIN));
        let places = (bytes * u64::from(PLACES)).div_ceil(bound).clamp(1, u64::from(PLACES));
        (u32::try_from(places).unwrap_or(PLACES), u32::try_from(bytes).unwrap_or(bytes_max))
    }

    /// Whether there is room for pages to land as runs.
    pub(super) fn is_ample(&self) -> bool {
        self.bound() >= RUN_BOUND_MIN
    }

    fn bound(&self) -> u64 {
        let state = self.state.lock();
        let mean = state.heard_bytes / state.heard.max(1);
        under_way_max(mean.saturating_mul(state.partitions), self.least)
    }
}

impl Room {
    /// Kept until something is durable.
    pub(super) async fn until(self, submitted: Submitted) -> Result<(), StorageError> {
        submitted.await
    }
}

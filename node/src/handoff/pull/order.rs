//! In which order partitions land as runs: that of their tokens, so that what the engine loads of them ends where the next
//! begins. Some of those behind are fetched meanwhile.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// So many partitions behind the one whose turn it is are fetched already. Together they must leave room for its own pages:
/// see `room`.
pub(super) const AHEAD: usize = 4;
/// If nothing lands for so long, the partition whose turn it is is passed over.
const PATIENCE: Duration = Duration::from_millis(250);

/// Partitions that are being copied.
pub(super) struct Order {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    /// Those that wait, or whose turn it is.
    copied: BTreeSet<u32>,
    /// When anything landed, or was passed over.
    moved: Instant,
}

/// The place of a partition, until it is dropped.
pub(super) struct Place<'a> {
    order: &'a Order,
    partition: u32,
}

impl Order {
    pub(super) fn new() -> Self {
        let state = State { copied: BTreeSet::new(), moved: Instant::now() };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    pub(super) fn enter(&self, partition: u32) -> Place<'_> {
        self.state.lock().copied.insert(partition);
        Place { order: self, partition }
    }

    fn moved(&self) {
        self.state.lock().moved = Instant::now();
        self.changed.notify_waiters();
    }

    /// Whoever has the turn, and has not come up with anything, lands whenever it does.
    fn pass_over(&self) {
        let mut state = self.state.lock();
        if state.moved.elapsed() >= PATIENCE {
            state.copied.pop_first();
            state.moved = Instant::now();
            drop(state);
            self.changed.notify_waiters();
        }
    }
}

impl Place<'_> {
    /// Waits until it is worth fetching.
    pub(super) async fn near(&self) {
        self.behind_at_most(AHEAD).await;
    }

    /// Waits for the turn to land.
    pub(super) async fn turn(&self) {
        self.behind_at_most(0).await;
    }

    /// A page has landed.
    pub(super) fn landed(&self) {
        self.order.moved();
    }

    /// Whether it is, or has been passed over.
    fn is_behind_at_most(&self, others: usize) -> bool {
        let state = self.order.state.lock();
        state.copied.range(..self.partition).count() <= others || !state.copied.contains(&self.partition)
    }

    async fn behind_at_most(&self, others: usize) {
        loop {
            let changed = self.order.changed.notified();
            if self.is_behind_at_most(others) {
                return;
            }
            if tokio::time::timeout(PATIENCE, changed).await.is_err() {
                self.order.pass_over();
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.order.state.lock().copied.remove(&self.partition);
        self.order.moved();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;

    async fn is_waiting(future: impl Future<Output = ()>) -> bool {
        tokio::time::timeout(PATIENCE / 2, future).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn partitions_land_in_their_order_and_few_are_fetched_ahead() {
        let order = Order::new();
        let places: Vec<Place<'_>> = [7, 5, 9, 6].map(|partition| order.enter(partition)).into();
        let [seven, five, nine, six] = <[Place<'_>; 4]>::try_from(places).ok().unwrap();
        five.turn().await;
        for place in [&six, &seven] {
            place.near().await;
            assert!(is_waiting(place.turn()).await);
            five.landed();
        }
        let many: Vec<Place<'_>> = (10..10 + AHEAD as u32).map(|partition| order.enter(partition)).collect();
        let last = many.last().unwrap();
        assert!(is_waiting(last.near()).await);
        drop([five, nine, six]);
        seven.turn().await;
        last.near().await;
        assert!(is_waiting(many[0].turn()).await);
        drop(seven);
        many[0].turn().await;
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long_for_a_partition_that_does_not_come() {
        let order = Order::new();
        let (stalled, next, last) = (order.enter(1), order.enter(2), order.enter(3));
        let began = Instant::now();
        next.turn().await;
        assert_eq!(began.elapsed(), PATIENCE, "one is passed over");
        assert!(is_waiting(last.turn()).await);
        drop(next);
        last.turn().await;
        stalled.turn().await;
    }
}

//! Grace periods: waiting until everything that was under way at some moment has ended.
//!
//! Whoever takes an object from a replica and passes it on, to a peer, into a hint or back into a replica, is in flight
//! meanwhile. Collecting tombstones waits for those that may have taken theirs before; see `dynamo::collect`. The
//! counting is that of sleepable read-copy-update: two counters that take turns, of which one drains.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Counts what is in flight.
#[derive(Debug, Default)]
pub struct Grace {
    turn: AtomicU64,
    open: [AtomicUsize; 2],
}

/// Something in flight, until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    grace: Arc<Grace>,
    side: usize,
}

impl Grace {
    /// Takes off. To be called before the object is read, and kept until nothing of it is under way any more.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> InFlight {
        loop {
            let turn = self.turn.load(SeqCst);
            let side = side(turn);
            self.open[side].fetch_add(1, SeqCst);
            // Nobody has begun to wait for the other side in between.
            if self.turn.load(SeqCst) == turn {
                return InFlight { grace: self.clone(), side };
            }
            self.open[side].fetch_sub(1, SeqCst);
        }
    }

    /// Returns when everything that was in flight at the call has ended. What takes off later is not waited for.
    pub async fn passed(&self) {
        // Two turns: the first drains the side that was left before the call, the second the one that was in use.
        let until = self.turn.load(SeqCst) + 2;
        loop {
            let turn = self.turn.load(SeqCst);
            if turn >= until {
                return;
            }
            if self.open[side(turn + 1)].load(SeqCst) == 0 {
                // Someone else who waits may have been faster; then this changes nothing.
                let _ = self.turn.compare_exchange(turn, turn + 1, SeqCst, SeqCst);
            } else {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        }
    }
}

impl Clone for InFlight {
    fn clone(&self) -> Self {
        // The side cannot be drained while this one is on it.
        self.grace.open[self.side].fetch_add(1, SeqCst);
        Self { grace: self.grace.clone(), side: self.side }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.grace.open[self.side].fetch_sub(1, SeqCst);
    }
}

fn side(turn: u64) -> usize {
    usize::from(turn % 2 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn waits_for_what_was_before_and_for_nothing_else() {
        let grace: Arc<Grace> = Arc::default();
        grace.passed().await;
        for _ in 0..5 {
            let before = grace.enter();
            let copy = before.clone();
            let mut passed = Box::pin(grace.passed());
            assert!(passed.as_mut().now_or_never().is_none());
            let after = grace.enter();
            drop(before);
            tokio::time::sleep(LOOK_PAUSE * 3).await;
            assert!(passed.as_mut().now_or_never().is_none(), "a copy is on its way");
            drop(copy);
            tokio::time::timeout(LOOK_PAUSE * 10, passed).await.expect("what came later does not count");
            drop(after);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_wait_ends_early_under_load() {
        let grace: Arc<Grace> = Arc::default();
        let tasks = (0..8).map(|_| {
            let grace = grace.clone();
            tokio::spawn(async move {
                for _ in 0..200 {
                    let ended = Arc::new(AtomicU64::new(0));
                    let flight = grace.enter();
                    let landing = {
                        let ended = ended.clone();
                        tokio::spawn(async move {
                            tokio::task::yield_now().await;
                            ended.store(1, SeqCst);
                            drop(flight);
                        })
                    };
                    grace.passed().await;
                    assert_eq!(ended.load(SeqCst), 1);
                    landing.await.unwrap();
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    }
}

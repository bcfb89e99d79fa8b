//! The pace of what a node does by itself, without anyone who waits for it: as fast as its clients bear, by the rule that
//! copying follows.

use super::foreground::{Foreground, WINDOW};
use dynamo::throttle::Throttle;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::time::Instant;

/// What has been done and what it costs at a rate: when the next may follow.
pub(super) struct Account {
    pub(super) throttle: Throttle,
    /// When all is paid for.
    next: Instant,
}

impl Account {
    pub(super) fn new(throttle: Throttle) -> Self {
        Self { throttle, next: Instant::now() }
    }

    /// Adds these bytes, just handled beside whoever is there; returns when they are paid for.
    pub(super) fn charge(&mut self, bytes: u64, foreground: &Foreground) -> Instant {
        foreground.work(bytes);
        if foreground.is_asked() {
            self.throttle.heed();
        }
        self.next = self.next.max(Instant::now()) + self.throttle.time_for(bytes);
        self.next
    }
}

/// Shared by whatever goes at this pace together. To be made anew when something begins: what clients bore long ago says
/// nothing.
pub(super) struct GiveWay {
    foreground: Arc<Foreground>,
    state: Mutex<State>,
}

struct State {
    account: Account,
    looked: Instant,
}

impl GiveWay {
    pub(super) fn new(foreground: Arc<Foreground>) -> Self {
        let account = Account::new(Throttle::new(None, foreground.pressure() <= 0.0));
        Self { foreground, state: Mutex::new(State { account, looked: Instant::now() }) }
    }

    /// Waits until these bytes, just handled, are paid for.
    pub(super) async fn pay(&self, bytes: u64) {
        let until = {
            let (now, mut state) = (Instant::now(), self.state.lock());
            if now - state.looked >= WINDOW {
                state.account.throttle.adjust(self.foreground.pressure());
                state.looked = now;
            }
            state.account.charge(bytes, &self.foreground)
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn it_hurries_only_while_nobody_is_there() {
        let foreground = Arc::new(Foreground::default());
        let (pace, begun) = (GiveWay::new(foreground.clone()), Instant::now());
        pace.pay(64 << 20).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "nobody is there: {:?}", begun.elapsed());
        foreground.record(2000);
        let begun = Instant::now();
        pace.pay(1 << 20).await;
        pace.pay(1 << 20).await;
        assert!(begun.elapsed() > Duration::from_secs(2), "somebody has come: {:?}", begun.elapsed());
    }
}

//! The pace at which all pulls of this node copy together.

use dynamo::throttle::Throttle;
use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// How long what a source has told of its clients counts.
const TOLD_LATELY: Duration = Duration::from_secs(1);

/// Shared by the pulls of a node.
pub(super) struct Pace {
    bytes_per_second_max: Option<u64>,
    state: Mutex<State>,
}

struct State {
    throttle: Throttle,
    /// When the next page may be asked for.
    next: Instant,
    /// The highest pressure that sources told of, and when.
    told: (f64, Instant),
}

impl Pace {
    pub(super) fn new(bytes_per_second_max: Option<u64>) -> Self {
        let now = Instant::now();
        Self {
            bytes_per_second_max,
            state: Mutex::new(State {
                throttle: Throttle::new(bytes_per_second_max),
                next: now,
                told: (0.0, now),
            }),
        }
    }

    /// A source has told how much its clients feel.
    pub(super) fn told(&self, pressure: f64) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if pressure >= state.told.0 || now - state.told.1 > TOLD_LATELY {
            state.told = (pressure, now);
        }
    }

    /// A window is over in which this node's own clients felt so much. `copying`: whether it copies; if not, the next
    /// time begins anew.
    pub(super) fn adjust(&self, own: f64, copying: bool) {
        let mut state = self.state.lock();
        if !copying {
            state.throttle = Throttle::new(self.bytes_per_second_max);
            return;
        }
        let told = if state.told.1.elapsed() <= TOLD_LATELY { state.told.0 } else { 0.0 };
        state.throttle.adjust(own.max(told));
    }

    /// Bytes a second, at present.
    pub(super) fn rate(&self) -> f64 {
        self.state.lock().throttle.rate()
    }

    /// Waits until these bytes, just received, are paid for.
    pub(super) async fn pay(&self, bytes: u64) {
        let until = {
            let mut state = self.state.lock();
            state.next = state.next.max(Instant::now()) + state.throttle.time_for(bytes);
            state.next
        };
        tokio::time::sleep_until(until).await;
    }
}

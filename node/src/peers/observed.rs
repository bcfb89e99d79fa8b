//! What this node has observed of a peer: the detector and the latency estimate, driven by the clock.

use super::client::{HEARTBEAT, SILENCE_MAX};
use dynamo::detector::{Bounds, Detector};
use dynamo::hedge::Quantile;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const BOUNDS: Bounds = Bounds {
    heartbeat: HEARTBEAT,
    silence_min: Duration::from_millis(600),
    silence_max: SILENCE_MAX,
    stall_max: Duration::from_millis(2000),
};
/// What a read is believed to take before any was answered.
const FIRST_GUESS: Duration = Duration::from_millis(20);

/// Of one peer, by this node alone.
#[derive(Debug)]
pub struct Observed {
    since: Instant,
    state: Mutex<State>,
    /// When it will be suspected if nothing happens until then, in microseconds after `since`.
    suspected_from: AtomicU64,
}

#[derive(Debug)]
struct State {
    detector: Detector,
    /// From when on it is silent for too long. Only a sign of life changes that, and every request asks.
    silent_from: Duration,
    reads: Quantile,
}

impl Observed {
    pub(super) fn new() -> Self {
        let detector = Detector::new(BOUNDS, Duration::ZERO);
        let reads = Quantile::new(0.95, FIRST_GUESS);
        let state = Mutex::new(State { silent_from: detector.silent_from(), detector, reads });
        Self { since: Instant::now(), state, suspected_from: AtomicU64::new(0) }
    }

    /// A stream begins: what was before says nothing of it. Requests that still wait are those of the stream before and
    /// are about to be given up.
    pub(super) fn begins(&self) {
        self.change(Instant::now(), |state, now| {
            state.detector = Detector::new(BOUNDS, now);
            state.silent_from = state.detector.silent_from();
        });
    }

    /// It gave a sign of life.
    pub(super) fn heard(&self) {
        self.change(Instant::now(), |state, now| {
            state.detector.heard(now);
            state.silent_from = state.detector.silent_from();
        });
    }

    /// It was sent a request that it should answer soon. Sooner or later follows [`Observed::answered`],
    /// [`Observed::listeners_heard`] or [`Observed::given_up`]. Returns the time in which it answers 19 of 20 reads.
    pub(super) fn asked(&self, now: Instant) -> Duration {
        self.change(now, |state, now| {
            state.detector.asked(now);
            state.reads.get()
        })
    }

    /// It answered a request and, if that was a read, took so long.
    pub(super) fn answered(&self, now: Instant, read_took: Option<Duration>) {
        self.change(now, |state, now| {
            state.detector.answered(now);
            read_took.into_iter().for_each(|took| state.reads.add(took));
        });
    }

    /// A request is not waited for any longer; if it was a read, it has taken more than this.
    pub(super) fn given_up(&self, now: Instant, read_took: Option<Duration>) {
        self.change(now, |state, _| {
            state.detector.given_up();
            read_took.into_iter().for_each(|took| state.reads.add(took));
        });
    }

    /// Listeners have heard so many answers.
    pub(super) fn listeners_heard(&self, answers: usize) {
        if answers > 0 {
            self.change(Instant::now(), |state, now| (0..answers).for_each(|_| state.detector.answered(now)));
        }
    }

    /// Whether it is not suspected at this moment, which is now.
    pub(super) fn is_alive(&self, now: Instant) -> bool {
        micros(now.saturating_duration_since(self.since)) < self.suspected_from.load(Ordering::Acquire)
    }

    /// The time in which it answers 19 of 20 reads.
    #[must_use]
    pub fn usual_read(&self) -> Duration {
        self.state.lock().reads.get()
    }

    fn change<T>(&self, now: Instant, change: impl FnOnce(&mut State, Duration) -> T) -> T {
        let now = now.saturating_duration_since(self.since);
        let mut state = self.state.lock();
        let told = change(&mut state, now);
        let from = state.detector.stalled_from().map_or(state.silent_from, |from| from.min(state.silent_from));
        self.suspected_from.store(micros(from), Ordering::Release);
        told
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

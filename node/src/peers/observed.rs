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
    reads: Quantile,
}

/// A request that waits for its answer, until it is dropped.
#[derive(Debug)]
pub(super) struct Asked<'a>(Option<&'a Observed>);

impl Observed {
    pub(super) fn new() -> Self {
        let detector = Detector::new(BOUNDS, Duration::ZERO);
        let reads = Quantile::new(0.95, FIRST_GUESS);
        let state = Mutex::new(State { detector, reads });
        Self { since: Instant::now(), state, suspected_from: AtomicU64::new(0) }
    }

    /// A stream begins: what was before says nothing of it. Requests that still wait are those of the stream before and
    /// are about to be given up.
    pub(super) fn begins(&self) {
        self.change(|detector, now| *detector = Detector::new(BOUNDS, now));
    }

    /// It gave a sign of life.
    pub(super) fn heard(&self) {
        self.change(Detector::heard);
    }

    /// It was sent a request that it should answer soon.
    pub(super) fn asked(&self) -> Asked<'_> {
        self.change(Detector::asked);
        Asked(Some(self))
    }

    /// The same for a request of which a listener hears: [`Observed::listeners_heard`] counts its answer.
    pub(super) fn asked_by_listener(&self) {
        self.change(Detector::asked);
    }

    /// Listeners have heard so many answers.
    pub(super) fn listeners_heard(&self, answers: usize) {
        if answers > 0 {
            self.change(|detector, now| (0..answers).for_each(|_| detector.answered(now)));
        }
    }

    /// Whether it is not suspected now.
    pub(super) fn is_alive(&self) -> bool {
        micros(self.since.elapsed()) < self.suspected_from.load(Ordering::Acquire)
    }

    /// It took so long to answer a read, or longer.
    pub fn read_took(&self, took: Duration) {
        self.state.lock().reads.add(took);
    }

    /// The time in which it answers 19 of 20 reads.
    #[must_use]
    pub fn usual_read(&self) -> Duration {
        self.state.lock().reads.get()
    }

    fn change(&self, change: impl FnOnce(&mut Detector, Duration)) {
        let now = self.since.elapsed();
        let mut state = self.state.lock();
        change(&mut state.detector, now);
        let (silent, stalled) = (state.detector.silent_from(), state.detector.stalled_from());
        let from = stalled.map_or(silent, |stalled| stalled.min(silent));
        self.suspected_from.store(micros(from), Ordering::Release);
    }
}

impl Asked<'_> {
    pub(super) fn answered(mut self) {
        if let Some(observed) = self.0.take() {
            observed.change(Detector::answered);
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(observed) = self.0.take() {
            observed.change(|detector, _| detector.given_up());
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

//! What happened in a run, folded into one number: two runs of one seed are the same if their numbers are.

use parking_lot::Mutex;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The trace of a run: every byte that crossed the network, every commit to a disk, every fault and every answer to a
/// client goes in, with its time and in its order.
pub struct Trace {
    state: Mutex<State>,
    talks: bool,
}

/// Time of the step under way, for whoever acts between the hosts' turns.
static STEP_NANOS: AtomicU64 = AtomicU64::new(0);

struct State {
    // With fixed keys, unlike a HashMap's.
    hasher: DefaultHasher,
    events: u64,
}

impl Trace {
    /// An empty trace. One that `talks` also prints what is said to it.
    #[must_use]
    pub fn new(talks: bool) -> Self {
        Self { state: Mutex::new(State { hasher: DefaultHasher::new(), events: 0 }), talks }
    }

    /// Takes note of something that happened now.
    pub fn note(&self, what: u8, who: u64, bytes: &[u8]) {
        let mut state = self.state.lock();
        state.events += 1;
        state.hasher.write_u8(what);
        state.hasher.write_u64(who);
        state.hasher.write_u64(u64::try_from(now().as_nanos()).unwrap_or(u64::MAX));
        state.hasher.write(bytes);
    }

    /// Takes note of something that a person who follows the run wants to read.
    pub fn say(&self, words: impl FnOnce() -> String) {
        let words = words();
        self.note(b's', 0, words.as_bytes());
        if self.talks {
            eprintln!("{:>9.3} {words}", now().as_secs_f64());
        }
    }

    /// The number and how many events went into it.
    #[must_use]
    pub fn digest(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.hasher.finish(), state.events)
    }
}

/// Simulated time since the beginning of the run.
#[must_use]
pub fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_else(|| Duration::from_nanos(STEP_NANOS.load(Ordering::Relaxed)))
}

/// Says how much time has passed at the beginning of a step.
pub fn set_now(elapsed: Duration) {
    STEP_NANOS.store(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

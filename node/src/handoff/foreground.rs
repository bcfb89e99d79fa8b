//! What this node's clients feel of what is copied: a window of their latencies, looked at several times a second.

use crate::beat::Beat;
use dynamo::throttle::{LITTLE, Pressure, SAMPLES_MIN};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between two looks.
pub(super) const WINDOW: Duration = Duration::from_millis(250);
/// Windows with few requests that are taken together: no client waits much longer for its latency to count.
const WINDOWS_TOGETHER_MAX: u32 = 8;
/// Buckets of each doubling of the latency: neighbours are at most a fifth apart.
const STEPS: u32 = 4;
/// From 1 µs to more than an hour.
const BUCKETS: usize = 32 * STEPS as usize;

/// Latencies of the clients of one node.
#[derive(Debug)]
pub struct Foreground {
    buckets: [AtomicU32; BUCKETS],
    /// Whether a client was answered since the last look.
    asked: AtomicBool,
    /// Bytes of pages handed out to members that copy from here, ever.
    handed_out: AtomicU64,
    /// Bytes copied from here, to here or dropped here since the last look.
    worked: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pressure: Pressure,
    /// Windows whose requests are still in the buckets.
    windows: u32,
    /// Bytes copied or dropped in them.
    worked: u64,
}

impl Default for Foreground {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU32::new(0)),
            asked: AtomicBool::new(false),
            handed_out: AtomicU64::new(0),
            worked: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }
}

impl Foreground {
    /// A client's request has taken so long.
    pub fn record(&self, micros: u64) {
        self.buckets[bucket(micros)].fetch_add(1, Relaxed);
        // Read first: the line stays with all processors.
        if !self.asked.load(Relaxed) {
            self.asked.store(true, Relaxed);
        }
    }

    /// Whether a client was answered since the last look.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Relaxed)
    }

    /// Bytes were handed out to a member that copies from here.
    pub fn hand_out(&self, bytes: u64) {
        self.handed_out.fetch_add(bytes, Relaxed);
        self.work(bytes);
    }

    /// So many bytes were copied or dropped, or something was done that costs as much.
    pub fn work(&self, bytes: u64) {
        self.worked.fetch_add(bytes, Relaxed);
    }

    /// Bytes handed out to members that copy from here since the start.
    #[must_use]
    pub fn handed_out(&self) -> u64 {
        self.handed_out.load(Relaxed)
    }

    /// How much clients feel, as of the last look; nothing only if none has come since either.
    #[must_use]
    pub fn pressure(&self) -> f64 {
        let pressure = self.state.lock().pressure.get();
        if self.is_asked() { pressure.max(1.0) } else { pressure }
    }

    /// Ends a window.
    pub(super) fn look(&self) -> f64 {
        let mut state = self.state.lock();
        self.asked.store(false, Relaxed);
        state.windows += 1;
        state.worked += self.worked.swap(0, Relaxed);
        let samples: u64 = self.buckets.iter().map(|bucket| u64::from(bucket.load(Relaxed))).sum();
        if (1..SAMPLES_MIN).contains(&samples) && state.windows < WINDOWS_TOGETHER_MAX {
            state.pressure.window(Duration::ZERO, samples, false);
            return state.pressure.get();
        }
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| u64::from(bucket.swap(0, Relaxed))).collect();
        let samples: u64 = counts.iter().sum();
        let seconds = WINDOW.as_secs_f64() * f64::from(std::mem::take(&mut state.windows));
        #[allow(clippy::cast_precision_loss, reason = "what matters is the order of magnitude")]
        let copying = std::mem::take(&mut state.worked) as f64 > LITTLE * seconds;
        state.pressure.window(percentile_99(&counts, samples), samples, copying);
        state.pressure.get()
    }
}

/// Looks again and again, and tells `looked`, until shutdown. `copying`: whether this node copies from others.
pub(super) async fn watch(
    foreground: Arc<Foreground>,
    beat: Beat,
    copying: impl Fn() -> bool,
    looked: impl Fn(f64, bool),
    shutdown: CancellationToken,
) {
    let mut ticks = beat.ticks(WINDOW);
    // A late look makes a window longer, not the next one shorter.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {
                let copying = copying();
                looked(foreground.look(), copying);
            }
        }
    }
}

fn bucket(micros: u64) -> usize {
    let micros = micros.clamp(1, u64::from(u32::MAX));
    let octave = micros.ilog2();
    // The two bits behind the highest.
    let step = (micros << 2 >> octave) & u64::from(STEPS - 1);
    (octave * STEPS) as usize + usize::try_from(step).unwrap_or(0)
}

/// Lower bound of a bucket, in microseconds.
fn lower_bound(bucket: usize) -> u64 {
    let (octave, step) = (bucket / STEPS as usize, bucket % STEPS as usize);
    (1 << octave) + ((step as u64) << octave >> 2)
}

fn percentile_99(counts: &[u64], samples: u64) -> Duration {
    let mut beyond = samples / 100;
    for (bucket, &count) in counts.iter().enumerate().rev() {
        if count > beyond {
            return Duration::from_micros(lower_bound(bucket));
        }
        beyond -= count;
    }
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_in_the_bucket_whose_bounds_hold_it() {
        for micros in (1..5000).chain([u64::from(u32::MAX) - 1, u64::from(u32::MAX)]) {
            let bucket = bucket(micros);
            assert!(lower_bound(bucket) <= micros, "{micros}");
            assert!(bucket + 1 == BUCKETS || micros < lower_bound(bucket + 1) || micros < 4, "{micros}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket(0), 0);
    }

    #[test]
    fn one_in_a_hundred_is_beyond_the_percentile() {
        let foreground = Foreground::default();
        (0..990).for_each(|_| foreground.record(3000));
        (0..10).for_each(|_| foreground.record(900_000));
        let _ = foreground.look();
        (0..990).for_each(|_| foreground.record(3000));
        (0..20).for_each(|_| foreground.record(900_000));
        foreground.hand_out(4 << 20);
        assert!(foreground.look() > 100.0, "slow requests while something is copied are pressure");
        (0..100).for_each(|_| foreground.record(900_000));
        foreground.work(4 << 20);
        assert!(foreground.look() > 100.0, "and so they are while leftovers are dropped");
        assert!(foreground.look() < 1.0, "and where nobody asks there is none");
    }

    #[test]
    fn few_requests_are_taken_together_and_the_first_is_somebody_at_once() {
        let foreground = Foreground::default();
        assert!(foreground.look() < 0.5 && foreground.pressure() < 0.5, "nobody is there");
        (0..100).for_each(|_| foreground.record(3000));
        assert!((foreground.pressure() - 1.0).abs() < 0.01, "before the window is over");
        let _ = foreground.look();
        foreground.work(4 << 20);
        (0..20).for_each(|_| foreground.record(30_000));
        assert!((foreground.look() - 1.0).abs() < 0.01, "too few to tell");
        (0..20).for_each(|_| foreground.record(30_000));
        assert!(foreground.look() > 5.0, "those of both windows are enough");
        assert!(foreground.look() < 0.5 && foreground.pressure() < 0.5, "nobody is left");
    }
}

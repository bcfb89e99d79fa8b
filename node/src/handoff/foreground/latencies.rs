//! Latencies of one window, counted in buckets without a lock.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Buckets of each doubling of the latency: neighbours are at most a fifth apart.
const STEPS: u32 = 4;
/// From 1 µs to more than an hour.
const BUCKETS: usize = 32 * STEPS as usize;

/// How many requests took how long.
#[derive(Debug)]
pub(super) struct Latencies([AtomicU32; BUCKETS]);

impl Default for Latencies {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }
}

impl Latencies {
    /// So many requests have taken so long.
    pub(super) fn record(&self, micros: u64, requests: u32) {
        self.0[bucket(micros)].fetch_add(requests, Relaxed);
    }

    /// How many there are.
    pub(super) fn samples(&self) -> u64 {
        self.0.iter().map(|bucket| u64::from(bucket.load(Relaxed))).sum()
    }

    /// Their 99th percentile and number; there are none any more.
    pub(super) fn take(&self) -> (Duration, u64) {
        let counts: Vec<u64> = self.0.iter().map(|bucket| u64::from(bucket.swap(0, Relaxed))).collect();
        let samples = counts.iter().sum();
        (percentile_99(&counts, samples), samples)
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
}

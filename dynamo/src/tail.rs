//! The tail of latencies as of late: a histogram that forgets, so that what a few requests happen to take is told from
//! what all have come to take.
//!
//! Buckets grow with what they count, as in `HdrHistogram` (Tene); each window all of them lose the same part (forward
//! decay: Cormode et al., 2009).

use std::time::Duration;

/// Buckets of each doubling of the latency: neighbours are at most an eighth apart.
const STEPS: usize = 8;
/// From 1 µs to more than an hour.
pub const BUCKETS: usize = 32 * STEPS;
/// Part of what is remembered that is left after a window: what is eight windows old counts a third.
pub const REMEMBERED: f64 = 7.0 / 8.0;

/// The bucket of a latency.
#[must_use]
pub fn bucket(micros: u64) -> usize {
    let micros = micros.clamp(1, u64::from(u32::MAX));
    let octave = micros.ilog2();
    // The three bits behind the highest.
    let step = (micros << 3 >> octave) & (STEPS as u64 - 1);
    octave as usize * STEPS + usize::try_from(step).unwrap_or(0)
}

/// Lower bound of a bucket, in microseconds.
fn lower_bound(bucket: usize) -> f64 {
    let (octave, step) = (bucket / STEPS, bucket % STEPS);
    #[allow(clippy::cast_precision_loss, reason = "both are small")]
    let bound = (octave as f64).exp2() * (1.0 + step as f64 / STEPS as f64);
    bound
}

/// How many requests took how long, those of late above all.
#[derive(Clone, Debug, PartialEq)]
pub struct Tail([f64; BUCKETS]);

impl Default for Tail {
    fn default() -> Self {
        Self([0.0; BUCKETS])
    }
}

impl Tail {
    /// Takes a window's counts, by [`bucket`], and forgets a part of those before.
    pub fn window(&mut self, counts: impl IntoIterator<Item = u32>) {
        for (weight, count) in self.0.iter_mut().zip(counts) {
            *weight = *weight * REMEMBERED + f64::from(count);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many requests are remembered; one that is half forgotten counts half.
    #[must_use]
    pub fn samples(&self) -> f64 {
        self.0.iter().sum()
    }

    /// The latency that one in a hundred exceeds; zero if there are none.
    #[must_use]
    pub fn percentile_99(&self) -> Duration {
        let mut beyond = self.samples() / 100.0;
        for (bucket, &weight) in self.0.iter().enumerate().rev() {
            if weight > beyond {
                let (low, high) = (lower_bound(bucket), lower_bound(bucket + 1));
                let part = 1.0 - beyond / weight;
                return Duration::from_secs_f64((low + (high - low) * part) / 1e6);
            }
            beyond -= weight;
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_in_the_bucket_whose_bounds_hold_it() {
        for micros in (8..5000).chain([u64::from(u32::MAX) - 1, u64::from(u32::MAX)]) {
            let bucket = bucket(micros);
            #[allow(clippy::cast_precision_loss)]
            let exact = micros as f64;
            assert!(lower_bound(bucket) <= exact && exact < lower_bound(bucket + 1), "{micros}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket(0), 0);
    }

    fn windows(tail: &mut Tail, number: usize, requests: &[(u64, u32)]) -> f64 {
        for _ in 0..number {
            let mut counts = [0; BUCKETS];
            requests.iter().for_each(|&(micros, times)| counts[bucket(micros)] += times);
            tail.window(counts);
        }
        tail.percentile_99().as_secs_f64() * 1e3
    }

    #[test]
    fn one_in_a_hundred_is_beyond_the_percentile_and_what_was_is_forgotten() {
        let mut tail = Tail::default();
        assert_eq!(tail.percentile_99(), Duration::ZERO);
        let fast = windows(&mut tail, 20, &[(3000, 995), (900_000, 5)]);
        assert!((2.9..3.4).contains(&fast), "{fast}");
        assert!(windows(&mut tail, 1, &[(3000, 980), (900_000, 20)]) < 4.0, "one window is no tail");
        assert!(windows(&mut tail, 10, &[(3000, 980), (900_000, 20)]) > 800.0);
        assert!(windows(&mut tail, 30, &[(3000, 1000)]) < 4.0);
        assert!((7000.0..=8000.0).contains(&tail.samples()));
    }
}

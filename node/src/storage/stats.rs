//! Numbers that the committer counts, for whoever exports them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts of a committer since it started. Read them in any order; they are not a snapshot of one moment.
#[derive(Debug, Default)]
pub struct StorageStats {
    /// Batches committed.
    pub commits: AtomicU64,
    /// Changes in them.
    pub changes: AtomicU64,
    /// Bytes of their keys and values.
    pub bytes: AtomicU64,
    /// Batches refused because the disk is full.
    pub refused: AtomicU64,
    /// Batches that failed for any other reason.
    pub failed: AtomicU64,
    /// Changes by batch.
    pub batch_changes: Histogram,
    /// Microseconds by commit, journal write and flush together.
    pub commit_micros: Histogram,
}

impl StorageStats {
    pub(super) fn committed(&self, changes: usize, bytes: usize, took: Duration) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.changes.fetch_add(changes as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.batch_changes.record(changes as u64);
        self.commit_micros.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

/// Distribution of numbers over powers of two.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; Self::BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    /// Number of buckets. Bucket b counts numbers up to 2^b that are in no bucket before; the last one all larger.
    pub const BUCKETS: usize = 25;

    /// Counts one number.
    pub fn record(&self, number: u64) {
        let bucket = (u64::BITS - number.saturating_sub(1).leading_zeros()) as usize;
        self.buckets[bucket.min(Self::BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(number, Ordering::Relaxed);
    }

    /// Upper bound of each bucket, inclusive, and how many numbers are in it. The last bound is `u64::MAX`.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.iter().enumerate().map(|(bucket, count)| {
            let bound = if bucket + 1 < Self::BUCKETS { 1 << bucket } else { u64::MAX };
            (bound, count.load(Ordering::Relaxed))
        })
    }

    /// Sum of all numbers.
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fall_into_the_bucket_of_the_next_power_of_two() {
        let histogram = Histogram::default();
        for number in [0, 1, 2, 3, 4, 5, 256, 257, u64::MAX / 2] {
            histogram.record(number);
        }
        let filled: Vec<_> = histogram.buckets().filter(|&(_, count)| count > 0).collect();
        assert_eq!(filled, [(1, 2), (2, 1), (4, 2), (8, 1), (256, 1), (512, 1), (u64::MAX, 1)]);
    }
}

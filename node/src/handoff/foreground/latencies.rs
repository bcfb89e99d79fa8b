//! Latencies of one window, counted in buckets without a lock.

use dynamo::tail::{BUCKETS, bucket};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

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

    /// How many there are in each bucket; there are none any more.
    pub(super) fn take(&self) -> [u32; BUCKETS] {
        std::array::from_fn(|bucket| match self.0[bucket].load(Relaxed) {
            0 => 0,
            _ => self.0[bucket].swap(0, Relaxed),
        })
    }
}

//! How long things took.

use hdrhistogram::Histogram;
use std::sync::Mutex;
use std::time::Duration;

/// Longest time that is told from longer ones: more than all tries of a request can take.
const LATENCY_MICROS_MAX: u64 = 60_000_000;

/// How long things of one kind took.
#[derive(Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let bounds = Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3);
        Self(bounds.unwrap_or_else(|_| unreachable!("three digits and these bounds are allowed")))
    }
}

impl Latencies {
    /// Writes one down.
    pub fn record(&mut self, took: Duration) {
        self.0.saturating_record(took.as_micros() as u64);
    }

    /// The time, in milliseconds, within which this share of them was done.
    #[must_use]
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Adds what was measured at another time.
    pub fn add(&mut self, others: &Self) {
        // Both have the same bounds.
        let _ = self.0.add(&others.0);
    }

    /// How many were measured.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }
}

/// What has been measured since it was last taken.
#[derive(Debug, Default)]
pub struct Lately(Mutex<Latencies>);

impl Lately {
    /// Writes one down.
    pub fn record(&self, took: Duration) {
        if let Ok(mut latencies) = self.0.lock() {
            latencies.record(took);
        }
    }

    /// What was measured since the last time.
    #[must_use]
    pub fn take(&self) -> Latencies {
        self.0.lock().map(|mut latencies| std::mem::take(&mut *latencies)).unwrap_or_default()
    }
}

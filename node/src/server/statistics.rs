//! What INFO and LATENCY tell of commands: counted since the start, or since they were last begun anew.
//!
//! Prometheus needs counters that never fall, so beginning anew only remembers how far they were.

use super::metrics::{BUCKET_MICROS, FrontMetrics};
use parking_lot::Mutex;
use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

/// How far the counters were when statistics began.
#[derive(Debug, Default)]
pub(super) struct Baseline(Mutex<Option<(Totals, Vec<Sample>)>>);

/// What is counted of all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Connections accepted.
    pub(super) accepted: u64,
    /// Connections turned away.
    pub(super) turned_away: u64,
    /// Bytes read.
    pub(super) bytes_in: u64,
    /// Bytes written.
    pub(super) bytes_out: u64,
    /// Commands carried out.
    pub(super) commands: u64,
}

/// What is counted of one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Its name.
    pub(super) name: &'static str,
    /// Time it took in all, in microseconds.
    pub(super) micros: u64,
    /// Refused before it ran.
    pub(super) rejected: u64,
    /// Failed.
    pub(super) errors: u64,
    /// By duration: see [`BUCKET_MICROS`].
    pub(super) buckets: [u64; BUCKET_MICROS.len() + 1],
}

impl FrontMetrics {
    /// Begins statistics anew.
    pub(super) fn reset_statistics(&self) {
        *self.baseline.0.lock() = Some((self.totals_in_all(), self.samples_in_all()));
    }

    /// What is counted of all connections since statistics began.
    pub(super) fn totals(&self) -> Totals {
        let before = self.baseline.0.lock().as_ref().map(|(totals, _)| *totals).unwrap_or_default();
        let now = self.totals_in_all();
        Totals {
            accepted: now.accepted.saturating_sub(before.accepted),
            turned_away: now.turned_away.saturating_sub(before.turned_away),
            bytes_in: now.bytes_in.saturating_sub(before.bytes_in),
            bytes_out: now.bytes_out.saturating_sub(before.bytes_out),
            commands: now.commands.saturating_sub(before.commands),
        }
    }

    /// The RESP commands that were sent since statistics began.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut samples = self.samples_in_all();
        if let Some((_, before)) = &*self.baseline.0.lock() {
            samples.iter_mut().zip(before).for_each(|(sample, before)| sample.subtract(before));
        }
        samples.retain(|sample| sample.calls() > 0 || sample.rejected > 0);
        samples
    }

    /// The RESP commands carried out, one a line, as Redis tells them.
    pub(super) fn command_stats(&self) -> String {
        let mut text = String::new();
        for sample in self.samples() {
            let calls = sample.calls();
            let each = sample.micros as f64 / calls.max(1) as f64;
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "cmdstat_{}:calls={calls},usec={},usec_per_call={each:.2},rejected_calls={},failed_calls={}\r\n",
                sample.name, sample.micros, sample.rejected, sample.errors,
            );
        }
        text
    }

    fn totals_in_all(&self) -> Totals {
        Totals {
            accepted: self.accepted.load(Relaxed),
            turned_away: self.turned_away.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            commands: self.samples_in_all().iter().map(Sample::calls).sum(),
        }
    }
}

impl Sample {
    /// How often it was carried out.
    pub(super) fn calls(&self) -> u64 {
        self.buckets.iter().sum()
    }

    fn subtract(&mut self, before: &Self) {
        self.micros = self.micros.saturating_sub(before.micros);
        self.rejected = self.rejected.saturating_sub(before.rejected);
        self.errors = self.errors.saturating_sub(before.errors);
        for (bucket, before) in self.buckets.iter_mut().zip(before.buckets) {
            *bucket = bucket.saturating_sub(before);
        }
    }
}

//! What the committer counts, for Prometheus: how long a durable write takes, and how many share a flush of the disk.

use crate::storage::{Histogram, StorageStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Counts of a committer.
#[derive(Debug)]
pub struct StorageMetrics(pub Arc<StorageStats>);

impl Collector for StorageMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let stats = &self.0;
        let counters = [
            ("annulus_commits", "Batches made durable", &stats.commits),
            ("annulus_committed_changes", "Changes in them", &stats.changes),
            ("annulus_committed_bytes", "Bytes of their keys and values", &stats.bytes),
            ("annulus_commits_refused", "Batches refused because the disk is full", &stats.refused),
            ("annulus_commits_failed", "Batches that failed for another reason", &stats.failed),
        ];
        for (name, help, counter) in counters {
            let counter = ConstCounter::new(counter.load(Relaxed));
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let help = "Time to make a batch durable, its flush of the disk included";
        histogram(&mut encoder, "annulus_commit_duration_seconds", help, &stats.commit_micros, 1e-6)?;
        histogram(&mut encoder, "annulus_commit_changes", "Changes in a batch", &stats.batch_changes, 1.0)
    }
}

/// Tells a distribution in another unit.
fn histogram(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    counted: &Histogram,
    unit: f64,
) -> Result<(), fmt::Error> {
    let bound = |bound: u64| if bound == u64::MAX { f64::INFINITY } else { bound as f64 * unit };
    let buckets: Vec<(f64, u64)> = counted.buckets().map(|(upper, count)| (bound(upper), count)).collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    family.encode_histogram::<NoLabelSet>(counted.sum() as f64 * unit, count, &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    #[test]
    fn commits_are_told_in_seconds_and_numbers() {
        let stats = Arc::new(StorageStats::default());
        stats.commits.store(2, Relaxed);
        stats.commit_micros.record(3000);
        stats.commit_micros.record(u64::MAX / 4);
        stats.batch_changes.record(7);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(StorageMetrics(stats)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "annulus_commits_total 2",
            r#"annulus_commit_duration_seconds_bucket{le="0.004096"} 1"#,
            r#"annulus_commit_duration_seconds_bucket{le="+Inf"} 2"#,
            r#"annulus_commit_changes_bucket{le="8.0"} 1"#,
            "annulus_commit_changes_sum 7.0",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in {text}");
        }
    }
}

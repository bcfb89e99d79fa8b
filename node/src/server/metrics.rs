//! What the front ends count: requests by operation with their errors and durations, and connections.
//!
//! Counting one request is a handful of relaxed atomic additions, with no lock and no allocation, so that it can be
//! done for every command.

use super::statistics::{Baseline, Sample};
use crate::coordinator::KeyValue;
use crate::handoff::Foreground;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the duration buckets, in microseconds.
pub(super) const BUCKET_MICROS: [u64; 14] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];

/// Everything that a node tells Prometheus: what its front ends count, and its overview.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    pub(super) front: Arc<FrontMetrics>,
}

impl Metrics {
    /// Counters at zero, and gauges that ask the store whenever they are read.
    #[must_use]
    pub fn new<K: KeyValue>(store: K, foreground: Arc<Foreground>) -> Self {
        Self::with_registry(store, foreground, Registry::default())
    }

    /// As [`new`](Self::new), beside what is in the registry already.
    #[must_use]
    pub fn with_registry<K: KeyValue>(store: K, foreground: Arc<Foreground>, mut registry: Registry) -> Self {
        registry.register_collector(Box::new(Felt(foreground.clone())));
        let front = Arc::new(FrontMetrics::new(foreground));
        registry.register_collector(Box::new(front.clone()));
        registry.register_collector(Box::new(NodeGauges(store)));
        Self { registry: Arc::new(registry), front }
    }

    /// RESP connections that are open.
    #[must_use]
    pub fn connections(&self) -> i64 {
        self.front.connections.load(Relaxed)
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// None that is known of: writing to a string does not fail.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).map(|()| text)
    }
}

/// Counters of the RESP and gRPC front ends.
#[derive(Debug)]
pub(super) struct FrontMetrics {
    resp: Vec<Operation>,
    grpc: Vec<Operation>,
    /// Commands that were refused before they ran: unknown, unsupported, wrong number of arguments, too large.
    pub(super) refused: AtomicU64,
    /// RESP connections open.
    pub(super) connections: AtomicI64,
    /// RESP connections accepted since the start.
    pub(super) accepted: AtomicU64,
    /// RESP connections turned away because there were too many.
    pub(super) turned_away: AtomicU64,
    /// Bytes read from RESP connections.
    pub(super) bytes_in: AtomicU64,
    /// Bytes written to RESP connections.
    pub(super) bytes_out: AtomicU64,
    /// How far all this was when INFO's statistics began.
    pub(super) baseline: Baseline,
}

/// Counters of one operation.
#[derive(Debug)]
pub(super) struct Operation {
    name: &'static str,
    errors: AtomicU64,
    /// Refused before they ran.
    rejected: AtomicU64,
    micros: AtomicU64,
    foreground: Arc<Foreground>,
    /// One for each bound and one for what is above them all.
    buckets: [AtomicU64; BUCKET_MICROS.len() + 1],
}

impl FrontMetrics {
    fn new(foreground: Arc<Foreground>) -> Self {
        let operation = |name| Operation::new(name, foreground.clone());
        let resp = super::resp::command_names().map(operation).collect();
        let grpc = super::grpc::METHODS.iter().copied().map(operation).collect();
        Self {
            resp,
            grpc,
            refused: AtomicU64::new(0),
            connections: AtomicI64::new(0),
            accepted: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            baseline: Baseline::default(),
        }
    }

    /// Counters of a RESP command, by its place in the command table.
    pub(super) fn resp(&self, command: usize) -> Option<&Operation> {
        self.resp.get(command)
    }

    /// Counters of a gRPC method, by its place in [`super::grpc::METHODS`].
    pub(super) fn grpc(&self, method: usize) -> Option<&Operation> {
        self.grpc.get(method)
    }

    /// What is counted of each RESP command.
    pub(super) fn samples_in_all(&self) -> Vec<Sample> {
        self.resp.iter().map(Operation::sample).collect()
    }

    fn operations(&self) -> impl Iterator<Item = ([(&'static str, &'static str); 2], &Operation)> {
        let resp = self.resp.iter().map(|operation| ("resp", operation));
        let all = resp.chain(self.grpc.iter().map(|operation| ("grpc", operation)));
        let counted = all.filter(|(_, operation)| operation.count() > 0);
        counted
            .map(|(interface, operation)| ([("interface", interface), ("operation", operation.name)], operation))
    }
}

impl Operation {
    fn new(name: &'static str, foreground: Arc<Foreground>) -> Self {
        Self {
            name,
            foreground,
            errors: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            micros: AtomicU64::new(0),
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Counts one that was refused before it ran.
    pub(super) fn reject(&self) {
        self.rejected.fetch_add(1, Relaxed);
    }

    /// Counts one request.
    pub(super) fn record(&self, took: Duration, failed: bool) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKET_MICROS.partition_point(|&bound| bound < micros);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
        self.foreground.record(micros);
        if failed {
            self.errors.fetch_add(1, Relaxed);
        }
    }

    fn sample(&self) -> Sample {
        Sample {
            name: self.name,
            micros: self.micros.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            errors: self.errors.load(Relaxed),
            buckets: std::array::from_fn(|at| self.buckets[at].load(Relaxed)),
        }
    }

    fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }
}

impl Collector for FrontMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let help = "Requests that failed after they were understood";
        let mut family = encoder.encode_descriptor("annulus_request_errors", help, None, MetricType::Counter)?;
        for (labels, operation) in self.operations() {
            ConstCounter::new(operation.errors.load(Relaxed)).encode(family.encode_family(&labels)?)?;
        }
        let help = "Time from a request being read to its reply being ready";
        let mut family =
            encoder.encode_descriptor("annulus_request_duration_seconds", help, None, MetricType::Histogram)?;
        for (labels, operation) in self.operations() {
            let bounds = BUCKET_MICROS.iter().map(|&micros| Duration::from_micros(micros).as_secs_f64());
            let counts = operation.buckets.iter().map(|bucket| bucket.load(Relaxed));
            let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(counts).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let seconds = Duration::from_micros(operation.micros.load(Relaxed)).as_secs_f64();
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)?;
        }
        let counters = [
            ("annulus_resp_commands_refused", "RESP commands refused before they ran", &self.refused),
            ("annulus_resp_connections_accepted", "RESP connections accepted", &self.accepted),
            ("annulus_resp_connections_refused", "RESP connections over the limit", &self.turned_away),
            ("annulus_resp_received_bytes", "Bytes read from RESP connections", &self.bytes_in),
            ("annulus_resp_sent_bytes", "Bytes written to RESP connections", &self.bytes_out),
        ];
        for (name, help, counter) in counters {
            let counter = ConstCounter::new(counter.load(Relaxed));
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let open = ConstGauge::new(self.connections.load(Relaxed));
        open.encode(encoder.encode_descriptor(
            "annulus_resp_connections",
            "RESP connections open",
            None,
            MetricType::Gauge,
        )?)
    }
}

/// What the pace of copying goes by.
#[derive(Debug)]
struct Felt(Arc<Foreground>);

impl Collector for Felt {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let waits = self.0.waits();
        let families = [
            (
                "annulus_foreground_p99_seconds",
                "99th percentile of how long requests of clients, or of peers, took in the last seconds",
                waits.map(|waits| waits.seconds),
            ),
            (
                "annulus_foreground_usual_p99_seconds",
                "The same while nothing is copied; copying slows down where the former is well above it",
                waits.map(|waits| waits.usual_seconds),
            ),
            (
                "annulus_foreground_usual_long_p99_seconds",
                "What the latter was for minutes; copying slows down where the first is far above it",
                waits.map(|waits| waits.usual_long_seconds),
            ),
        ];
        for (name, help, seconds) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (waits, seconds) in waits.iter().zip(seconds) {
                ConstGauge::new(seconds).encode(family.encode_family(&[("of", waits.of)])?)?;
            }
        }
        Ok(())
    }
}

/// The store's own numbers, asked for at every reading.
struct NodeGauges<K>(K);

impl<K> fmt::Debug for NodeGauges<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("NodeGauges")
    }
}

impl<K: KeyValue> Collector for NodeGauges<K> {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let overview = self.0.overview();
        let gauges = [
            ("annulus_ready", "Whether this node may be sent requests", u64::from(overview.ready)),
            ("annulus_ring_epoch", "Epoch of the ring installed", overview.epoch),
            ("annulus_keys", "Keys stored here, tombstones left out", overview.keys),
            ("annulus_stored_bytes", "Bytes of keys and objects stored here", overview.bytes),
            ("annulus_hints", "Hints held for other members", overview.hints),
            ("annulus_hint_bytes", "Bytes of hints held for other members", overview.hint_bytes),
            ("annulus_hint_age_seconds", "Age of the oldest write that a hint holds", overview.hint_age_ms / 1000),
            ("annulus_tombstones", "Deleted keys whose marks are still stored here", overview.dead),
            ("annulus_copying_partitions", "Partitions being copied here", overview.copying_partitions.into()),
            ("annulus_moved_bytes", "Bytes received by moves since the start", overview.moved_bytes),
            ("annulus_handed_out_bytes", "Bytes sent to members that copy from here", overview.handed_out_bytes),
            (
                "annulus_transfer_bytes_per_second_max",
                "What moves may bring here at present, by what clients feel of them",
                rounded(overview.transfer_bytes_per_second),
            ),
            ("annulus_unreachable_members", "Members that cannot be reached", overview.unreachable.len() as u64),
            ("annulus_disk_free_bytes", "Free bytes of the data's file system", overview.disk_bytes_free),
            ("annulus_disk_total_bytes", "All bytes of the data's file system", overview.disk_bytes_total),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let counters = [
            ("annulus_repair_comparisons", "Comparisons with other members begun", overview.repair_comparisons),
            (
                "annulus_repair_failures",
                "Comparisons with other members that ended early",
                overview.repair_failures,
            ),
            ("annulus_repaired_here", "Objects that comparisons brought here", overview.repaired_here),
            ("annulus_repaired_there", "Objects that comparisons brought to others", overview.repaired_there),
            (
                "annulus_siblings_refused",
                "Writes refused because their keys had too many siblings",
                overview.siblings_refused,
            ),
            ("annulus_hedged_reads", "Reads for which a further replica was asked", overview.hedged_reads),
            ("annulus_collected", "Deleted or expired keys removed everywhere", overview.collected),
            (
                "annulus_collect_failures",
                "Attempts to remove deleted or expired keys that ended early",
                overview.collect_failures,
            ),
            ("annulus_repair_bytes", "Bytes exchanged by comparisons", overview.repair_bytes),
        ];
        for (name, help, value) in counters {
            ConstCounter::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Counter,
            )?)?;
        }
        Ok(())
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is neither negative nor large")]
fn rounded(rate: f64) -> u64 {
    rate as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_pace_goes_by_is_told_of_clients_and_of_peers() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Felt(Arc::default())));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for family in ["p99", "usual_p99", "usual_long_p99"] {
            for of in ["clients", "peers"] {
                let line = format!(r#"annulus_foreground_{family}_seconds{{of="{of}"}} 0.0"#);
                assert!(text.lines().any(|known| known == line), "{line} in {text}");
            }
        }
    }

    #[test]
    fn what_is_counted_is_told() {
        let mut registry = Registry::default();
        let metrics = Arc::new(FrontMetrics::new(Arc::default()));
        registry.register_collector(Box::new(metrics.clone()));
        let (get, _) = super::super::resp::command_names().enumerate().find(|(_, name)| *name == "get").unwrap();
        metrics.resp(get).unwrap().record(Duration::from_micros(70), false);
        metrics.resp(get).unwrap().record(Duration::from_secs(60), true);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"annulus_request_errors_total{interface="resp",operation="get"} 1"#,
            r#"annulus_request_duration_seconds_count{interface="resp",operation="get"} 2"#,
            r#"annulus_request_duration_seconds_bucket{le="0.0001",interface="resp",operation="get"} 1"#,
            r#"annulus_request_duration_seconds_bucket{le="5.0",interface="resp",operation="get"} 1"#,
            r#"annulus_request_duration_seconds_bucket{le="+Inf",interface="resp",operation="get"} 2"#,
            "annulus_resp_connections 0",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in {text}");
        }
    }
}

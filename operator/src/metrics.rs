//! The operator's own metrics, in the text format of Prometheus.

use crate::crd::KeyValueClusterStatus;
use crate::plan::Reason;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Labels of one cluster.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub struct ClusterLabels {
    /// Namespace of the resource.
    pub namespace: String,
    /// Name of the resource.
    pub name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct WaitLabels {
    namespace: String,
    name: String,
    reason: String,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ClusterLabels, Counter>,
    errors: Family<ClusterLabels, Counter>,
    duration: Histogram,
    epoch: Family<ClusterLabels, Gauge>,
    ready: Family<ClusterLabels, Gauge>,
    partitions_left: Family<ClusterLabels, Gauge>,
    bytes_moved: Family<ClusterLabels, Gauge>,
    waiting: Family<WaitLabels, Gauge>,
    /// Reasons last seen of each cluster, so that those that are gone can be taken back.
    reasons: Mutex<BTreeMap<ClusterLabels, BTreeSet<WaitLabels>>>,
    leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("annulus_operator");
        let metrics = Self {
            registry: Registry::default(),
            reconciles: Family::default(),
            errors: Family::default(),
            duration: Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
            epoch: Family::default(),
            ready: Family::default(),
            partitions_left: Family::default(),
            bytes_moved: Family::default(),
            waiting: Family::default(),
            reasons: Mutex::default(),
            leader: Gauge::default(),
        };
        registry.register("reconciles", "Rounds of reconciliation", metrics.reconciles.clone());
        registry.register("reconcile_errors", "Rounds that ended with an error", metrics.errors.clone());
        registry.register("reconcile_duration_seconds", "Time a round took", metrics.duration.clone());
        registry.register("ring_epoch", "Epoch of the published ring", metrics.epoch.clone());
        registry.register("ready_replicas", "Pods that are ready", metrics.ready.clone());
        let left = metrics.partitions_left.clone();
        registry.register("rebalance_partitions_left", "Partitions not yet where they shall be", left);
        let moved = metrics.bytes_moved.clone();
        registry.register("rebalance_bytes_moved", "Bytes copied by this rebalance, or the last one", moved);
        registry.register("waiting", "Things that wait, by reason", metrics.waiting.clone());
        registry.register("leader", "1 while this operator holds the lease", metrics.leader.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// Counts one round.
    pub fn round(&self, cluster: &ClusterLabels, took: Duration, failed: bool) {
        self.reconciles.get_or_create(cluster).inc();
        self.errors.get_or_create(cluster).inc_by(u64::from(failed));
        self.duration.observe(took.as_secs_f64());
    }

    /// Takes over what a round has found.
    pub fn found(&self, cluster: &ClusterLabels, status: &KeyValueClusterStatus, waiting: &[Reason]) {
        let epoch = status.ring.as_ref().map_or(0, |ring| ring.epoch);
        self.epoch.get_or_create(cluster).set(epoch);
        self.ready.get_or_create(cluster).set(status.ready_replicas.into());
        let (left, moved) = match (&status.rebalance, &status.last_rebalance) {
            (Some(running), _) => (running.partitions_left.into(), running.bytes_moved),
            (None, last) => (0, last.as_ref().map_or(0, |last| last.bytes_moved)),
        };
        self.partitions_left.get_or_create(cluster).set(left);
        self.bytes_moved.get_or_create(cluster).set(moved);
        let mut counts: BTreeMap<WaitLabels, i64> = BTreeMap::new();
        for reason in waiting {
            let ClusterLabels { namespace, name } = cluster.clone();
            let labels = WaitLabels { namespace, name, reason: reason.code().to_owned() };
            *counts.entry(labels).or_default() += 1;
        }
        let now: BTreeSet<WaitLabels> = counts.keys().cloned().collect();
        for (labels, count) in counts {
            self.waiting.get_or_create(&labels).set(count);
        }
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let before = reasons.insert(cluster.clone(), now.clone()).unwrap_or_default();
        for stale in before.difference(&now) {
            self.waiting.remove(stale);
        }
    }

    /// Forgets a cluster that was deleted.
    pub fn forget(&self, cluster: &ClusterLabels) {
        self.reconciles.remove(cluster);
        self.errors.remove(cluster);
        for family in [&self.epoch, &self.ready, &self.partitions_left, &self.bytes_moved] {
            family.remove(cluster);
        }
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        for stale in reasons.remove(cluster).unwrap_or_default() {
            self.waiting.remove(&stale);
        }
    }

    /// Whether this operator acts.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// Everything as text.
    ///
    /// # Errors
    /// When the text cannot be written, which no input causes.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

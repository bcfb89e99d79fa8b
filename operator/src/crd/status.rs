//! What the operator reports, from what it has observed and done.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was observed of a cluster.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KeyValueClusterStatus {
    /// One word: Pending, Creating, Running (all is as the spec says), Updating, Rebalancing, Degraded or Paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Available, Progressing, Degraded, Rebalancing, Valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Label selector of the pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// The ring that is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingStatus>,
    /// The rebalance under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<RebalanceStatus>,
    /// The last rebalance that came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rebalance: Option<LastRebalance>,
    /// Everything that waits, and for what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<String>,
}

/// The published ring.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RingStatus {
    /// Version of the ring document. Above zero: this cluster has a ring, and another is never made for it.
    pub epoch: i64,
    /// Number of partitions Q.
    pub partitions: i32,
    /// Members of the ring, the leaving ones included.
    pub members: i32,
}

/// A rebalance under way.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RebalanceStatus {
    /// Epoch in which its target was set; names this rebalance.
    pub since: i64,
    /// Members that held data when it began.
    pub from: i32,
    /// Members that will.
    pub to: i32,
    /// Partitions not yet where they shall be.
    pub partitions_left: i32,
    /// Bytes copied so far, as the receiving nodes report.
    pub bytes_moved: i64,
    /// Bytes that the plan moves, estimated from what was stored when it began.
    pub bytes_total: i64,
    /// The least that any plan as balanced could move, estimated likewise.
    pub bytes_minimum: i64,
    /// Time left at the rate so far, such as `2m30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<String>,
    /// What holds it back now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_by: Vec<String>,
    /// Bytes stored on all nodes when it began.
    pub bytes_before: i64,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
}

/// A rebalance that came to its end.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LastRebalance {
    /// Epoch in which its target was set.
    pub since: i64,
    /// Members that held data when it began.
    pub from: i32,
    /// Members that held data when it ended.
    pub to: i32,
    /// Bytes copied, as the receiving nodes report.
    pub bytes_moved: i64,
    /// The least that any plan as balanced could have moved.
    pub bytes_minimum: i64,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}

//! What a user asks for.

use super::{KeyValueClusterStatus, PodTemplate};
use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A key-value store of some nodes, each item kept on `replicationFactor` of them.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "annulus.dev",
    version = "v1alpha1",
    kind = "KeyValueCluster",
    plural = "keyvalueclusters",
    shortname = "kvc",
    category = "all",
    namespaced,
    status = "KeyValueClusterStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A peer-to-peer, always-writable key-value store that speaks Redis.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "N", type_ = "integer", json_path = ".spec.replicationFactor"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.ring.epoch"),
    printcolumn(name = "Left", type_ = "integer", json_path = ".status.rebalance.partitionsLeft"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".spec.partitions", priority = 1),
    printcolumn(name = "Moved", type_ = "integer", json_path = ".status.rebalance.bytesMoved", priority = 1),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.rebalance.eta", priority = 1),
    printcolumn(name = "Blocked", type_ = "string", json_path = ".status.rebalance.blockedBy[0]", priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 40")
        .message("metadata.name must have at most 40 characters, for pods and their labels are named after it; choose a shorter name"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must begin with a letter and hold only lowercase letters, digits and '-', for Services are named after it")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.replicas >= self.replicationFactor")
        .message("spec.replicas must be at least spec.replicationFactor, for each item is kept on that many distinct nodes; raise replicas, or lower replicationFactor in the same change"),
    validation = Rule::new("!has(self.consistency) || !has(self.consistency.read) || self.consistency.read <= self.replicationFactor")
        .message("spec.consistency.read must be at most spec.replicationFactor; lower it, or raise replicationFactor"),
    validation = Rule::new("!has(self.consistency) || !has(self.consistency.write) || self.consistency.write <= self.replicationFactor")
        .message("spec.consistency.write must be at most spec.replicationFactor; lower it, or raise replicationFactor")
)]
pub struct KeyValueClusterSpec {
    /// How many nodes. `kubectl scale kvc/NAME --replicas=5` moves exactly the keys that must move.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 500))]
    pub replicas: i32,
    /// Replication factor n: how many distinct nodes keep each item. May be changed while serving.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 15))]
    pub replication_factor: i32,
    /// Number of partitions Q of the ring, a power of two. May be raised while serving, which moves no data; never
    /// lowered.
    #[serde(default = "default_partitions")]
    #[x_kube(
        validation = Rule::new("self in [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]")
            .message("spec.partitions must be a power of two from 16 to 16384, such as 1024"),
        validation = Rule::new("self >= oldSelf")
            .message("spec.partitions may only be raised, for partitions are split and never merged; keep it, or make another cluster with fewer and copy the data")
    )]
    pub partitions: i32,
    /// Default quorums of requests that do not name their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// The volume of each node.
    #[serde(default)]
    pub storage: Storage,
    /// Spreads the replicas of each item over failure domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones: Option<Zones>,
    /// How long a volume must have been out of reach for good, since its Node or the volume itself is gone, before it is
    /// given up and its replicas are made anew elsewhere: such as `30m`, which is what absent means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16))]
    #[x_kube(
        validation = Rule::new("self.matches('^([0-9]{1,6}[hms]){1,3}$') && duration(self) >= duration('10s')")
            .message("spec.replaceAfter must be a length of time of at least 10s, such as 30m or 1h30m")
    )]
    pub replace_after: Option<String>,
    /// Compute resources of the node's container. Absent: requests of 100m of a processor and 256Mi of memory, and no limits.
    /// An empty object asks for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Additions to the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// Image of the node. Absent: the operator's own default. A change restarts the pods one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// When the image is pulled. Absent: as Kubernetes does by the image's tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Stops the operator from acting on this cluster; only status is written. Nodes serve on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Bounds on the work of a rebalance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<Rebalance>,
    /// Who may connect to the Redis interface, and may do what. Absent: everyone may do everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Allows traffic to the nodes' ports only where it belongs: RESP, gRPC and HTTP from anywhere, the peer port
    /// from the cluster's own pods and the operator's namespace.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub network_policy: bool,
}

/// Default quorums.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Consistency {
    /// r: how many replicas a read asks. Absent: a majority of n (2 of 3, 3 of 5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 15))]
    pub read: Option<i32>,
    /// w: how many replicas have a write on disk before it is acknowledged. Absent: a majority of n.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 15))]
    pub write: Option<i32>,
    /// Whether the durable hint of a fallback may stand in for an unreachable replica. Absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sloppy: Option<bool>,
}

/// The volume of each node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)")
        .message("spec.storage.storageClassName may not be changed, for volumes keep their class; make another cluster in the class you want and copy the data")
)]
pub struct Storage {
    /// Size of each volume, such as `10Gi`. May grow where the storage class allows it, never shrink.
    #[serde(default = "default_size")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(
        validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))")
            .message("spec.storage.size must be a size above zero, such as 10Gi"),
        validation = Rule::new("!isQuantity(self) || !isQuantity(oldSelf) || quantity(self).compareTo(quantity(oldSelf)) >= 0")
            .message("spec.storage.size may not shrink, for volumes cannot; keep the size, or make another cluster and copy the data")
    )]
    pub size: String,
    /// Storage class of each volume. Absent: the default class. May not be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// What becomes of the volume of a node that was scaled in, once its data is proven to be elsewhere.
    #[serde(default)]
    pub on_scale_in: VolumePolicy,
    /// What becomes of the volumes when the cluster is deleted.
    #[serde(default)]
    pub on_delete: VolumePolicy,
}

/// Whether a volume outlives its use.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VolumePolicy {
    /// The volume stays.
    #[default]
    Retain,
    /// The volume is deleted.
    Delete,
}

/// When the image is pulled.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ImagePullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// Users of the Redis interface.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Secret in the cluster's namespace. Nodes do not start without it; what changes in it is in force within two
    /// minutes, without a restart.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// Key in the Secret with the users, in the format of a Redis ACL file, such as `user app on >secret ~app:* +@all`.
    #[serde(default = "users_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Failure domains.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Zones {
    /// Label of the Kubernetes nodes whose value names the failure domain, such as `topology.kubernetes.io/zone`.
    #[schemars(length(min = 1, max = 316))]
    pub topology_key: String,
    /// Share of the data of each node in a zone relative to the others, from 1 to 100, for nodes that are not alike.
    /// A zone that is not named has 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(
        validation = Rule::new("self.all(zone, self[zone] >= 1 && self[zone] <= 100)")
            .message("spec.zones.weights must be from 1 to 100")
    )]
    pub weights: BTreeMap<String, i32>,
}

/// Bounds on the work of a rebalance.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rebalance {
    /// Bytes a second that each node copies at most. Absent: as fast as it goes. A change restarts the pods one at
    /// a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 65_536))]
    pub max_bytes_per_second: Option<i64>,
    /// Partitions that may be moving at once in the whole cluster. Absent: 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_384))]
    pub parallel_moves: Option<i32>,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            size: default_size(),
            storage_class_name: None,
            on_scale_in: VolumePolicy::Retain,
            on_delete: VolumePolicy::Retain,
        }
    }
}

impl ImagePullPolicy {
    /// As Kubernetes writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

fn three() -> i32 {
    3
}

fn default_partitions() -> i32 {
    1024
}

fn users_key() -> String {
    "users.acl".to_owned()
}

fn default_size() -> String {
    "10Gi".to_owned()
}

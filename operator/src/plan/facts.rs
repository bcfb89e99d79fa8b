//! What the planner decides from: what is wanted, and what was observed just now. Plain data, no client.

use annulus_proto::v1::NodeStatus;
use dynamo::moves::Pace;
use dynamo::ring::{Quorums, Ring};
use dynamo::token::PartitionCount;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What the user asks for, checked by [`crate::validate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// UID of the `KeyValueCluster`.
    pub cluster: Uuid,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// How many nodes.
    pub replicas: u32,
    /// Number of partitions Q of a new ring.
    pub partitions: PartitionCount,
    /// n, r, w.
    pub quorums: Quorums,
    /// How much may move at once.
    pub pace: Pace,
    /// Whether zones matter, so that a node without a known zone may not join.
    pub zones: bool,
    /// Weight of the nodes in a zone, where it is not 1.
    pub zone_weights: BTreeMap<String, u32>,
    /// How long a volume must have been out of reach for good before it is given up.
    pub replace_after_seconds: u64,
    /// Whether a proven volume is deleted after a scale in.
    pub delete_on_scale_in: bool,
    /// Wanted size of each volume, in bytes.
    pub volume_bytes: u128,
    /// Whether the user forbids to act.
    pub paused: bool,
}

/// What was observed, each part read live for this very plan.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Whether every object but the ring's `ConfigMap` is there as it would be built now.
    pub objects: Objects,
    /// The `StatefulSet`, if there is one.
    pub workload: Option<Workload>,
    /// The cluster's pods, by ascending ordinal.
    pub pods: Vec<Pod>,
    /// The cluster's volumes, by ascending ordinal.
    pub volumes: Vec<Volume>,
    /// The ring's `ConfigMap`.
    pub stored: StoredRing,
    /// Epoch in the resource's own status: above zero proves that this cluster has had a ring.
    pub known_epoch: u64,
    /// Whether a document was published less than a second ago.
    pub published_just_now: bool,
}

/// State of the objects that are built from the spec alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Objects {
    /// All there, all as built.
    Current,
    /// All there and as built; to be written again all the same, which undoes what somebody else has changed in them.
    Due,
    /// Something is missing or was built from another spec.
    #[default]
    Differ,
}

/// The `StatefulSet`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// `.spec.replicas` as it is.
    pub replicas: u32,
    /// Replicas that the operator last wrote; another number in `replicas` was put there by somebody else.
    pub replicas_written: Option<u32>,
    /// Revision that new pods get.
    pub revision: String,
    /// Incarnations whose pods were let go on proof, as the operator noted in the write that let them go.
    pub proven: BTreeSet<Uuid>,
    /// For compare-and-swap.
    pub resource_version: String,
}

/// One pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// `NAME-ORDINAL`, which is the name of its member too.
    pub name: String,
    /// Its ordinal.
    pub ordinal: u32,
    /// Its UID.
    pub uid: String,
    /// Its address, once it has one.
    pub ip: Option<std::net::IpAddr>,
    /// Whether Kubernetes says it is ready.
    pub ready: bool,
    /// Whether the node's container runs at all.
    pub running: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// For how long no Node could be found for it; `None` when it has one.
    pub unscheduled_seconds: Option<u64>,
    /// Revision it was made from.
    pub revision: String,
    /// Failure domain of its host, where one is known.
    pub zone: Option<String>,
    /// What its node says.
    pub node: Observation,
}

/// What was learnt from a node. An error is no fact about data.
#[derive(Clone, Debug)]
pub enum Observation {
    /// The node answered.
    Answer(Box<Answer>),
    /// It did not, or what it said could not be read.
    NoAnswer(String),
}

/// What a node said of itself.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Identity of its data directory.
    pub incarnation: Uuid,
    /// Cluster it belongs to; `None` while it belongs to none.
    pub cluster: Option<Uuid>,
    /// Everything.
    pub status: NodeStatus,
    /// The ring document it holds, fetched only where the `ConfigMap` is lost, damaged or older.
    pub held: Option<Box<Ring>>,
}

/// One volume claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name, `data-NAME-ORDINAL`.
    pub name: String,
    /// Ordinal of the pod it belongs to.
    pub ordinal: u32,
    /// Its UID.
    pub uid: String,
    /// Whether a volume was ever bound to it; without one no node can have stored anything.
    pub bound: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Cluster it was made for; an earlier one of the same name may have left its volumes.
    pub cluster: Option<Uuid>,
    /// Size asked for, in bytes.
    pub bytes: u128,
    /// Why no Node can ever reach it again, if so.
    pub stranded: Option<String>,
}

/// The ring's `ConfigMap`.
#[derive(Clone, Debug, Default)]
pub enum StoredRing {
    /// There is none.
    #[default]
    Missing,
    /// It holds no document of this cluster.
    Damaged {
        /// For compare-and-swap.
        resource_version: String,
        /// Why it cannot be used.
        why: String,
    },
    /// It holds this document.
    Held {
        /// The document.
        ring: Box<Ring>,
        /// For compare-and-swap.
        resource_version: String,
    },
}

impl Desired {
    /// Name of the pod with this ordinal.
    #[must_use]
    pub fn pod(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.name)
    }

    /// Ordinal of a pod or member of this cluster by its name.
    #[must_use]
    pub fn ordinal(&self, name: &str) -> Option<u32> {
        name.strip_prefix(&self.name)?.strip_prefix('-')?.parse().ok()
    }

    /// Name by which a pod is found, with one of its ports.
    #[must_use]
    pub fn address(&self, pod: &str, port: u16) -> String {
        format!("{pod}.{}-nodes.{}.svc:{port}", self.name, self.namespace)
    }
}

impl Observed {
    /// The pod with this ordinal.
    #[must_use]
    pub fn pod(&self, ordinal: u32) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.ordinal == ordinal)
    }

    /// The volume with this ordinal.
    #[must_use]
    pub fn volume(&self, ordinal: u32) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.ordinal == ordinal)
    }

    /// What the node of this incarnation said, if it answered.
    #[must_use]
    pub fn answer_of(&self, incarnation: Uuid) -> Option<&Answer> {
        self.pods.iter().filter_map(Pod::answer).find(|answer| answer.incarnation == incarnation)
    }

    /// The published ring.
    #[must_use]
    pub fn ring(&self) -> Option<&Ring> {
        match &self.stored {
            StoredRing::Held { ring, .. } => Some(ring),
            StoredRing::Missing | StoredRing::Damaged { .. } => None,
        }
    }

    /// What the members of a ring that answer serve of it.
    #[must_use]
    pub fn served(&self, ring: &Ring) -> Served {
        let mut served = Served::default();
        for answer in self.pods.iter().filter_map(Pod::answer) {
            let Some(member) = ring.member_by_incarnation(answer.incarnation) else { continue };
            let lists = ring.partitions.iter().map(|placement| &placement.preference);
            served.replicas += lists.filter(|list| list.contains(&member.index)).count() as u64;
            served.bytes = served.bytes.saturating_add(answer.status.serving_bytes);
        }
        served
    }
}

/// Replicas of partitions that serve: not those that are being copied, nor what is left over from an earlier rebalance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// How many.
    pub replicas: u64,
    /// Bytes of their keys and objects.
    pub bytes: u64,
}

impl Served {
    /// Bytes that so many replicas of their mean size have.
    #[must_use]
    pub fn bytes_of(self, replicas: u64) -> u64 {
        let product = u128::from(self.bytes) * u128::from(replicas);
        u64::try_from(product / u128::from(self.replicas.max(1))).unwrap_or(u64::MAX)
    }
}

impl Pod {
    /// What its node said, if it answered.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match &self.node {
            Observation::Answer(answer) => Some(answer),
            Observation::NoAnswer(_) => None,
        }
    }
}

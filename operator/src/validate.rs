//! Checks what the CEL rules of the CRD cannot, and checks again what they can: an object that was stored before a
//! rule existed is not judged by it. A spec that fails is reported in the condition `Valid`, and nothing is done.

use crate::crd::{KeyValueCluster, NAME_LENGTH_MAX, VolumePolicy};
use crate::plan::Desired;
use crate::{duration, quantity};
use dynamo::moves::Pace;
use dynamo::ring::Quorums;
use dynamo::token::PartitionCount;
use kube::ResourceExt;
use uuid::Uuid;

/// How long a volume must have been out of reach for good before it is given up, unless the spec says otherwise.
pub const REPLACE_AFTER_SECONDS: u64 = 30 * 60;
/// The least that the spec may ask for.
pub const REPLACE_AFTER_SECONDS_MIN: u64 = 10;
/// The most by which nodes of one zone may outweigh those of another.
pub const ZONE_WEIGHT_MAX: u32 = 100;
/// Name of the node's container.
pub const NODE_CONTAINER: &str = "node";

/// Why a spec cannot be worked on, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The object has no UID or namespace, so it does not come from an API server.
    #[error("the object has no {0}")]
    Incomplete(&'static str),
    /// The UID is none.
    #[error("metadata.uid {0:?} is not a UUID")]
    Uid(String),
    /// The name does not work as a name of pods and Services.
    #[error(
        "metadata.name {0:?} must have at most {NAME_LENGTH_MAX} characters, begin with a letter and hold only lowercase letters, digits and '-'; make the resource under another name"
    )]
    Name(String),
    /// A number is out of its range.
    #[error("spec.{field} is {value}, and must be from {min} to {max}")]
    Range {
        /// Which.
        field: &'static str,
        /// What it is.
        value: i64,
        /// Least.
        min: i64,
        /// Most.
        max: i64,
    },
    /// Fewer nodes than replicas of each item.
    #[error(
        "spec.replicas ({replicas}) must be at least spec.replicationFactor ({n}); raise replicas, or lower replicationFactor"
    )]
    TooFewReplicas {
        /// Nodes.
        replicas: i32,
        /// Replication factor.
        n: i32,
    },
    /// The number of partitions is not a power of two from 16 to 16384.
    #[error("spec.partitions must be a power of two from 16 to 16384, and is {0}")]
    Partitions(i32),
    /// The ring has more partitions.
    #[error(
        "spec.partitions may only grow: the ring has {ring}, and the spec says {spec}; set it to {ring} or more"
    )]
    PartitionsShrunk {
        /// Of the ring.
        ring: i32,
        /// Of the spec.
        spec: i32,
    },
    /// The size is none.
    #[error("spec.storage.size must be a size above zero, such as 10Gi, and is {0:?}")]
    Size(String),
    /// The length of time is none.
    #[error(
        "spec.replaceAfter must be a length of time of at least {REPLACE_AFTER_SECONDS_MIN} s, such as 30m, and is {0:?}"
    )]
    ReplaceAfter(String),
    /// A sidecar has the name of the node's container, or two have one name.
    #[error("spec.podTemplate.sidecars: the name {0:?} is taken; give each sidecar its own name")]
    SidecarName(String),
    /// A variable of the node's own is set.
    #[error("spec.podTemplate.env: {0} is set by the operator; remove it")]
    Env(String),
    /// The operator was started without a default image, and the spec names none.
    #[error("spec.image is absent and the operator has no default; set spec.image")]
    NoImage,
}

/// The spec as the planner takes it.
///
/// # Errors
/// [`Invalid`]: the first thing that cannot work.
pub fn validate(cluster: &KeyValueCluster, default_image: Option<&str>) -> Result<Desired, Invalid> {
    let name = cluster.name_any();
    let namespace = cluster.namespace().ok_or(Invalid::Incomplete("namespace"))?;
    let uid = cluster.uid().ok_or(Invalid::Incomplete("uid"))?;
    let uid = Uuid::parse_str(&uid).map_err(|_| Invalid::Uid(uid))?;
    if !name_works(&name) {
        return Err(Invalid::Name(name));
    }
    let spec = &cluster.spec;
    range("replicas", spec.replicas, 1, 500)?;
    let quorums = quorums(cluster)?;
    let partitions = u32::try_from(spec.partitions).ok().and_then(|count| PartitionCount::new(count).ok());
    let partitions = partitions.ok_or(Invalid::Partitions(spec.partitions))?;
    let ring = cluster.status.as_ref().and_then(|status| status.ring.as_ref());
    if let Some(ring) = ring.filter(|ring| ring.partitions > spec.partitions) {
        return Err(Invalid::PartitionsShrunk { ring: ring.partitions, spec: spec.partitions });
    }
    let size = &spec.storage.size;
    let volume_bytes = quantity::bytes(size).ok().filter(|bytes| *bytes > 0);
    let volume_bytes = volume_bytes.ok_or_else(|| Invalid::Size(size.clone()))?;
    pods(cluster)?;
    if spec.image.is_none() && default_image.is_none() {
        return Err(Invalid::NoImage);
    }
    let moves = spec.rebalance.as_ref().and_then(|rebalance| rebalance.parallel_moves);
    let moves = moves.map_or(Ok(Pace::default().parallel_moves), |moves| {
        range("rebalance.parallelMoves", moves, 1, 16_384).map(|moves| moves as usize)
    })?;
    let zones = spec.zones.clone().unwrap_or_default();
    for weight in zones.weights.values() {
        range("zones.weights", *weight, 1, ZONE_WEIGHT_MAX)?;
    }
    Ok(Desired {
        cluster: uid,
        name,
        namespace,
        replicas: spec.replicas.unsigned_abs(),
        partitions,
        quorums,
        pace: Pace { parallel_moves: moves },
        zones: spec.zones.is_some(),
        zone_weights: zones.weights.into_iter().map(|(zone, weight)| (zone, weight.unsigned_abs())).collect(),
        replace_after_seconds: replace_after(spec.replace_after.as_deref())?,
        delete_on_scale_in: spec.storage.on_scale_in == VolumePolicy::Delete,
        volume_bytes,
        paused: spec.paused,
    })
}

fn replace_after(text: Option<&str>) -> Result<u64, Invalid> {
    let Some(text) = text else { return Ok(REPLACE_AFTER_SECONDS) };
    let seconds = duration::parse(text).ok().map(|duration| duration.as_secs());
    let long_enough = seconds.filter(|seconds| *seconds >= REPLACE_AFTER_SECONDS_MIN);
    long_enough.ok_or_else(|| Invalid::ReplaceAfter(text.to_owned()))
}

/// Whether pods and Services can be named after it.
fn name_works(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= NAME_LENGTH_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(inner)
        && !name.ends_with('-')
}

fn range(field: &'static str, value: i32, min: u32, max: u32) -> Result<u32, Invalid> {
    let inside = u32::try_from(value).ok().filter(|value| (min..=max).contains(value));
    inside.ok_or(Invalid::Range { field, value: value.into(), min: min.into(), max: max.into() })
}

/// n and the default quorums: a majority where the spec does not say.
fn quorums(cluster: &KeyValueCluster) -> Result<Quorums, Invalid> {
    let spec = &cluster.spec;
    let n = range("replicationFactor", spec.replication_factor, 1, 15)?;
    if spec.replicas < spec.replication_factor {
        return Err(Invalid::TooFewReplicas { replicas: spec.replicas, n: spec.replication_factor });
    }
    let consistency = spec.consistency.clone().unwrap_or_default();
    let majority = n / 2 + 1;
    let quorum = |field, wanted: Option<i32>| wanted.map_or(Ok(majority), |value| range(field, value, 1, n));
    let r = quorum("consistency.read", consistency.read)?;
    let w = quorum("consistency.write", consistency.write)?;
    // All three are at most 15.
    let small = |count: u32| u8::try_from(count).unwrap_or(u8::MAX);
    Ok(Quorums { n: small(n), r: small(r), w: small(w), sloppy: consistency.sloppy.unwrap_or(true) })
}

fn pods(cluster: &KeyValueCluster) -> Result<(), Invalid> {
    let Some(template) = &cluster.spec.pod_template else {
        return Ok(());
    };
    let mut names = std::collections::BTreeSet::from([NODE_CONTAINER]);
    if let Some(taken) = template.sidecars.iter().find(|sidecar| !names.insert(&sidecar.name)) {
        return Err(Invalid::SidecarName(taken.name.clone()));
    }
    let ours = |name: &str| name.starts_with("ANNULUS_") || name == "POD_NAME";
    match template.env.iter().find(|variable| ours(&variable.name)) {
        Some(variable) => Err(Invalid::Env(variable.name.clone())),
        None => Ok(()),
    }
}

//! The durable copy of the ring document. Written by compare-and-swap, unlike the other objects.

use super::metadata;
use crate::crd::KeyValueCluster;
use dynamo::ring::{self, Ring};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// Key of the document in the `ConfigMap`, and the name of the file that nodes see.
pub const RING_KEY: &str = "ring.json";
/// The annotation with the epoch, for people.
const EPOCH: &str = "annulus.dev/epoch";

/// Name of the `ConfigMap`.
#[must_use]
pub fn ring_config_map_name(cluster: &str) -> String {
    format!("{cluster}-ring")
}

/// The `ConfigMap`, to replace the one with this resource version, or to be created.
#[must_use]
pub fn ring_config_map(cluster: &KeyValueCluster, ring: &Ring, resource_version: Option<&str>) -> ConfigMap {
    let mut metadata = metadata(cluster, ring_config_map_name(&cluster.name_any()));
    metadata.resource_version = resource_version.map(str::to_owned);
    metadata.annotations = Some(BTreeMap::from([(EPOCH.to_owned(), ring.epoch.to_string())]));
    ConfigMap {
        metadata,
        data: Some(BTreeMap::from([(RING_KEY.to_owned(), ring::to_json(ring))])),
        ..ConfigMap::default()
    }
}

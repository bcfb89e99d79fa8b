//! The objects of a cluster, each a function of the spec and nothing else: YAML in, objects out.

mod network_policy;
mod pdb;
mod ring_config_map;
mod services;
mod stateful_set;

pub use network_policy::network_policy;
pub use pdb::pod_disruption_budget;
pub use ring_config_map::{RING_KEY, ring_config_map, ring_config_map_name};
pub use services::{client_service, nodes_service};
pub use stateful_set::{PROVEN, REPLICAS, scaled, stateful_set};

use crate::crd::KeyValueCluster;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

/// The label that every object of a cluster has, with the cluster's name.
pub const CLUSTER: &str = "annulus.dev/cluster";
/// The label of a volume claim that says for which cluster, by UID, it was made.
pub const CLUSTER_UID: &str = "annulus.dev/cluster-uid";
/// The annotation that says from what an object was built.
pub const BUILT_FROM: &str = "annulus.dev/built-from";

/// What an operator adds to every cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Image of nodes whose spec names none.
    pub node_image: Option<String>,
    /// Namespace that the operator runs in, from which it asks nodes.
    pub operator_namespace: String,
}

/// Labels by which the pods of a cluster are selected. They never change.
#[must_use]
pub fn selector(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "annulus".to_owned()),
        ("app.kubernetes.io/instance".to_owned(), name.to_owned()),
        (CLUSTER.to_owned(), name.to_owned()),
    ])
}

/// The selector as text.
#[must_use]
pub fn selector_text(name: &str) -> String {
    let pairs: Vec<String> = selector(name).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

fn label_selector(name: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(name)), ..LabelSelector::default() }
}

/// Labels of every object.
fn labels(name: &str) -> BTreeMap<String, String> {
    let mut labels = selector(name);
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "annulus-operator".to_owned());
    labels
}

/// Metadata of an object that goes when the cluster goes.
fn metadata(cluster: &KeyValueCluster, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: cluster.namespace(),
        labels: Some(labels(&cluster.name_any())),
        owner_references: Some(cluster.controller_owner_ref(&()).into_iter().collect()),
        ..ObjectMeta::default()
    }
}

/// Every object that is built from the spec alone.
#[derive(Clone, Debug)]
pub struct Built {
    /// Names each node.
    pub nodes_service: Service,
    /// For clients.
    pub client_service: Service,
    /// The disruption budget.
    pub pod_disruption_budget: PodDisruptionBudget,
    /// The policy, if wanted.
    pub network_policy: Option<NetworkPolicy>,
    /// Without replicas, which the planner decides.
    pub stateful_set: StatefulSet,
}

impl Built {
    /// What each object was built from, by kind and name.
    #[must_use]
    pub fn fingerprints(&self) -> BTreeMap<(&'static str, String), Option<String>> {
        let Self { nodes_service, client_service, pod_disruption_budget, network_policy, stateful_set } = self;
        let entry = |kind, name: String, annotations: &BTreeMap<String, String>| {
            ((kind, name), annotations.get(BUILT_FROM).cloned())
        };
        [
            entry("Service", nodes_service.name_any(), nodes_service.annotations()),
            entry("Service", client_service.name_any(), client_service.annotations()),
            entry("PodDisruptionBudget", pod_disruption_budget.name_any(), pod_disruption_budget.annotations()),
            entry("StatefulSet", stateful_set.name_any(), stateful_set.annotations()),
        ]
        .into_iter()
        .chain(network_policy.iter().map(|policy| entry("NetworkPolicy", policy.name_any(), policy.annotations())))
        .collect()
    }
}

/// Builds every object of a cluster but the ring's `ConfigMap`.
#[must_use]
pub fn build(cluster: &KeyValueCluster, defaults: &Defaults, claim_size: Option<&Quantity>) -> Built {
    let mut built = Built {
        nodes_service: nodes_service(cluster),
        client_service: client_service(cluster),
        pod_disruption_budget: pod_disruption_budget(cluster),
        network_policy: network_policy(cluster, defaults),
        stateful_set: stateful_set(cluster, defaults, claim_size),
    };
    sign(&mut built.nodes_service);
    sign(&mut built.client_service);
    sign(&mut built.pod_disruption_budget);
    built.network_policy.iter_mut().for_each(sign);
    sign(&mut built.stateful_set);
    built
}

/// A short text that differs when what was built differs. It is stable between runs of one version of the operator,
/// and another version only writes its objects once more.
fn fingerprint<T: Serialize>(built: &T) -> String {
    let text = serde_json::to_string(built).unwrap_or_default();
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Notes in an object from what it was built.
fn sign<T: Serialize + ResourceExt>(built: &mut T) {
    let fingerprint = fingerprint(built);
    built.annotations_mut().insert(BUILT_FROM.to_owned(), fingerprint);
}

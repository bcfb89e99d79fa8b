//! Who may talk to which port of a node.

use super::{CLUSTER, Defaults, label_selector, metadata};
use crate::crd::KeyValueCluster;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// The policy, if the spec asks for one: clients' ports and metrics from anywhere; the peer port, over which rings
/// are installed, from the cluster's own pods and the operator's namespace alone.
#[must_use]
pub fn network_policy(cluster: &KeyValueCluster, defaults: &Defaults) -> Option<NetworkPolicy> {
    if !cluster.spec.network_policy {
        return None;
    }
    let name = cluster.name_any();
    let select = |key: &str, value: &str| LabelSelector {
        match_labels: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
        ..LabelSelector::default()
    };
    let peers = NetworkPolicyPeer { pod_selector: Some(select(CLUSTER, &name)), ..NetworkPolicyPeer::default() };
    let operator = NetworkPolicyPeer {
        namespace_selector: Some(select("kubernetes.io/metadata.name", &defaults.operator_namespace)),
        ..NetworkPolicyPeer::default()
    };
    let rules = vec![
        NetworkPolicyIngressRule { ports: Some(ports(&["resp", "grpc", "http"])), from: None },
        NetworkPolicyIngressRule { ports: Some(ports(&["peer"])), from: Some(vec![peers, operator]) },
    ];
    Some(NetworkPolicy {
        metadata: metadata(cluster, name.clone()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(label_selector(&name)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(rules),
            ..NetworkPolicySpec::default()
        }),
    })
}

fn ports(names: &[&str]) -> Vec<NetworkPolicyPort> {
    let port = |name: &&str| NetworkPolicyPort {
        port: Some(IntOrString::String((*name).to_owned())),
        protocol: Some("TCP".to_owned()),
        ..NetworkPolicyPort::default()
    };
    names.iter().map(port).collect()
}

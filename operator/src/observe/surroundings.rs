//! What hardly ever changes around the pods: the objects built from the spec, but for the `StatefulSet`, and the zones of hosts.
//!
//! While something is under way there is a round each second, and half of what it reads would be this. So rounds may go by
//! what one a few seconds before has read: the worst that comes of it is that a Service that somebody has changed is
//! put right as much later.

use super::{ObserveError, failed};
use crate::build::BUILT_FROM;
use crate::crd::KeyValueCluster;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};

/// Fingerprints found on objects, by name of the kind and object.
pub(super) type Fingerprints = BTreeMap<(&'static str, String), Option<String>>;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub(super) fingerprints: Fingerprints,
    /// The label that tells a host's zone; `None`: zones do not matter.
    topology_key: Option<String>,
    /// Zone of each host that runs a pod of the cluster, if it has one.
    zones: BTreeMap<String, Option<String>>,
}

impl Surroundings {
    /// Reads them, but for what was read `earlier`.
    pub(super) async fn read(
        client: &Client,
        cluster: &KeyValueCluster,
        earlier: Option<&Self>,
    ) -> Result<Self, ObserveError> {
        if let Some(earlier) = earlier {
            return Ok(earlier.clone());
        }
        let namespace = cluster.namespace().unwrap_or_default();
        let fingerprints = fingerprints(client, &namespace, &cluster.name_any()).await?;
        Ok(Self { fingerprints, ..Self::default() })
    }

    /// Reads the zones of hosts that are not known yet.
    pub(super) async fn add_zones(
        &mut self,
        client: &Client,
        cluster: &KeyValueCluster,
        pods: &[Pod],
    ) -> Result<(), ObserveError> {
        let topology_key = cluster.spec.zones.as_ref().map(|zones| zones.topology_key.clone());
        if topology_key != self.topology_key {
            self.topology_key = topology_key;
            self.zones.clear();
        }
        let Some(topology_key) = &self.topology_key else { return Ok(()) };
        let host = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let hosts: BTreeSet<String> = pods.iter().filter_map(host).collect();
        self.zones.retain(|host, _| hosts.contains(host));
        let api: Api<Node> = Api::all(client.clone());
        let unknown = hosts.into_iter().filter(|host| !self.zones.contains_key(host));
        let read = unknown.map(|host| {
            let api = &api;
            async move { api.get_metadata_opt(&host).await.map(|node| (host, node)) }
        });
        let read = futures::future::try_join_all(read).await.map_err(failed("Nodes"))?;
        let zone = |node: Option<PartialObjectMeta<Node>>| node?.labels().get(topology_key).cloned();
        self.zones.extend(read.into_iter().map(|(host, node)| (host, zone(node))));
        Ok(())
    }

    pub(super) fn zone(&self, host: &str) -> Option<String> {
        self.zones.get(host).cloned().flatten()
    }
}

async fn fingerprints(client: &Client, namespace: &str, name: &str) -> Result<Fingerprints, ObserveError> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), namespace);
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let nodes = format!("{name}-nodes");
    let (nodes, clients, budget, policy) = tokio::try_join!(
        services.get_metadata_opt(&nodes),
        services.get_metadata_opt(name),
        budgets.get_metadata_opt(name),
        policies.get_metadata_opt(name),
    )
    .map_err(failed("Services, PodDisruptionBudget and NetworkPolicy"))?;
    let mut found = Fingerprints::new();
    let mut add = |kind, object: Option<(String, Option<String>)>| {
        if let Some((name, fingerprint)) = object {
            found.insert((kind, name), fingerprint);
        }
    };
    add("Service", nodes.map(|object| (object.name_any(), object.annotations().get(BUILT_FROM).cloned())));
    add("Service", clients.map(|object| (object.name_any(), object.annotations().get(BUILT_FROM).cloned())));
    add("PodDisruptionBudget", budget.map(|o| (o.name_any(), o.annotations().get(BUILT_FROM).cloned())));
    // A policy of the same name that somebody else made is none of the operator's business.
    let policy = policy.map(|o| (o.name_any(), o.annotations().get(BUILT_FROM).cloned()));
    add("NetworkPolicy", policy.filter(|(_, fingerprint)| fingerprint.is_some()));
    Ok(found)
}

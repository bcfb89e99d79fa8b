//! Observes a cluster: its objects, its pods, and what every node says of itself. All that anything is decided from is read
//! live.

mod answers;
mod objects;
mod stranded;
mod surroundings;
mod troubles;

pub use answers::{answer, ask};
pub use surroundings::Surroundings;

use crate::build::{self, BUILT_FROM, Built};
use crate::crd::KeyValueCluster;
use crate::nodes::NodeClient;
use crate::plan::{Objects, Observed, StoredRing};
use dynamo::ring;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use uuid::Uuid;

/// A read that failed; nothing was changed, and nothing follows from it.
#[derive(Debug, thiserror::Error)]
#[error("reading {what} failed: {source}")]
pub struct ObserveError {
    /// What was read.
    pub what: &'static str,
    /// Why it failed.
    #[source]
    pub source: kube::Error,
}

/// What was observed, for the planner and for what follows it.
#[derive(Debug)]
pub struct Seen {
    /// For the planner.
    pub observed: Observed,
    /// The `StatefulSet` as it is.
    pub stateful_set: Option<StatefulSet>,
    /// What may be taken as it is by the next rounds.
    pub surroundings: Surroundings,
    /// Fingerprints found on the objects that are built from the spec.
    found: surroundings::Fingerprints,
}

impl Seen {
    /// Size in the claim template of the `StatefulSet`, which cannot be changed.
    #[must_use]
    pub fn claim_size(&self) -> Option<Quantity> {
        let templates = self.stateful_set.as_ref()?.spec.as_ref()?.volume_claim_templates.as_ref()?;
        let requests = templates.first()?.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
        requests.get("storage").cloned()
    }

    /// Compares what is with what would be built. A policy that is no longer wanted differs as well.
    pub fn compare(&mut self, built: &Built) {
        let wanted = built.fingerprints();
        let same = wanted.len() == self.found.len()
            && wanted.iter().all(|(key, value)| self.found.get(key).is_some_and(|found| *found == *value));
        self.observed.objects = if same { Objects::Current } else { Objects::Differ };
    }
}

/// Reads everything that the planner decides from, but for the surroundings if they were read `earlier`.
///
/// # Errors
/// [`ObserveError`] when the API server did not answer. A node that does not answer is no error but an observation.
pub async fn observe(
    client: &Client,
    nodes: &dyn NodeClient,
    cluster: &KeyValueCluster,
    earlier: Option<&Surroundings>,
) -> Result<Seen, ObserveError> {
    let name = cluster.name_any();
    let namespace = cluster.namespace().unwrap_or_default();
    let known_epoch = known_epoch(cluster);
    let of_cluster = ListParams::default().labels(&build::selector_text(&name));

    let stateful_sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let ring_name = build::ring_config_map_name(&name);
    let (stateful_set, config_map, pods, claims, mut surroundings) = tokio::try_join!(
        async { stateful_sets.get_opt(&name).await.map_err(failed("the StatefulSet")) },
        async { config_maps.get_opt(&ring_name).await.map_err(failed("the ring's ConfigMap")) },
        async { pods.list(&of_cluster).await.map_err(failed("pods")) },
        async { claims.list(&of_cluster).await.map_err(failed("volume claims")) },
        Surroundings::read(client, cluster, earlier),
    )?;
    surroundings.add_zones(client, cluster, &pods.items).await?;

    let stored = stored(cluster, config_map.as_ref());
    let now = Timestamp::now();
    let mut seen_pods: Vec<_> =
        pods.items.iter().filter_map(|pod| objects::pod(&name, pod, &surroundings, now)).collect();
    seen_pods.sort_by_key(|pod| pod.ordinal);
    answers::ask_all(nodes, &mut seen_pods, &stored, known_epoch).await;
    if let Err(error) = troubles::add(client, &namespace, &mut seen_pods).await {
        tracing::warn!(%error, "what keeps pods from starting is known only in part");
    }
    let mut volumes: Vec<_> = claims.items.iter().filter_map(|claim| objects::volume(&name, claim)).collect();
    volumes.sort_by_key(|volume| volume.ordinal);
    match stranded::stranded(client, &claims.items, &seen_pods).await {
        Ok(mut stranded) => volumes.iter_mut().for_each(|volume| volume.stranded = stranded.remove(&volume.name)),
        // Nothing is given up then; everything else goes on.
        Err(error) => tracing::warn!(%error, "whether volumes are out of reach for good is not known"),
    }

    let mut found = surroundings.fingerprints.clone();
    if let Some(stateful_set) = &stateful_set {
        let fingerprint = stateful_set.annotations().get(BUILT_FROM).cloned();
        found.insert(("StatefulSet", name.clone()), fingerprint);
    }
    let observed = Observed {
        objects: Objects::Differ,
        workload: stateful_set.as_ref().map(objects::workload),
        pods: seen_pods,
        volumes,
        stored,
        known_epoch,
        published_just_now: false,
    };
    Ok(Seen { observed, stateful_set, surroundings, found })
}

/// Epoch in the resource's own status.
fn known_epoch(cluster: &KeyValueCluster) -> u64 {
    let ring = cluster.status.as_ref().and_then(|status| status.ring.as_ref());
    ring.and_then(|ring| u64::try_from(ring.epoch).ok()).unwrap_or(0)
}

fn stored(cluster: &KeyValueCluster, config_map: Option<&ConfigMap>) -> StoredRing {
    let Some(config_map) = config_map else {
        return StoredRing::Missing;
    };
    let resource_version = config_map.resource_version().unwrap_or_default();
    let text = config_map.data.as_ref().and_then(|data| data.get(build::RING_KEY));
    let uid = cluster.uid().and_then(|uid| Uuid::parse_str(&uid).ok());
    let why = match text.map(|text| ring::from_json(text.as_bytes())) {
        Some(Ok(ring)) if Some(ring.cluster) == uid => {
            return StoredRing::Held { ring: Box::new(ring), resource_version };
        }
        Some(Ok(ring)) => format!("it holds the ring of cluster {}", ring.cluster),
        Some(Err(error)) => error.to_string(),
        None => format!("it has no key {}", build::RING_KEY),
    };
    StoredRing::Damaged { resource_version, why }
}

fn failed(what: &'static str) -> impl Fn(kube::Error) -> ObserveError {
    move |source| ObserveError { what, source }
}

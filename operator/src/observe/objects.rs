//! Kubernetes objects as the planner sees them.

use super::surroundings::Surroundings;
use crate::build::{CLUSTER_UID, PROVEN, REPLICAS};
use crate::plan::{Observation, Pod, Volume, Workload};
use crate::quantity;
use crate::validate::NODE_CONTAINER;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{self, ContainerStatus, PersistentVolumeClaim, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use uuid::Uuid;

pub(super) fn workload(stateful_set: &StatefulSet) -> Workload {
    let annotations = stateful_set.annotations();
    let replicas = stateful_set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = stateful_set.status.as_ref();
    // Until the controller has seen this generation, the revision it reports may be that of an older template.
    let seen = status.and_then(|status| status.observed_generation) == stateful_set.metadata.generation;
    let revision = status.and_then(|status| status.update_revision.clone()).filter(|_| seen);
    let proven = annotations.get(PROVEN).map(String::as_str).unwrap_or_default();
    Workload {
        replicas: u32::try_from(replicas).unwrap_or(0),
        replicas_written: annotations.get(REPLICAS).and_then(|text| text.parse().ok()),
        revision: revision.unwrap_or_default(),
        proven: proven.split(',').filter_map(|text| Uuid::parse_str(text).ok()).collect(),
        resource_version: stateful_set.resource_version().unwrap_or_default(),
    }
}

pub(super) fn pod(cluster: &str, pod: &v1::Pod, around: &Surroundings, now: Timestamp) -> Option<Pod> {
    let name = pod.name_any();
    let ordinal = name.strip_prefix(cluster)?.strip_prefix('-')?.parse().ok()?;
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let unscheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    let unscheduled_since = unscheduled.and_then(|condition| condition.last_transition_time.as_ref());
    let seconds_since = |since: &Time| u64::try_from(now.as_second() - since.0.as_second()).unwrap_or(0);
    let node = node_container(&status);
    let running = node.and_then(|node| node.state.as_ref()).is_some_and(|state| state.running.is_some());
    let host = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
    Some(Pod {
        ordinal,
        uid: pod.uid().unwrap_or_default(),
        ip: status.pod_ip.as_ref().and_then(|ip| ip.parse().ok()),
        ready,
        running,
        terminating: pod.metadata.deletion_timestamp.is_some(),
        unscheduled_seconds: unscheduled_since.map(seconds_since),
        revision: pod.labels().get("controller-revision-hash").cloned().unwrap_or_default(),
        zone: host.and_then(|host| around.zone(host)),
        node: Observation::NoAnswer(why_no_address(&status)),
        name,
    })
}

fn node_container(status: &PodStatus) -> Option<&ContainerStatus> {
    status.container_statuses.iter().flatten().find(|container| container.name == NODE_CONTAINER)
}

/// Why a pod has no address, as far as Kubernetes says.
fn why_no_address(status: &PodStatus) -> String {
    let waiting = node_container(status).and_then(|node| node.state.as_ref()?.waiting.as_ref());
    if let Some(waiting) = waiting {
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        let message = waiting.message.as_deref().unwrap_or_default();
        return format!("{reason} {message}").trim().to_owned();
    }
    let unmet = status.conditions.iter().flatten().find(|condition| condition.status == "False");
    match unmet.and_then(|condition| condition.message.as_ref()) {
        Some(message) => message.clone(),
        None => format!("it has no address yet ({})", status.phase.as_deref().unwrap_or("Pending")),
    }
}

pub(super) fn volume(cluster: &str, claim: &PersistentVolumeClaim) -> Option<Volume> {
    let name = claim.name_any();
    let ordinal = name.strip_prefix("data-")?.strip_prefix(cluster)?.strip_prefix('-')?.parse().ok()?;
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let size = requests.and_then(|requests| requests.get("storage"));
    Some(Volume {
        ordinal,
        uid: claim.uid().unwrap_or_default(),
        // A claim that lost its volume has had one.
        bound: phase != Some("Pending"),
        terminating: claim.metadata.deletion_timestamp.is_some(),
        cluster: claim.labels().get(CLUSTER_UID).and_then(|uid| Uuid::parse_str(uid).ok()),
        stranded: None,
        bytes: size.and_then(|size| quantity::bytes(&size.0).ok()).unwrap_or(0),
        name,
    })
}

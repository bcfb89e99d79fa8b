//! The `StatefulSet` whose pods are the nodes.
//!
//! Pods start together (`Parallel`) and are never restarted by Kubernetes itself (`OnDelete`): the planner decides
//! when each may go.

use super::{CLUSTER_UID, Defaults, label_selector, labels, metadata, ring_config_map_name, selector};
use crate::crd::{KeyValueCluster, PodTemplate, VolumePolicy};
use crate::validate::NODE_CONTAINER;
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, KeyToPath,
    ObjectFieldSelector, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext,
    TopologySpreadConstraint, Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The annotation with the number of replicas that the operator wrote.
pub const REPLICAS: &str = "annulus.dev/replicas";
/// The annotation with the incarnations whose pods were let go on proof.
pub const PROVEN: &str = "annulus.dev/proven";

const USER: i64 = 65532;
const RING_DIRECTORY: &str = "/etc/annulus/ring";
const USERS_DIRECTORY: &str = "/etc/annulus/users";
const USERS_FILE: &str = "users.acl";

/// The `StatefulSet`, but for what the planner decides: see [`scaled`]. `claim_size` is the size in the claim template
/// of the `StatefulSet` that exists: Kubernetes does not let it be changed, so claims are made larger one by one.
#[must_use]
pub fn stateful_set(cluster: &KeyValueCluster, defaults: &Defaults, claim_size: Option<&Quantity>) -> StatefulSet {
    let name = cluster.name_any();
    let template = cluster.spec.pod_template.clone().unwrap_or_default();
    let retention = StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_deleted: Some(policy(cluster.spec.storage.on_delete)),
        // The planner deletes volumes after a scale in itself, on proof.
        when_scaled: Some(policy(VolumePolicy::Retain)),
    };
    StatefulSet {
        metadata: metadata(cluster, name.clone()),
        spec: Some(StatefulSetSpec {
            service_name: Some(format!("{name}-nodes")),
            selector: label_selector(&name),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            persistent_volume_claim_retention_policy: Some(retention),
            template: pod_template(cluster, defaults, &template),
            volume_claim_templates: Some(vec![claim(cluster, claim_size)]),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

/// Adds what the planner decides: how many pods, and who was let go on proof.
#[must_use]
pub fn scaled(mut stateful_set: StatefulSet, replicas: u32, proven: &BTreeSet<Uuid>) -> StatefulSet {
    if let Some(spec) = &mut stateful_set.spec {
        spec.replicas = i32::try_from(replicas).ok();
    }
    let proven: Vec<String> = proven.iter().map(Uuid::to_string).collect();
    let annotations = stateful_set.annotations_mut();
    annotations.insert(REPLICAS.to_owned(), replicas.to_string());
    if !proven.is_empty() {
        annotations.insert(PROVEN.to_owned(), proven.join(","));
    }
    stateful_set
}

fn policy(policy: VolumePolicy) -> String {
    match policy {
        VolumePolicy::Retain => "Retain".to_owned(),
        VolumePolicy::Delete => "Delete".to_owned(),
    }
}

fn pod_template(cluster: &KeyValueCluster, defaults: &Defaults, template: &PodTemplate) -> PodTemplateSpec {
    let name = cluster.name_any();
    let mut pod_labels = template.labels.clone();
    pod_labels.extend(labels(&name));
    let node_selector = (!template.node_selector.is_empty()).then(|| template.node_selector.clone());
    let mut containers = vec![node(cluster, defaults, template)];
    containers.extend(template.sidecars.iter().cloned());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            annotations: (!template.annotations.is_empty()).then(|| template.annotations.clone()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers,
            affinity: template.affinity.clone(),
            tolerations: (!template.tolerations.is_empty()).then(|| template.tolerations.clone()),
            node_selector,
            topology_spread_constraints: Some(spread(cluster, template)),
            termination_grace_period_seconds: Some(template.termination_grace_period_seconds.unwrap_or(30)),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                // A volume with many files would otherwise be walked at every start.
                fs_group_change_policy: Some("OnRootMismatch".to_owned()),
                seccomp_profile: Some(runtime_default()),
                ..PodSecurityContext::default()
            }),
            volumes: Some(volumes(cluster)),
            ..PodSpec::default()
        }),
    }
}

fn volumes(cluster: &KeyValueCluster) -> Vec<Volume> {
    let ring = Volume {
        name: "ring".to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: ring_config_map_name(&cluster.name_any()),
            optional: Some(true),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    // Not optional: a node that started without its users would let everyone in.
    let users = cluster.spec.auth.as_ref().map(|auth| Volume {
        name: "users".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(auth.secret_name.clone()),
            items: Some(vec![KeyToPath {
                key: auth.key.clone(),
                path: USERS_FILE.to_owned(),
                ..KeyToPath::default()
            }]),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    std::iter::once(ring).chain(users).collect()
}

/// Spread over hosts, and over zones if there are any; preferred, so that a small cluster still starts.
fn spread(cluster: &KeyValueCluster, template: &PodTemplate) -> Vec<TopologySpreadConstraint> {
    if let Some(constraints) = &template.topology_spread_constraints {
        return constraints.clone();
    }
    let name = cluster.name_any();
    let zones = cluster.spec.zones.iter().map(|zones| zones.topology_key.as_str());
    std::iter::once("kubernetes.io/hostname")
        .chain(zones)
        .map(|key| TopologySpreadConstraint {
            max_skew: 1,
            topology_key: key.to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(label_selector(&name)),
            ..TopologySpreadConstraint::default()
        })
        .collect()
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }
}

fn node(cluster: &KeyValueCluster, defaults: &Defaults, template: &PodTemplate) -> Container {
    let port = |(name, number): (&str, i32)| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let mut env = vec![EnvVar {
        name: "POD_NAME".to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: "metadata.name".to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }];
    env.extend(template.env.iter().cloned());
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let mut mounts = vec![mount("data", "/data", false), mount("ring", RING_DIRECTORY, true)];
    mounts.extend(cluster.spec.auth.is_some().then(|| mount("users", USERS_DIRECTORY, true)));
    Container {
        name: NODE_CONTAINER.to_owned(),
        image: cluster.spec.image.clone().or_else(|| defaults.node_image.clone()),
        image_pull_policy: cluster.spec.image_pull_policy.map(|policy| policy.name().to_owned()),
        command: Some(vec!["annulus-node".to_owned()]),
        args: Some(arguments(cluster)),
        env: Some(env),
        ports: Some([("resp", 6379), ("grpc", 7379), ("peer", 7400), ("http", 9090)].map(port).to_vec()),
        resources: Some(cluster.spec.resources.clone().unwrap_or_else(requests_of_default)),
        readiness_probe: Some(probe("/readyz", 5, 3, 3)),
        // Generous, for a node that is busy recovering must not be killed for it.
        liveness_probe: Some(probe("/healthz", 10, 10, 12)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            seccomp_profile: Some(runtime_default()),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// What a node asks for when nothing is said. Without any request it would get processor time only where no other pod of its
/// host wants some, and would be the first to be killed when memory runs out there.
fn requests_of_default() -> ResourceRequirements {
    let requests = [("cpu", "100m"), ("memory", "256Mi")];
    let requests = requests.map(|(what, much)| (what.to_owned(), Quantity(much.to_owned())));
    ResourceRequirements { requests: Some(BTreeMap::from(requests)), ..ResourceRequirements::default() }
}

fn arguments(cluster: &KeyValueCluster) -> Vec<String> {
    let uid = cluster.uid().unwrap_or_default();
    let ring_file = format!("{RING_DIRECTORY}/{}", super::RING_KEY);
    let mut arguments: Vec<String> = [
        "serve",
        "--data-dir",
        "/data",
        "--cluster",
        &uid,
        "--name",
        "$(POD_NAME)",
        "--resp",
        "0.0.0.0:6379",
        "--grpc",
        "0.0.0.0:7379",
        "--peer",
        "0.0.0.0:7400",
        "--http",
        "0.0.0.0:9090",
        "--ring-file",
        &ring_file,
    ]
    .map(str::to_owned)
    .to_vec();
    if cluster.spec.auth.is_some() {
        arguments.extend(["--acl-file".to_owned(), format!("{USERS_DIRECTORY}/{USERS_FILE}")]);
    }
    let throttle = cluster.spec.rebalance.as_ref().and_then(|rebalance| rebalance.max_bytes_per_second);
    if let Some(throttle) = throttle {
        arguments.extend(["--transfer-bytes-per-second".to_owned(), throttle.to_string()]);
    }
    arguments
}

fn probe(path: &str, timeout: i32, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(timeout),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn claim(cluster: &KeyValueCluster, claim_size: Option<&Quantity>) -> PersistentVolumeClaim {
    let storage = &cluster.spec.storage;
    let size = claim_size.cloned().unwrap_or_else(|| Quantity(storage.size.clone()));
    let mut labels = selector(&cluster.name_any());
    labels.insert(CLUSTER_UID.to_owned(), cluster.uid().unwrap_or_default());
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some("data".to_owned()), labels: Some(labels), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), size)])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

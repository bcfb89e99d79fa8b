//! YAML in, objects out: what is built from the examples.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use annulus_operator::build::{Built, Defaults, build, scaled};
use annulus_operator::crd::KeyValueCluster;
use annulus_operator::validate::{Invalid, validate};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeSet;

const UID: &str = "0b7b2b4e-6d3f-4f0a-9f57-0d8a5b0c1d2e";

fn cluster(yaml: &str) -> KeyValueCluster {
    let mut cluster: KeyValueCluster = serde_saphyr::from_str(yaml).unwrap();
    cluster.metadata.namespace = Some("default".to_owned());
    cluster.metadata.uid = Some(UID.to_owned());
    cluster
}

fn defaults() -> Defaults {
    Defaults { node_image: Some("node:default".to_owned()), operator_namespace: "annulus-system".to_owned() }
}

fn built(yaml: &str) -> Built {
    build(&cluster(yaml), &defaults(), None)
}

fn pod(built: &Built) -> PodSpec {
    built.stateful_set.spec.as_ref().unwrap().template.spec.clone().unwrap()
}

fn node(built: &Built) -> Container {
    pod(built).containers.remove(0)
}

const PLAIN: &str = include_str!("../../examples/cluster.yaml");
const PRODUCTION: &str = include_str!("../../examples/production.yaml");
const FIVE: &str = include_str!("../../examples/five.yaml");

/// The whole of the `StatefulSet` of the plain example, as it is written. Run with `UPDATE=1` to write it anew.
#[test]
fn the_stateful_set_of_the_example() {
    let path = "tests/objects/stateful_set.yaml";
    let stateful_set = scaled(built(PLAIN).stateful_set, 3, &BTreeSet::new());
    // What it was built from is a fingerprint of all the rest, and says nothing here.
    let mut value = serde_json::to_value(&stateful_set).unwrap();
    value["metadata"]["annotations"].as_object_mut().unwrap().remove("annulus.dev/built-from").unwrap();
    let yaml = serde_saphyr::to_string(&value).unwrap();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &yaml).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), yaml);
}

#[test]
fn every_example_is_valid() {
    for (yaml, replicas, n, r) in [(PLAIN, 3, 3, 2), (PRODUCTION, 6, 3, 2), (FIVE, 5, 5, 3)] {
        let desired = validate(&cluster(yaml), Some("node:default")).unwrap();
        assert_eq!((desired.replicas, desired.quorums.n, desired.quorums.r), (replicas, n, r));
    }
}

#[test]
fn pods_pass_the_restricted_standard() {
    let built = built(PRODUCTION);
    let pod = pod(&built);
    assert_eq!(pod.automount_service_account_token, Some(false));
    let security = pod.security_context.unwrap();
    assert_eq!((security.run_as_non_root, security.run_as_user), (Some(true), Some(65532)));
    let container = node(&built).security_context.unwrap();
    assert_eq!(container.allow_privilege_escalation, Some(false));
    assert_eq!(container.read_only_root_filesystem, Some(true));
    assert_eq!(container.capabilities.unwrap().drop, Some(vec!["ALL".to_owned()]));
}

#[test]
fn fields_of_the_spec_reach_the_pods() {
    let built = built(PRODUCTION);
    let arguments = node(&built).args.unwrap().join(" ");
    assert!(arguments.contains(&format!("--cluster {UID}")));
    assert!(arguments.ends_with("--transfer-bytes-per-second 52428800"), "{arguments}");
    let template = &built.stateful_set.spec.as_ref().unwrap().template;
    assert_eq!(template.metadata.as_ref().unwrap().labels.as_ref().unwrap()["team"], "web");
    assert_eq!(pod(&built).termination_grace_period_seconds, Some(60));
    assert_eq!(pod(&built).topology_spread_constraints.unwrap()[0].when_unsatisfiable, "DoNotSchedule");
    let policy = built.network_policy.unwrap().spec.unwrap();
    assert_eq!(policy.ingress.unwrap().len(), 2);
    assert!(self::built(PLAIN).network_policy.is_none());
}

/// Kubernetes refuses a change of claim templates, so a larger size must not reach them.
#[test]
fn a_larger_size_leaves_the_claim_template_alone() {
    let larger = cluster(&PLAIN.replace("1Gi", "2Gi"));
    let built_now = build(&larger, &defaults(), Some(&Quantity("1Gi".to_owned())));
    assert_eq!(built_now.stateful_set, built(PLAIN).stateful_set);
}

#[test]
fn what_was_built_is_told_apart_by_its_fingerprint() {
    let plain = built(PLAIN).fingerprints();
    assert_eq!(plain, built(PLAIN).fingerprints());
    let image = build(&cluster(PLAIN), &Defaults { node_image: Some("other".to_owned()), ..defaults() }, None);
    let differ: Vec<_> = image.fingerprints().into_iter().filter(|(key, value)| plain[key] != *value).collect();
    assert_eq!(differ.len(), 1);
    assert_eq!(differ[0].0.0, "StatefulSet");
}

#[test]
fn what_cel_cannot_see_is_refused() {
    let refused = |from: &str, to: &str| validate(&cluster(&PLAIN.replace(from, to)), Some("node")).unwrap_err();
    let storage = "  storage:";
    assert!(matches!(
        refused(storage, "  podTemplate: {env: [{name: ANNULUS_DATA_DIR, value: x}]}\n  storage:"),
        Invalid::Env(_)
    ));
    assert!(matches!(
        refused(storage, "  podTemplate: {sidecars: [{name: node, image: x}]}\n  storage:"),
        Invalid::SidecarName(_)
    ));
    assert!(matches!(refused("replicas: 3", "replicas: 2"), Invalid::TooFewReplicas { .. }));
    assert!(matches!(refused("1Gi", "0"), Invalid::Size(_)));
    assert!(matches!(refused(storage, "  partitions: 100\n  storage:"), Invalid::Partitions(100)));
    assert!(matches!(refused("name: demo", "name: 0demo"), Invalid::Name(_)));
    assert_eq!(validate(&cluster(PLAIN), None), Err(Invalid::NoImage));
}

/// Nobody is let in before the users are known: the Secret is not optional.
#[test]
fn users_come_from_a_secret() {
    let plain = built(PLAIN);
    assert!(!node(&plain).args.unwrap().contains(&"--acl-file".to_owned()));
    let built = built(&PLAIN.replace("spec:\n", "spec:\n  auth: {secretName: people}\n"));
    let volumes = pod(&built).volumes.unwrap();
    let secret = volumes.iter().find_map(|volume| volume.secret.as_ref()).unwrap();
    assert_eq!((secret.secret_name.as_deref(), secret.optional), (Some("people"), None));
    assert_eq!(secret.items.as_ref().unwrap()[0].key, "users.acl");
    let node = node(&built);
    let arguments = node.args.unwrap().join(" ");
    assert!(arguments.contains("--acl-file /etc/annulus/users/users.acl"), "{arguments}");
    let mounts = node.volume_mounts.unwrap();
    let mount = mounts.iter().find(|mount| mount.name == "users").unwrap();
    assert_eq!((mount.mount_path.as_str(), mount.read_only), ("/etc/annulus/users", Some(true)));
}

//! What admission refuses, with the words it uses, by the same CEL rules that the API server runs.

use super::{KeyValueCluster, definition};
use kube::core::cel::{validate_cel, validate_cel_update};
use serde_json::{Value, json};

fn cluster(name: &str, spec: Value) -> KeyValueCluster {
    serde_json::from_value(json!({
        "apiVersion": "annulus.dev/v1alpha1",
        "kind": "KeyValueCluster",
        "metadata": {"name": name},
        "spec": spec,
    }))
    .unwrap()
}

/// What is refused when this is created.
fn refused(name: &str, spec: Value) -> String {
    validate_cel(&cluster(name, spec)).map_or_else(|errors| errors.to_string(), |()| String::new())
}

/// What is refused when the first becomes the second.
fn refused_change(before: Value, after: Value) -> String {
    let (before, after) = (cluster("demo", before), cluster("demo", after));
    validate_cel_update(&after, &before).map_or_else(|errors| errors.to_string(), |()| String::new())
}

#[test]
fn what_works_is_let_in() {
    let works = [
        json!({}),
        json!({"replicas": 5, "replicationFactor": 5, "consistency": {"read": 5, "write": 1}}),
        json!({"replicas": 1, "replicationFactor": 1}),
        json!({"partitions": 16384}),
        json!({"replaceAfter": "1h30m"}),
        json!({"zones": {"topologyKey": "zone", "weights": {"a": 2}}}),
        json!({"storage": {"size": "1.5Ti", "storageClassName": "fast"}}),
    ];
    for spec in works {
        assert_eq!(refused("demo", spec.clone()), "", "{spec}");
    }
}

#[test]
fn what_cannot_work_is_refused_with_what_to_do() {
    let long = "a".repeat(41);
    let cases = [
        ("demo", json!({"replicas": 2}), "raise replicas"),
        ("demo", json!({"replicas": 3, "replicationFactor": 5}), "raise replicas"),
        ("demo", json!({"consistency": {"read": 4}}), "spec.consistency.read must be at most"),
        ("demo", json!({"consistency": {"write": 4}}), "spec.consistency.write must be at most"),
        ("demo", json!({"partitions": 1000}), "power of two from 16 to 16384"),
        ("demo", json!({"partitions": 8}), "power of two from 16 to 16384"),
        ("demo", json!({"partitions": 32768}), "power of two from 16 to 16384"),
        ("demo", json!({"replaceAfter": "5s"}), "at least 10s"),
        ("demo", json!({"replaceAfter": "soon"}), "at least 10s"),
        ("demo", json!({"zones": {"topologyKey": "zone", "weights": {"a": 0}}}), "from 1 to 100"),
        ("demo", json!({"storage": {"size": "ten"}}), "a size above zero"),
        ("demo", json!({"storage": {"size": "0"}}), "a size above zero"),
        (&long, json!({}), "choose a shorter name"),
        ("0demo", json!({}), "begin with a letter"),
        ("de.mo", json!({}), "begin with a letter"),
    ];
    for (name, spec, expected) in cases {
        let refused = refused(name, spec.clone());
        assert!(refused.contains(expected), "{name} {spec}: {refused:?}");
    }
}

#[test]
fn what_may_not_change_is_kept() {
    let cases = [
        (json!({}), json!({"partitions": 512}), "spec.partitions may only be raised"),
        (json!({"storage": {"size": "10Gi"}}), json!({"storage": {"size": "9Gi"}}), "may not shrink"),
        (json!({"storage": {"size": "1Ti"}}), json!({"storage": {"size": "1000Gi"}}), "may not shrink"),
        (
            json!({"storage": {"storageClassName": "a"}}),
            json!({"storage": {"storageClassName": "b"}}),
            "keep their class",
        ),
        (json!({}), json!({"storage": {"storageClassName": "b"}}), "keep their class"),
        (json!({"storage": {"storageClassName": "a"}}), json!({}), "keep their class"),
    ];
    for (before, after, expected) in cases {
        let refused = refused_change(before.clone(), after.clone());
        assert!(refused.contains(expected), "{before} → {after}: {refused:?}");
    }
}

#[test]
fn what_may_change_is_let_in() {
    let cases = [
        (json!({}), json!({"replicas": 5})),
        (json!({}), json!({"replicas": 5, "replicationFactor": 5})),
        (json!({"storage": {"size": "1Gi"}}), json!({"storage": {"size": "1024Mi"}})),
        (json!({"storage": {"size": "1Gi"}}), json!({"storage": {"size": "2Gi"}})),
    ];
    for (before, after) in cases {
        assert_eq!(refused_change(before.clone(), after.clone()), "", "{before} → {after}");
    }
}

#[test]
fn zeros_are_out_of_range() {
    let schema = definition();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    for field in ["replicas", "replicationFactor", "consistency/properties/read", "consistency/properties/write"] {
        let minimum = schema.pointer(&format!("{spec}/{field}/minimum")).and_then(Value::as_f64);
        assert_eq!(minimum, Some(1.0), "{field}");
    }
}

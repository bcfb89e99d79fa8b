//! Manifests that cannot work are refused by `kubectl apply`, with a message that says what to do.

use crate::harness::{fresh_namespace, manifest};
use annulus_tests::kvc::{kubectl, kubectl_ok};
use anyhow::ensure;

/// Spec, and what the refusal must say.
const REFUSED: &[(&str, &str)] = &[
    ("replicas: 2\nreplicationFactor: 3", "replicas"),
    ("replicas: 3\nreplicationFactor: 0", "replicationFactor"),
    ("replicas: 3\nconsistency: {read: 4, write: 2}", "read"),
    ("replicas: 3\nconsistency: {read: 2, write: 4}", "write"),
    ("replicas: 3\nconsistency: {read: 0, write: 2}", "read"),
    ("replicas: 3\npartitions: 1000", "power of two"),
    ("replicas: 3\npartitions: 8", "partitions"),
    ("replicas: 3\npartitions: 32768", "partitions"),
    ("replicas: 3\nstorage: {size: lots}", "size"),
    ("replicas: 3\nstorage: {size: 1Gi, onScaleIn: Burn}", "onScaleIn"),
    ("replicas: three", "replicas"),
];

/// Spec before, spec after, and what the refusal of the change must say.
const CHANGES_REFUSED: &[(&str, &str, &str)] = &[
    ("replicas: 3\nstorage: {size: 2Gi}", "replicas: 3\nstorage: {size: 1Gi}", "shr"),
    ("replicas: 3\npartitions: 64", "replicas: 3\npartitions: 32", "partitions"),
    (
        "replicas: 3\nstorage: {size: 1Gi, storageClassName: standard}",
        "replicas: 3\nstorage: {size: 1Gi, storageClassName: other}",
        "storageClassName",
    ),
];

async fn refused(namespace: &str, spec: &str, says: &str) -> anyhow::Result<()> {
    let output = kubectl(&["-n", namespace, "apply", "-f", "-"], &manifest("bad", spec)).await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "this was taken:\n{spec}");
    println!("{}\n  refused: {}", spec.replace('\n', "; "), said.trim());
    ensure!(said.contains(says), "the refusal of\n{spec}\nsays nothing of {says:?}:\n{said}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a Kubernetes: make e2e"]
async fn what_cannot_work_is_refused_with_advice() -> anyhow::Result<()> {
    let namespace = "admission";
    fresh_namespace(namespace).await?;
    for (spec, says) in REFUSED {
        refused(namespace, spec, says).await?;
    }
    for (before, after, says) in CHANGES_REFUSED {
        let paused = format!("{before}\npaused: true");
        kubectl_ok(&["-n", namespace, "apply", "-f", "-"], &manifest("bad", &paused)).await?;
        refused(namespace, after, says).await?;
        kubectl_ok(&["-n", namespace, "delete", "kvc", "bad", "--wait=true", "--timeout=60s"], "").await?;
    }
    kubectl_ok(&["delete", "namespace", namespace, "--wait=true", "--timeout=120s"], "").await?;
    Ok(())
}

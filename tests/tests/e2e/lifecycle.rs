//! The end of a cluster: volumes stay or go as the manifest says.

use crate::harness::{LIMIT, clean_up, cluster};
use annulus_tests::kvc::{Kvc, kubectl_ok};
use annulus_tests::workload;
use anyhow::ensure;
use redis::AsyncCommands;
use std::time::Duration;

async fn volumes_after_delete(kvc: &Kvc, expected: usize) -> anyhow::Result<()> {
    kubectl_ok(&["-n", &kvc.namespace, "delete", "kvc", &kvc.name, "--wait=true", "--timeout=120s"], "").await?;
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        let pods = kubectl_ok(&["-n", &kvc.namespace, "get", "pods", "-o", "name"], "").await?;
        let volumes = kubectl_ok(&["-n", &kvc.namespace, "get", "pvc", "-o", "name"], "").await?;
        if pods.is_empty() && volumes.lines().count() == expected {
            return Ok(());
        }
        ensure!(
            std::time::Instant::now() < deadline,
            "{expected} volumes and no pods were expected, there are:\n{volumes}{pods}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
#[ignore = "needs a Kubernetes: make e2e"]
async fn deleted_with_delete_takes_the_volumes_along() -> anyhow::Result<()> {
    let kvc = cluster("delete-delete", 3, "").await?;
    let patch = r#"{"spec":{"storage":{"onDelete":"Delete"}}}"#;
    kubectl_ok(&["-n", &kvc.namespace, "patch", "kvc", "kv", "--type=merge", "-p", patch], "").await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    volumes_after_delete(&kvc, 0).await?;
    clean_up(&kvc).await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: make e2e"]
async fn deleted_with_retain_leaves_the_volumes() -> anyhow::Result<()> {
    let kvc = cluster("delete-retain", 3, "").await?;
    let mut connection = workload::connect(&kvc.address().await?).await?;
    let () = connection.set("kept", "value").await?;
    volumes_after_delete(&kvc, 3).await?;
    clean_up(&kvc).await
}

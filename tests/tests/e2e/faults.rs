//! Things taken away by force, under load.

use crate::harness::{Failures, LIMIT, clean_up, cluster, load, node_process, verify};
use annulus_tests::kvc::kubectl_ok;
use anyhow::{Context, ensure};
use std::time::Duration;

#[tokio::test]
#[ignore = "needs a Kubernetes: make e2e"]
async fn a_pod_and_a_process_are_killed() -> anyhow::Result<()> {
    let kvc = cluster("kill", 3, "").await?;
    let (addresses, workload) = load(&kvc).await?;
    kubectl_ok(&["-n", &kvc.namespace, "delete", "pod", "kv-1", "--grace-period=0", "--force"], "").await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    kvc.settled(3, LIMIT).await?;
    let before = restarts(&kvc, "kv-2").await?;
    let pid = node_process(&kvc, "kv-2").await?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    let deadline = std::time::Instant::now() + LIMIT;
    while restarts(&kvc, "kv-2").await? == before {
        ensure!(std::time::Instant::now() < deadline, "the killed process was not started again");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    kvc.settled(3, LIMIT).await?;
    verify(&addresses, workload, Failures::Some).await?;
    clean_up(&kvc).await
}

async fn restarts(kvc: &annulus_tests::kvc::Kvc, pod: &str) -> anyhow::Result<i32> {
    let pods = kvc.pods().await?;
    let pod = pods.into_iter().find(|found| found.metadata.name.as_deref() == Some(pod)).context("no such pod")?;
    let statuses = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
    Ok(statuses.iter().map(|status| status.restart_count).sum())
}

#[tokio::test]
#[ignore = "needs a Kubernetes: make e2e"]
async fn the_operator_is_killed_while_data_moves() -> anyhow::Result<()> {
    let kvc = cluster("operator-kill", 3, "rebalance: {parallelMoves: 24}").await?;
    let (addresses, workload) = load(&kvc).await?;
    kvc.scale(5).await?;
    kvc.until("moving", LIMIT, |cluster| {
        let rebalance = cluster.status.as_ref().and_then(|status| status.rebalance.as_ref());
        rebalance.is_some_and(|rebalance| rebalance.to == 5 && rebalance.partitions_left < 250)
    })
    .await?;
    let selector = "app.kubernetes.io/name=annulus-operator";
    kubectl_ok(&["-n", "annulus-system", "delete", "pod", "-l", selector, "--grace-period=0", "--force"], "")
        .await?;
    kvc.settled(5, LIMIT).await?;
    verify(&addresses, workload, Failures::None).await?;
    clean_up(&kvc).await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: make e2e"]
async fn a_deleted_ring_comes_back_from_the_nodes() -> anyhow::Result<()> {
    let kvc = cluster("ring-deleted", 3, "").await?;
    let (addresses, workload) = load(&kvc).await?;
    let read = ["-n", &kvc.namespace, "get", "configmap", "kv-ring", "-o", r"jsonpath={.data.ring\.json}"];
    let before = kubectl_ok(&read, "").await?;
    ensure!(!before.is_empty(), "there is no ring document");
    kubectl_ok(&["-n", &kvc.namespace, "delete", "configmap", "kv-ring"], "").await?;
    let deadline = std::time::Instant::now() + LIMIT;
    let after = loop {
        if let Ok(after) = kubectl_ok(&read, "").await
            && !after.is_empty()
        {
            break after;
        }
        ensure!(std::time::Instant::now() < deadline, "the ring document did not come back");
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    ensure!(before == after, "another ring than before:\n{before}\n{after}");
    verify(&addresses, workload, Failures::None).await?;
    clean_up(&kvc).await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: make e2e"]
async fn a_statefulset_scaled_by_hand_is_put_back() -> anyhow::Result<()> {
    let kvc = cluster("by-hand", 4, "").await?;
    let (addresses, workload) = load(&kvc).await?;
    kubectl_ok(&["-n", &kvc.namespace, "scale", "statefulset/kv", "--replicas=3"], "").await?;
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        let events = ["-n", &kvc.namespace, "get", "events", "-o", "jsonpath={.items[*].message}"];
        let replicas = ["-n", &kvc.namespace, "get", "statefulset/kv", "-o", "jsonpath={.spec.replicas}"];
        if kubectl_ok(&replicas, "").await? == "4"
            && kubectl_ok(&events, "").await?.contains("kubectl scale kvc/kv")
        {
            break;
        }
        ensure!(std::time::Instant::now() < deadline, "it was not put back with an Event that says what to scale");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    kvc.settled(4, LIMIT).await?;
    verify(&addresses, workload, Failures::Some).await?;
    clean_up(&kvc).await
}

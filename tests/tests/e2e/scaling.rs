//! Scaling out and in, and changes of mind, under load.

use crate::harness::{Failures, LIMIT, clean_up, cluster, load, verify};
use annulus_tests::kvc::kubectl_ok;
use anyhow::{Context, ensure};
use std::collections::BTreeSet;

#[tokio::test]
#[ignore = "needs a Kubernetes: make e2e"]
async fn three_to_five_to_three_loses_nothing_and_moves_the_minimum() -> anyhow::Result<()> {
    let kvc = cluster("scale-out-in", 3, "").await?;
    let (addresses, workload) = load(&kvc).await?;
    let mut incarnations = BTreeSet::new();
    // At last on a volume that was kept when its node had left.
    for to in [5, 3, 4] {
        kvc.scale(to).await?;
        let settled = kvc.settled(to, LIMIT).await?;
        let last = settled.status.and_then(|status| status.last_rebalance).context("no rebalance reported")?;
        println!("to {to}: {} bytes moved, at least {}", last.bytes_moved, last.bytes_minimum);
        ensure!(last.to == to && last.bytes_minimum > 0, "{last:?}");
        ensure!(last.bytes_moved as f64 <= 1.1 * last.bytes_minimum as f64, "{last:?}");
        if to > 3 {
            let ring = kvc.ring().await?;
            let fourth = ring.members.iter().find(|member| member.name == "kv-3").context("kv-3 is no member")?;
            ensure!(incarnations.insert(fourth.incarnation), "kv-3 is who it was before it had left");
        }
    }
    verify(&addresses, workload, Failures::None).await?;
    let volumes = kubectl_ok(&["-n", &kvc.namespace, "get", "pvc", "-o", "name"], "").await?;
    ensure!(volumes.lines().count() == 5, "onScaleIn is Retain unless told otherwise, yet there are:\n{volumes}");
    clean_up(&kvc).await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: make e2e"]
async fn three_to_four_and_a_volume_deleted_on_scale_in() -> anyhow::Result<()> {
    let kvc = cluster("scale-by-one", 3, "").await?;
    kubectl_ok(
        &[
            "-n",
            &kvc.namespace,
            "patch",
            "kvc",
            "kv",
            "--type=merge",
            "-p",
            r#"{"spec":{"storage":{"onScaleIn":"Delete"}}}"#,
        ],
        "",
    )
    .await?;
    let (addresses, workload) = load(&kvc).await?;
    kvc.scale(4).await?;
    kvc.settled(4, LIMIT).await?;
    kvc.scale(3).await?;
    kvc.settled(3, LIMIT).await?;
    verify(&addresses, workload, Failures::None).await?;
    let volumes = kubectl_ok(&["-n", &kvc.namespace, "get", "pvc", "-o", "name"], "").await?;
    ensure!(volumes.lines().count() == 3, "onScaleIn is Delete, yet there are:\n{volumes}");
    clean_up(&kvc).await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: make e2e"]
async fn a_scale_out_is_reversed_while_it_fills() -> anyhow::Result<()> {
    let kvc = cluster("reverse", 3, "rebalance: {parallelMoves: 8}").await?;
    let (addresses, workload) = load(&kvc).await?;
    kvc.scale(5).await?;
    kvc.until("moving", LIMIT, |cluster| {
        let rebalance = cluster.status.as_ref().and_then(|status| status.rebalance.as_ref());
        rebalance.is_some_and(|rebalance| rebalance.to == 5 && rebalance.partitions_left < 250)
    })
    .await?;
    kvc.scale(3).await?;
    kvc.settled(3, LIMIT).await?;
    verify(&addresses, workload, Failures::None).await?;
    clean_up(&kvc).await
}

//! A host that is gone for good, with the volume that was on it. Needs hosts that can be taken away: those of the local
//! cluster.

use crate::harness::{Failures, LIMIT, clean_up, cluster, load, ring, verify};
use annulus_tests::kvc::{Kvc, kubectl_ok};
use anyhow::{Context, ensure};
use std::time::{Duration, Instant};
use tokio::process::Command;

/// The host to lose. The operator may be on it as well, and has to come back elsewhere first.
const HOST: &str = "node-3";

#[tokio::test]
#[ignore = "needs a Kubernetes: make e2e"]
async fn a_node_whose_host_is_gone_is_made_anew_from_the_others() -> anyhow::Result<()> {
    if std::env::var("ANNULUS_TARGET").as_deref() != Ok("local") {
        println!("passed over: only hosts of the local cluster can be taken away");
        return Ok(());
    }
    let kvc = cluster("replacement", 4, "replaceAfter: 10s").await?;
    let lost = pods_on(&kvc, HOST).await?;
    ensure!(!lost.is_empty(), "no node runs on {HOST}; pods are spread over hosts, and there are enough of them");
    let before = ring(&kvc).await?;
    let (addresses, workload) = load(&kvc).await?;
    let begun = Instant::now();
    host("crash").await?;
    kubectl_ok(&["delete", "node", HOST, "--wait=true", "--timeout=60s"], "").await?;
    let replaced = until_replaced(&kvc, &lost, &before).await;
    let settled = match replaced {
        Ok(()) => kvc.settled(4, LIMIT).await.map(drop),
        Err(error) => Err(error),
    };
    println!("{lost:?} of {HOST} made anew after {:.1} s", begun.elapsed().as_secs_f64());
    host("start").await?;
    settled?;
    verify(&addresses, workload, Failures::Some).await?;
    clean_up(&kvc).await
}

/// Waits until every pod of the lost host is in the ring by another incarnation.
async fn until_replaced(kvc: &Kvc, lost: &[String], before: &dynamo::ring::Ring) -> anyhow::Result<()> {
    let incarnation = |ring: &dynamo::ring::Ring, pod: &str| {
        ring.members.iter().find(|member| member.name == pod).map(|member| member.incarnation)
    };
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Ok(now) = ring(kvc).await {
            let anew =
                |pod: &String| incarnation(&now, pod).is_some_and(|is| Some(is) != incarnation(before, pod));
            if lost.iter().all(anew) {
                return Ok(());
            }
        }
        ensure!(
            Instant::now() < deadline,
            "{lost:?} were not made anew; waiting: {:?}",
            kvc.get().await?.status.map(|status| status.waiting)
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn pods_on(kvc: &Kvc, host: &str) -> anyhow::Result<Vec<String>> {
    let pods = kvc.pods().await?;
    let on_host =
        pods.into_iter().filter(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(host));
    Ok(on_host.filter_map(|pod| pod.metadata.name).collect())
}

/// Has the local cluster lose the host, or get it back. The script works from outside the cluster's network, where this
/// test is not.
async fn host(what: &str) -> anyhow::Result<()> {
    let script = std::path::absolute("cluster/node.sh")?;
    let outside = std::env::var("ANNULUS_OUTSIDE_PID").context("not run by in-cluster.sh")?;
    let mut command = Command::new("nsenter");
    command.args([format!("--net=/proc/{outside}/ns/net"), format!("--mount=/proc/{outside}/ns/mnt")]);
    command.arg("--").arg(script).args([what, HOST]);
    let status = command.status().await.context("starting nsenter")?;
    ensure!(status.success(), "node.sh {what} {HOST} failed");
    Ok(())
}

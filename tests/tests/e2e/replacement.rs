//! A host that is gone for good, with the volume that was on it. Needs hosts that can be taken away: those of the local
//! cluster.

use crate::harness::{Failures, LIMIT, clean_up, cluster, load, verify};
use annulus_tests::kvc::{Kvc, kubectl_ok};
use anyhow::{Context, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::process::Command;

#[tokio::test]
#[ignore = "needs a Kubernetes: make e2e"]
async fn a_node_whose_host_is_gone_is_made_anew_from_the_others() -> anyhow::Result<()> {
    if std::env::var("ANNULUS_TARGET").as_deref() != Ok("local") {
        println!("passed over: only hosts of the local cluster can be taken away");
        return Ok(());
    }
    let kvc = cluster("replacement", 4, "replaceAfter: 10s").await?;
    // Four nodes on three hosts: with one of them go two nodes, and of some items two of the three replicas. The
    // operator may be on it as well, and has to come back elsewhere first.
    let (host_name, lost) = most_crowded_host(&kvc).await?;
    ensure!(lost.len() == 2, "{host_name} has {lost:?}; pods are to be spread over hosts");
    let before = kvc.ring().await?;
    let (addresses, workload) = load(&kvc).await?;
    let begun = Instant::now();
    host("crash", &host_name).await?;
    kubectl_ok(&["delete", "node", &host_name, "--wait=true", "--timeout=60s"], "").await?;
    let replaced = until_replaced(&kvc, &lost, &before).await;
    let settled = match replaced {
        Ok(()) => kvc.settled(4, LIMIT).await.map(drop),
        Err(error) => Err(error),
    };
    println!("{lost:?} of {host_name} made anew after {:.1} s", begun.elapsed().as_secs_f64());
    host("start", &host_name).await?;
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
        if let Ok(now) = kvc.ring().await {
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

/// The host with most pods, and their names.
async fn most_crowded_host(kvc: &Kvc) -> anyhow::Result<(String, Vec<String>)> {
    let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in kvc.pods().await? {
        let host = pod.spec.and_then(|spec| spec.node_name).context("a pod without a host")?;
        hosts.entry(host).or_default().extend(pod.metadata.name);
    }
    hosts.into_iter().max_by_key(|(_, pods)| pods.len()).context("no pods")
}

/// Has the local cluster lose the host, or get it back. The script works from outside the cluster's network, where this
/// test is not.
async fn host(what: &str, name: &str) -> anyhow::Result<()> {
    let script = std::path::absolute("cluster/node.sh")?;
    let outside = std::env::var("ANNULUS_OUTSIDE_PID").context("not run by in-cluster.sh")?;
    let mut command = Command::new("nsenter");
    command.args([format!("--net=/proc/{outside}/ns/net"), format!("--mount=/proc/{outside}/ns/mnt")]);
    command.arg("--").arg(script).args([what, name]);
    let status = command.status().await.context("starting nsenter")?;
    ensure!(status.success(), "node.sh {what} {name} failed");
    Ok(())
}

//! Hosts that are taken away for good, with the volumes that are on them. Only those of the local cluster can be.

use crate::harness::LIMIT;
use annulus_tests::kvc::{Kvc, kubectl_ok};
use anyhow::{Context, ensure};
use dynamo::ring::Ring;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// Whether this cluster has hosts that can be taken away.
pub fn can_be_lost() -> bool {
    let can = std::env::var("ANNULUS_TARGET").as_deref() == Ok("local");
    if !can {
        println!("passed over: only hosts of the local cluster can be taken away");
    }
    can
}

/// Ends everything on the host at once, and says that it will not come back.
pub async fn lose(name: &str) -> anyhow::Result<()> {
    script("crash", name).await?;
    kubectl_ok(&["delete", "node", name, "--wait=true", "--timeout=60s"], "").await.map(drop)
}

/// The host comes back after all.
pub async fn start(name: &str) -> anyhow::Result<()> {
    script("start", name).await
}

/// Waits until every pod of the lost host is in the ring by another incarnation.
pub async fn until_replaced(kvc: &Kvc, lost: &[String], before: &Ring) -> anyhow::Result<()> {
    let incarnation = |ring: &Ring, pod: &str| {
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
pub async fn most_crowded(kvc: &Kvc) -> anyhow::Result<(String, Vec<String>)> {
    let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in kvc.pods().await? {
        let host = pod.spec.and_then(|spec| spec.node_name).context("a pod without a host")?;
        hosts.entry(host).or_default().extend(pod.metadata.name);
    }
    hosts.into_iter().max_by_key(|(_, pods)| pods.len()).context("no pods")
}

/// Runs the local cluster's own script. It works from outside the cluster's network, where this test is not.
async fn script(what: &str, name: &str) -> anyhow::Result<()> {
    let script = std::path::absolute("cluster/node.sh")?;
    let outside = std::env::var("ANNULUS_OUTSIDE_PID").context("not run by in-cluster.sh")?;
    let mut command = Command::new("nsenter");
    command.args([format!("--net=/proc/{outside}/ns/net"), format!("--mount=/proc/{outside}/ns/mnt")]);
    command.arg("--").arg(script).args([what, name]);
    let status = command.status().await.context("starting nsenter")?;
    ensure!(status.success(), "node.sh {what} {name} failed");
    Ok(())
}

//! A cluster in a namespace of its own, filled and under load.

use annulus_tests::kvc::{Kvc, kubectl, kubectl_ok};
use annulus_tests::ledger::Ledger;
use annulus_tests::workload::{self, Counters, Shape, Workload};
use anyhow::{Context, ensure};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest time for anything that a cluster does.
pub const LIMIT: Duration = Duration::from_secs(300);

/// Fewer requests than this show nothing.
const REQUESTS_MIN: u64 = 1_000;

pub const SHAPE: Shape = Shape { writers: 8, keys: 2_000, value_bytes: 1_000 };

/// A manifest with these lines in its spec.
pub fn manifest(name: &str, spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {}\n", line.trim_end())).collect();
    format!("apiVersion: annulus.dev/v1alpha1\nkind: KeyValueCluster\nmetadata: {{name: {name}}}\nspec:\n{spec}")
}

/// A cluster of `replicas` nodes, ready, in a fresh namespace named after the test.
pub async fn cluster(test: &str, replicas: i32, more: &str) -> anyhow::Result<Kvc> {
    fresh_namespace(test).await?;
    let kvc = Kvc::new(kube::Client::try_default().await?, test, "kv");
    let spec = format!("replicas: {replicas}\npartitions: 256\nstorage: {{size: 1Gi}}\n{more}");
    kvc.apply(&manifest("kv", &spec)).await?;
    kvc.settled(replicas, LIMIT).await?;
    Ok(kvc)
}

/// An empty namespace: one left by an earlier run goes first.
pub async fn fresh_namespace(name: &str) -> anyhow::Result<()> {
    kubectl_ok(&["delete", "namespace", name, "--ignore-not-found", "--wait=true", "--timeout=120s"], "").await?;
    kubectl_ok(&["create", "namespace", name], "").await?;
    Ok(())
}

/// Removes the cluster and its namespace, so that the next test has the machine to itself.
pub async fn clean_up(kvc: &Kvc) -> anyhow::Result<()> {
    kubectl(&["-n", &kvc.namespace, "delete", "kvc", &kvc.name, "--wait=true", "--timeout=120s"], "").await?;
    kubectl_ok(&["delete", "namespace", &kvc.namespace, "--wait=true", "--timeout=180s"], "").await?;
    Ok(())
}

/// Fills the cluster and starts reads and writes.
pub async fn load(kvc: &Kvc) -> anyhow::Result<(Vec<String>, Workload)> {
    load_of(kvc, SHAPE).await
}

/// The same with more or less in it.
pub async fn load_of(kvc: &Kvc, shape: Shape) -> anyhow::Result<(Vec<String>, Workload)> {
    let addresses = vec![kvc.address().await?];
    let counters = Arc::new(Counters::default());
    let ledgers = workload::load(&addresses, shape, &counters).await?;
    ensure!(counters.failed.load(Ordering::Relaxed) == 0, "writes failed while nothing was wrong");
    let workload = Workload::start(&addresses, shape, ledgers, Duration::from_millis(5)).await?;
    Ok((addresses, workload))
}

/// Whether requests may fail in what a test does.
pub enum Failures {
    /// Not one, after a stock client's own tries.
    None,
    /// Some, while a node is taken away by force.
    Some,
}

/// Ends the load and reads everything back: nothing lost, nothing wrong.
pub async fn verify(addresses: &[String], workload: Workload, failures: Failures) -> anyhow::Result<()> {
    let counters = workload.counters.clone();
    // What was tested may have taken but a moment; what it has done to requests shows in some more of them.
    let deadline = std::time::Instant::now() + LIMIT;
    while counters.requests.load(Ordering::Relaxed) < REQUESTS_MIN && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ledger: Ledger = workload.stop().await?;
    let tally = workload::verify(addresses, &ledger).await?;
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let last = counters.last_error.lock().ok().and_then(|last| last.clone());
    println!(
        "{tally:?}, requests {}, retries {}, failed {}, bad reads {}, last error {last:?}",
        read(&counters.requests),
        read(&counters.retries),
        read(&counters.failed),
        read(&counters.bad_reads)
    );
    ensure!(tally.acknowledged as usize >= SHAPE.keys, "only {} keys were acknowledged", tally.acknowledged);
    ensure!(tally.lost == 0 && tally.wrong == 0, "{tally:?}");
    ensure!(read(&counters.bad_reads) == 0, "{} reads were stale or wrong", read(&counters.bad_reads));
    ensure!(read(&counters.requests) >= REQUESTS_MIN, "the workload hardly ran");
    if matches!(failures, Failures::None) {
        ensure!(read(&counters.failed) == 0, "{} requests failed: {last:?}", read(&counters.failed));
    }
    Ok(())
}

/// Process id, on this machine, of the node in a pod. Works where the kubelet runs on this machine.
pub async fn node_process(kvc: &Kvc, pod: &str) -> anyhow::Result<i32> {
    let uid = kvc.get().await?.metadata.uid.context("the cluster has no UID")?;
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(command) = std::fs::read(path.join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let of_pod =
            command.contains(&format!("--name {pod} ")) || environment.contains(&format!("POD_NAME={pod}\0"));
        if command.contains("annulus-node") && command.contains(&uid) && of_pod {
            return Ok(pid);
        }
    }
    anyhow::bail!("no process of {pod} runs on this machine")
}

//! Everything that an operator does to a cluster, one thing after the other under one load: what it costs those who use
//! the cluster meanwhile.

use crate::harness::{Failures, LIMIT, clean_up, cluster, load, ring, verify};
use annulus_tests::kvc::{Kvc, kubectl_ok};
use annulus_tests::workload::{Counters, Latencies};
use anyhow::ensure;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long the cluster is watched while nothing is done to it.
const REST: Duration = Duration::from_secs(8);
const ZONES: &str = "zones: {topologyKey: topology.kubernetes.io/zone}";

/// One operation, as it was seen from outside.
struct Row {
    what: &'static str,
    seconds: f64,
    before: Latencies,
    during: Latencies,
    retries: u64,
    failed: u64,
    moved: String,
}

#[tokio::test]
#[ignore = "needs a Kubernetes: make e2e"]
async fn every_operation_goes_on_under_load_without_a_failed_request() -> anyhow::Result<()> {
    let kvc = cluster("operations", 3, ZONES).await?;
    zones_are_kept_apart(&kvc).await?;
    let (addresses, workload) = load(&kvc).await?;
    let counters = workload.counters.clone();
    let operations: [(&'static str, &str, i32); 7] = [
        ("scale out 3 -> 5", r#"{"spec":{"replicas":5}}"#, 5),
        ("n 3 -> 5", r#"{"spec":{"replicationFactor":5}}"#, 5),
        ("n 5 -> 3", r#"{"spec":{"replicationFactor":3}}"#, 5),
        ("rolling restart", r#"{"spec":{"podTemplate":{"annotations":{"restarted":"once"}}}}"#, 5),
        ("scale in 5 -> 4", r#"{"spec":{"replicas":4}}"#, 4),
        ("256 -> 512 partitions", r#"{"spec":{"partitions":512}}"#, 4),
        ("scale in 4 -> 3", r#"{"spec":{"replicas":3}}"#, 3),
    ];
    let mut rows = Vec::new();
    for (what, patch, replicas) in operations {
        rows.push(operate(&kvc, &counters, what, patch, replicas).await?);
    }
    zones_are_kept_apart(&kvc).await?;
    ensure!(ring(&kvc).await?.partitions.len() == 512, "the partitions were not split");
    print(&rows);
    verify(&addresses, workload, Failures::None).await?;
    clean_up(&kvc).await
}

async fn operate(
    kvc: &Kvc,
    counters: &Counters,
    what: &'static str,
    patch: &str,
    replicas: i32,
) -> anyhow::Result<Row> {
    drop(counters.take_latencies());
    tokio::time::sleep(REST).await;
    let before = counters.take_latencies();
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (retries, failed) = (read(&counters.retries), read(&counters.failed));
    let last = |cluster: annulus_operator::crd::KeyValueCluster| cluster.status?.last_rebalance;
    let earlier = last(kvc.get().await?).map(|last| last.since);
    let begun = Instant::now();
    kubectl_ok(&["-n", &kvc.namespace, "patch", "kvc", &kvc.name, "--type=merge", "-p", patch], "").await?;
    let settled = kvc.settled(replicas, LIMIT).await?;
    let moved = last(settled).filter(|last| Some(last.since) != earlier && last.bytes_minimum > 0);
    Ok(Row {
        what,
        seconds: begun.elapsed().as_secs_f64(),
        before,
        during: counters.take_latencies(),
        retries: read(&counters.retries) - retries,
        failed: read(&counters.failed) - failed,
        moved: moved
            .map(|last| format!("{:.3}", last.bytes_moved as f64 / last.bytes_minimum as f64))
            .unwrap_or_else(|| "-".to_owned()),
    })
}

/// With as many zones as replicas, no two replicas of an item share a zone; with fewer, every zone has one.
async fn zones_are_kept_apart(kvc: &Kvc) -> anyhow::Result<()> {
    let ring = ring(kvc).await?;
    let zone = |index| ring.member(index).and_then(|member| member.zone.clone());
    let zones: BTreeSet<_> = ring.members.iter().map(|member| member.zone.clone()).collect();
    ensure!(!zones.contains(&None), "a member has no zone: {:?}", ring.members);
    let expected = zones.len().min(usize::from(ring.quorums.n));
    for (partition, placement) in ring.partitions.iter().enumerate() {
        let of_list: BTreeSet<_> = placement.preference.iter().map(|&index| zone(index)).collect();
        ensure!(of_list.len() == expected, "partition {partition} is in the zones {of_list:?} of {zones:?}");
    }
    println!("replicas of each item are in {expected} zones");
    Ok(())
}

fn print(rows: &[Row]) {
    println!(
        "| operation | seconds | requests | tried again | failed | p50 ms | p99 ms | p99 before | moved / min |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for row in rows {
        println!(
            "| {} | {:.1} | {} | {} | {} | {:.1} | {:.1} | {:.1} | {} |",
            row.what,
            row.seconds,
            row.during.count(),
            row.retries,
            row.failed,
            row.during.quantile_ms(0.5),
            row.during.quantile_ms(0.99),
            row.before.quantile_ms(0.99),
            row.moved
        );
    }
}

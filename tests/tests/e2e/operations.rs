//! Everything that an operator does to a cluster, one thing after the other under one load: what it costs those who use
//! the cluster meanwhile, while partitions move and while pods start and end. What only the latter costs on this machine is
//! seen from another cluster that comes and goes beside it.

use crate::harness::{Failures, LIMIT, clean_up, cluster, load, verify};
use annulus_tests::kvc::Kvc;
use annulus_tests::workload::{Counters, Latencies};
use anyhow::{Context, ensure};
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long the cluster is watched while nothing is done to it.
const REST: Duration = Duration::from_secs(8);
const ZONES: &str = "zones: {topologyKey: topology.kubernetes.io/zone}";

/// How often it is looked whether partitions move.
const LOOK: Duration = Duration::from_millis(200);

/// One operation, as it was seen from outside.
struct Row {
    what: &'static str,
    seconds: f64,
    before: Latencies,
    during: During,
    retries: u64,
    failed: u64,
    moved: String,
}

/// What requests took meanwhile.
#[derive(Default)]
struct During {
    all: Latencies,
    /// While some partition had two lists.
    moving: Latencies,
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
        let patched = async {
            kvc.patch(patch).await?;
            kvc.settled(replicas, LIMIT).await.map(drop)
        };
        rows.push(watched(&kvc, &counters, what, patched).await?);
    }
    let mut beside = None;
    let comes = async {
        beside = Some(cluster("beside", 3, ZONES).await?);
        Ok(())
    };
    rows.push(watched(&kvc, &counters, "another cluster starts", comes).await?);
    let beside = beside.context("it did not start")?;
    rows.push(watched(&kvc, &counters, "another cluster ends", clean_up(&beside)).await?);
    zones_are_kept_apart(&kvc).await?;
    ensure!(kvc.ring().await?.partitions.len() == 512, "the partitions were not split");
    print(&rows);
    verify(&addresses, workload, Failures::None).await?;
    clean_up(&kvc).await
}

/// Does something to the cluster, or beside it.
async fn watched(
    kvc: &Kvc,
    counters: &Counters,
    what: &'static str,
    operation: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Row> {
    // Looking on takes something of the machine, too: before it is looked as often as it is later.
    drop(counters.take_latencies());
    let before = During::of(kvc, counters, rest(kvc)).await?.all;
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (retries, failed) = (read(&counters.retries), read(&counters.failed));
    let last = async || anyhow::Ok(kvc.get().await?.status.and_then(|status| status.last_rebalance));
    let earlier = last().await?.map(|last| last.since);
    let begun = Instant::now();
    let during = During::of(kvc, counters, operation).await?;
    let moved = last().await?.filter(|last| Some(last.since) != earlier && last.bytes_minimum > 0);
    Ok(Row {
        what,
        seconds: begun.elapsed().as_secs_f64(),
        before,
        during,
        retries: read(&counters.retries) - retries,
        failed: read(&counters.failed) - failed,
        moved: moved
            .map(|last| format!("{:.3}", last.bytes_moved as f64 / last.bytes_minimum as f64))
            .unwrap_or_else(|| "-".to_owned()),
    })
}

/// A time in which nothing is done to the cluster, and it is asked how it is as often as if something were.
async fn rest(kvc: &Kvc) -> anyhow::Result<()> {
    let ends = Instant::now() + REST;
    kvc.until("at rest for a while", LIMIT, |_| Instant::now() >= ends).await.map(drop)
}

impl During {
    /// Carries something out, and looks what requests take meanwhile.
    async fn of(
        kvc: &Kvc,
        counters: &Counters,
        operation: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Self> {
        let (mut during, mut operation) = (Self::default(), pin!(operation));
        loop {
            let ended = tokio::time::timeout(LOOK, &mut operation).await;
            during.take(counters, moves(kvc).await?);
            if let Ok(ended) = ended {
                return ended.map(|()| during);
            }
        }
    }

    /// Takes what was measured since the last time.
    fn take(&mut self, counters: &Counters, moves: bool) {
        let lately = counters.take_latencies();
        self.all.add(&lately);
        if moves {
            self.moving.add(&lately);
        }
    }
}

/// Whether any partition has two lists now.
async fn moves(kvc: &Kvc) -> anyhow::Result<bool> {
    Ok(kvc.ring().await?.partitions.iter().any(|placement| placement.also.is_some()))
}

/// With as many zones as replicas, no two replicas of an item share a zone; with fewer, every zone has one.
async fn zones_are_kept_apart(kvc: &Kvc) -> anyhow::Result<()> {
    let ring = kvc.ring().await?;
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
        "| operation | seconds | requests | tried again | failed | p50 ms | p99 before | p99 | p99 moving | moved / min |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for Row { what, seconds, before, during, retries, failed, moved } in rows {
        let moving = match during.moving.count() {
            0 => "-".to_owned(),
            _ => format!("{:.1}", during.moving.quantile_ms(0.99)),
        };
        println!(
            "| {what} | {seconds:.1} | {} | {retries} | {failed} | {:.1} | {:.1} | {:.1} | {moving} | {moved} |",
            during.all.count(),
            during.all.quantile_ms(0.5),
            before.quantile_ms(0.99),
            during.all.quantile_ms(0.99),
        );
    }
}

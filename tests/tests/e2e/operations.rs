//! Everything that an operator does to a cluster, one thing after the other under one load: what it costs those who use
//! the cluster meanwhile, while partitions move and while pods start and end. What only the latter costs on this machine is
//! seen from another cluster that comes and goes beside it, and what the machine itself makes of less than a request from a
//! write and a waking that are tried in the same moments.

use crate::harness::{Failures, LIMIT, clean_up, cluster, load_of, verify};
use crate::hosts;
use annulus_tests::kvc::Kvc;
use annulus_tests::latencies::Latencies;
use annulus_tests::probe::{Measured, Probe};
use annulus_tests::workload::{Counters, Shape};
use anyhow::{Context, ensure};
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long the cluster is watched while nothing is done to it: not much less than the shorter operations take, so that what
/// happens to the machine once in a while happens then as well.
const REST: Duration = Duration::from_secs(20);
/// So much that what moves takes longer than the pods.
const SHAPE: Shape = Shape { writers: 8, keys: 20_000, value_bytes: 1_000 };
const ZONES: &str = "zones: {topologyKey: topology.kubernetes.io/zone}\nreplaceAfter: 10s";

/// How often it is looked whether partitions move.
const LOOK: Duration = Duration::from_millis(200);

/// One operation, as it was seen from outside.
struct Row {
    what: &'static str,
    seconds: f64,
    before: Span,
    during: Span,
    retries: u64,
    failed: u64,
    moved: String,
}

/// What is looked at throughout.
struct Observer {
    counters: Arc<Counters>,
    probe: Probe,
}

/// What requests took in some span of time.
#[derive(Default)]
struct Span {
    all: Latencies,
    /// While some partition had two lists.
    moving: Latencies,
    /// While none had.
    still: Latencies,
    /// What the machine made of the simplest things.
    machine: Measured,
}

#[tokio::test]
#[ignore = "needs a Kubernetes: make e2e"]
async fn every_operation_goes_on_under_load_without_a_failed_request() -> anyhow::Result<()> {
    let kvc = cluster("operations", 3, ZONES).await?;
    zones_are_kept_apart(&kvc).await?;
    let (addresses, workload) = load_of(&kvc, SHAPE).await?;
    let observer = Observer {
        counters: workload.counters.clone(),
        probe: Probe::start(env!("CARGO_TARGET_TMPDIR").as_ref())?,
    };
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
        rows.push(watched(&kvc, &observer, what, patched).await?);
    }
    let mut beside = None;
    let comes = async {
        beside = Some(cluster("beside", 3, ZONES).await?);
        Ok(())
    };
    rows.push(watched(&kvc, &observer, "another cluster starts", comes).await?);
    let beside = beside.context("it did not start")?;
    rows.push(watched(&kvc, &observer, "another cluster ends", clean_up(&beside)).await?);
    zones_are_kept_apart(&kvc).await?;
    ensure!(kvc.ring().await?.partitions.len() == 512, "the partitions were not split");
    let after = if hosts::can_be_lost() {
        let (row, after) = replaced(&kvc, &observer).await?;
        rows.push(row);
        after
    } else {
        rest(&kvc, &observer).await?
    };
    print(&rows, &after);
    verify(&addresses, workload, Failures::None).await?;
    clean_up(&kvc).await
}

/// A host is lost with all that is on it, and its node made anew on another. It comes back when all is measured.
async fn replaced(kvc: &Kvc, observer: &Observer) -> anyhow::Result<(Row, Span)> {
    let (host, lost) = hosts::most_crowded(kvc).await?;
    let before = kvc.ring().await?;
    let anew = async {
        hosts::lose(&host).await?;
        hosts::until_replaced(kvc, &lost, &before).await?;
        kvc.settled(3, LIMIT).await.map(drop)
    };
    let row = watched(kvc, observer, "a host is lost", anew).await;
    let after = rest(kvc, observer).await;
    hosts::start(&host).await?;
    Ok((row?, after?))
}

/// Does something to the cluster, or beside it.
async fn watched(
    kvc: &Kvc,
    observer: &Observer,
    what: &'static str,
    operation: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Row> {
    let before = rest(kvc, observer).await?;
    let counters = &observer.counters;
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (retries, failed) = (read(&counters.retries), read(&counters.failed));
    let last = async || anyhow::Ok(kvc.get().await?.status.and_then(|status| status.last_rebalance));
    let earlier = last().await?.map(|last| last.since);
    let begun = Instant::now();
    println!("{what} ...");
    let during = Span::of(kvc, observer, operation).await?;
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

/// A time in which nothing is done to the cluster. Looking on takes something of the machine, too, so it is looked as often
/// as if something were.
async fn rest(kvc: &Kvc, observer: &Observer) -> anyhow::Result<Span> {
    drop((observer.counters.take_latencies(), observer.probe.take()));
    let ends = Instant::now() + REST;
    let over = kvc.until("at rest for a while", LIMIT, |_| Instant::now() >= ends);
    Span::of(kvc, observer, async { over.await.map(drop) }).await
}

impl Span {
    /// Carries something out, and looks what requests take meanwhile.
    async fn of(
        kvc: &Kvc,
        observer: &Observer,
        operation: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Self> {
        let (mut during, mut operation) = (Self::default(), pin!(operation));
        loop {
            let ended = tokio::time::timeout(LOOK, &mut operation).await;
            during.take(observer, moves(kvc).await?);
            if let Ok(ended) = ended {
                return ended.map(|()| during);
            }
        }
    }

    /// Takes what was measured since the last time.
    fn take(&mut self, observer: &Observer, moves: bool) {
        let lately = observer.counters.take_latencies();
        self.machine.add(&observer.probe.take());
        self.all.add(&lately);
        if moves { &mut self.moving } else { &mut self.still }.add(&lately);
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

/// With the 99th percentiles of each span, in milliseconds: what requests took, and what the machine did.
fn print(rows: &[Row], after: &Span) {
    println!(
        "| operation | seconds | requests | tried again | failed | moved / min | p50 | p99 before | during | moving | still | after \
         | sync before | during | after | wake before | during | after |"
    );
    println!("|{}", "---|".repeat(18));
    let befores = rows.iter().map(|row| &row.before);
    for (row, after) in rows.iter().zip(befores.skip(1).chain([after])) {
        let Row { what, seconds, before, during, retries, failed, moved } = row;
        let p99 = |latencies: &Latencies| match latencies.count() {
            0 => "-".to_owned(),
            _ => format!("{:.1}", latencies.quantile_ms(0.99)),
        };
        let spans = [before, during, after];
        let cells = [
            vec![p99(&before.all), p99(&during.all), p99(&during.moving), p99(&during.still), p99(&after.all)],
            spans.map(|span| p99(&span.machine.sync)).to_vec(),
            spans.map(|span| p99(&span.machine.wake)).to_vec(),
        ];
        let (requests, p50) = (during.all.count(), during.all.quantile_ms(0.5));
        let cells = cells.concat().join(" | ");
        println!("| {what} | {seconds:.1} | {requests} | {retries} | {failed} | {moved} | {p50:.1} | {cells} |");
    }
}

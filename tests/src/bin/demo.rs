//! The demo: a cluster of three nodes is filled, scaled to five and back to three under reads and writes, and every
//! acknowledged item is read back. Prints what happens as it happens, and a table at the end.

use annulus_operator::crd::KeyValueCluster;
use annulus_tests::kvc::{Kvc, is_settled};
use annulus_tests::ledger::Ledger;
use annulus_tests::workload::{self, Counters, Shape, Workload};
use anyhow::{Context, ensure};
use clap::Parser;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Scales a cluster from 3 to 5 to 3 nodes under load and counts what is lost.
#[derive(Parser)]
struct Arguments {
    /// Manifest of the cluster.
    #[arg(long, default_value = "examples/cluster.yaml")]
    manifest: PathBuf,
    /// Namespace to run in.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Name of the cluster in the manifest.
    #[arg(long, default_value = "demo")]
    name: String,
    /// Items written before scaling.
    #[arg(long, default_value_t = 20_000)]
    items: usize,
    /// Bytes of each value.
    #[arg(long, default_value_t = 1_000)]
    value_bytes: usize,
    /// Where clients connect, if not the cluster's Service (`host:port`, such as a port-forward's end).
    #[arg(long)]
    address: Option<String>,
    /// Longest time for each scaling.
    #[arg(long, default_value_t = 600)]
    settle_seconds: u64,
}

/// One scaling, as it ended.
struct Scaling {
    from: i32,
    to: i32,
    seconds: f64,
    bytes_moved: i64,
    bytes_minimum: i64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let kvc = Kvc::new(kube::Client::try_default().await?, &arguments.namespace, &arguments.name);
    let manifest = std::fs::read_to_string(&arguments.manifest)
        .with_context(|| format!("reading {}", arguments.manifest.display()))?;
    let limit = Duration::from_secs(arguments.settle_seconds);
    println!("kubectl apply -f {}", arguments.manifest.display());
    kvc.apply(&manifest).await?;
    kvc.settled(3, limit).await?;
    println!("3 nodes are ready after {:.1} s", begun.elapsed().as_secs_f64());
    let address = match &arguments.address {
        Some(address) => address.clone(),
        None => kvc.address().await?,
    };
    let addresses = vec![address];
    let shape = Shape { writers: 16, keys: arguments.items, value_bytes: arguments.value_bytes };
    let ledgers = fill(&addresses, shape).await?;

    let running = Workload::start(&addresses, shape, ledgers, Duration::from_millis(2)).await?;
    let counters = running.counters.clone();
    let mut scalings = Vec::new();
    for (from, to) in [(3, 5), (5, 3)] {
        scalings.push(scale(&kvc, from, to, limit, &counters).await?);
    }
    let ledger = running.stop().await?;
    println!("reading every acknowledged item back");
    let tally = workload::verify(&addresses, &ledger).await?;
    report(&ledger, &counters, &scalings, tally, begun.elapsed());
    verdict(&counters, &scalings, tally)
}

async fn fill(addresses: &[String], shape: Shape) -> anyhow::Result<Vec<Ledger>> {
    println!("writing {} items of {} bytes through {}", shape.keys, shape.value_bytes, addresses[0]);
    let (start, counters) = (Instant::now(), Arc::new(Counters::default()));
    let ledgers = workload::load(addresses, shape, &counters).await?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} items acknowledged in {seconds:.1} s ({:.0} puts/s, {} failed)",
        counters.requests.load(Ordering::Relaxed),
        shape.keys as f64 / seconds,
        counters.failed.load(Ordering::Relaxed)
    );
    Ok(ledgers)
}

async fn scale(kvc: &Kvc, from: i32, to: i32, limit: Duration, counters: &Counters) -> anyhow::Result<Scaling> {
    println!("kubectl scale kvc/{} --replicas={to}   (reads and writes go on)", kvc.name);
    let start = Instant::now();
    kvc.scale(to).await?;
    let mut last = String::new();
    let what = format!("settled with {to} nodes");
    let cluster = kvc
        .until(&what, limit, |cluster| {
            let line = progress(cluster, counters);
            if line != last {
                println!("{:6.1} s  {line}", start.elapsed().as_secs_f64());
                last = line;
            }
            is_settled(cluster, to)
        })
        .await?;
    let rebalance = cluster.status.and_then(|status| status.last_rebalance).context("no rebalance is reported")?;
    ensure!(rebalance.to == to, "the last rebalance went to {} nodes, not to {to}", rebalance.to);
    Ok(Scaling {
        from,
        to,
        seconds: start.elapsed().as_secs_f64(),
        bytes_moved: rebalance.bytes_moved,
        bytes_minimum: rebalance.bytes_minimum,
    })
}

fn progress(cluster: &KeyValueCluster, counters: &Counters) -> String {
    let status = cluster.status.clone().unwrap_or_default();
    let ring = status.ring.unwrap_or_default();
    let requests = counters.requests.load(Ordering::Relaxed);
    let mut line = format!(
        "{:<11} ring epoch {}, {} members, {}/{} pods ready, requests {requests}, retries {}, failed {}, bad reads {}",
        status.phase.unwrap_or_default(),
        ring.epoch,
        ring.members,
        status.ready_replicas,
        status.replicas,
        count(&counters.retries),
        count(&counters.failed),
        count(&counters.bad_reads),
    );
    if let Some(rebalance) = status.rebalance {
        line.push_str(&format!(
            "; {} partitions left, {:.1} of at least {:.1} MB moved",
            rebalance.partitions_left,
            rebalance.bytes_moved as f64 / 1e6,
            rebalance.bytes_minimum as f64 / 1e6
        ));
        if let Some(reason) = rebalance.blocked_by.first() {
            line.push_str(&format!("; waits: {reason}"));
        }
    }
    line
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn ratio(scaling: &Scaling) -> f64 {
    scaling.bytes_moved as f64 / (scaling.bytes_minimum as f64).max(1.0)
}

fn report(
    ledger: &Ledger,
    counters: &Counters,
    scalings: &[Scaling],
    tally: annulus_tests::ledger::Tally,
    elapsed: Duration,
) {
    println!("\n{:<34} {:>12}", "acknowledged items", ledger.keys().count());
    println!("{:<34} {:>12}", "lost", tally.lost);
    println!("{:<34} {:>12}", "wrong", tally.wrong + count(&counters.bad_reads));
    println!("{:<34} {:>12}", "requests while scaling", count(&counters.requests));
    println!("{:<34} {:>12}", "  failed", count(&counters.failed));
    println!("{:<34} {:>12}", "  tried again by the client", count(&counters.retries));
    for scaling in scalings {
        let what = format!("{} -> {} nodes: bytes moved / minimum", scaling.from, scaling.to);
        println!("{what:<34} {:>12.3}", ratio(scaling));
        println!("{:<34} {:>12.1}", format!("{} -> {} nodes: seconds", scaling.from, scaling.to), scaling.seconds);
    }
    println!("{:<34} {:>12.1}", "seconds in all", elapsed.as_secs_f64());
    if let Ok(last) = counters.last_error.lock()
        && let Some(error) = last.as_ref()
    {
        println!("the last error a client saw: {error}");
    }
}

fn verdict(counters: &Counters, scalings: &[Scaling], tally: annulus_tests::ledger::Tally) -> anyhow::Result<()> {
    ensure!(tally.lost == 0, "{} acknowledged items are lost", tally.lost);
    ensure!(tally.wrong == 0 && count(&counters.bad_reads) == 0, "items read wrong");
    ensure!(count(&counters.failed) == 0, "{} requests failed while scaling", count(&counters.failed));
    for scaling in scalings {
        ensure!(
            ratio(scaling) <= 1.1,
            "{} -> {} moved {:.3} x the minimum",
            scaling.from,
            scaling.to,
            ratio(scaling)
        );
    }
    Ok(())
}

//! What becomes of the cost of an operation as a ring grows by nodes, and of a node as it grows by keys.

use crate::load::{self, Distribution, KeySpace, Mix, Outcome, Size, Workload};
use crate::process;
use crate::systems::{Annulus, System, Target, until_ready};
use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// RESP port of the first node.
const PORT: u16 = 17501;
const MIB: f64 = (1 << 20) as f64;
/// Loads of rings, numbered.
const MIXES: [(usize, Mix); 2] = [(0, Mix::Put), (1, Mix::Get)];

/// Arguments of `growth`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Numbers of nodes to compare, with n = 3.
    #[arg(long, value_delimiter = ',', default_values_t = [3, 6, 12])]
    nodes: Vec<usize>,
    /// Keys of those rings.
    #[arg(long, default_value_t = 100_000)]
    ring_keys: usize,
    /// Bytes of a value in those rings.
    #[arg(long, default_value_t = 1000)]
    ring_value_bytes: usize,
    /// Numbers of keys to compare on one node that has all of them.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 1_000_000, 10_000_000])]
    keys: Vec<usize>,
    /// Bytes of a value there.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Clients in a closed loop; for rings also as many more as there are more nodes.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Seconds of each load.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Parts to run: nodes, keys.
    #[arg(long, value_delimiter = ',', default_values_t = ["nodes", "keys"].map(String::from))]
    only: Vec<String>,
}

impl Arguments {
    fn size(&self, clients: usize) -> Size {
        let warm_up = Duration::from_secs_f64((self.seconds / 4.0).min(1.0));
        Size { clients, warm_up, measured: Duration::from_secs_f64(self.seconds) }
    }
}

/// Runs the parts and prints what they came to.
///
/// # Errors
/// When a ring does not start, or an operation failed.
pub async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let place = tempfile::tempdir().context("making a place for the data")?;
    for part in &arguments.only {
        match part.as_str() {
            "nodes" => by_nodes(arguments, place.path()).await?,
            "keys" => by_keys(arguments, place.path()).await?,
            other => anyhow::bail!("there is no part {other:?}; there are nodes and keys"),
        }
    }
    Ok(())
}

/// Rings of different sizes, under the same load and under one that has grown with them.
async fn by_nodes(arguments: &Arguments, place: &Path) -> anyhow::Result<()> {
    println!("n = 3, {} keys, values of {} bytes", arguments.ring_keys, arguments.ring_value_bytes);
    println!(
        "{:>5} {:>7}  {:<5} {:>9} {:>9} {:>16} {:>9} {:>15} {:>11}",
        "nodes", "clients", "load", "ops/s", "p99 ms", "server µs/op", "ratio", "writes to flush", "memory MiB"
    );
    let keys = KeySpace::new(arguments.ring_keys, arguments.ring_value_bytes);
    let mut first: Vec<f64> = Vec::new();
    for &nodes in &arguments.nodes {
        let directory = place.join(format!("{nodes}-nodes"));
        let annulus = Annulus { directory: directory.clone(), nodes, port: PORT, r: 2, n: 3, name: "Annulus" };
        let system = annulus.start(&keys)?;
        load::fill(&system, &keys).await?;
        let grown = arguments.clients * nodes / arguments.nodes.first().copied().unwrap_or(nodes).max(1);
        let clients = BTreeSet::from([arguments.clients, grown]);
        for (clients, (at, mix)) in clients.iter().flat_map(|&clients| MIXES.map(|mix| (clients, mix))) {
            let outcome = measure(&system, &keys, mix, arguments.size(clients)).await?;
            if first.len() <= at {
                first.push(outcome.server_micros());
            }
            println!(
                "{nodes:>5} {clients:>7}  {:<5} {:>9.0} {:>9.2} {:>16.1} {:>9.2} {:>15.1} {:>11.0}",
                if mix == Mix::Put { "put" } else { "get" },
                outcome.rate(),
                outcome.latency.value_at_quantile(0.99) as f64 / 1000.0,
                outcome.server_micros(),
                outcome.server_micros() / first[at],
                outcome.commits.changes_each(),
                outcome.resident_bytes as f64 / MIB,
            );
        }
        drop(system);
        std::fs::remove_dir_all(directory)?;
    }
    Ok(())
}

/// One node with more and more keys: reads, memory, and how soon it answers again.
async fn by_keys(arguments: &Arguments, place: &Path) -> anyhow::Result<()> {
    println!("one node (n = 1), values of {} bytes, {} clients", arguments.value_bytes, arguments.clients);
    println!(
        "{:>9} {:>9} {:>9} {:>12} {:>7} {:>13} {:>13} {:>12} {:>13}",
        "keys",
        "gets/s",
        "p99 ms",
        "server µs/op",
        "ratio",
        "MiB filled",
        "MiB restarted",
        "start s",
        "after kill s"
    );
    let mut first = None;
    for &count in &arguments.keys {
        let keys = KeySpace::new(count, arguments.value_bytes);
        let directory = place.join(format!("{count}-keys"));
        let annulus = Annulus { directory: directory.clone(), nodes: 1, port: PORT, r: 1, n: 1, name: "Annulus" };
        let system = annulus.start(&keys)?;
        load::fill(&system, &keys).await?;
        let outcome = measure(&system, &keys, Mix::Get, arguments.size(arguments.clients)).await?;
        drop(system);
        let started = Instant::now();
        let system = annulus.start(&keys)?;
        until_answered(&system)?;
        let clean = started.elapsed();
        let resident = process::resident_bytes(&system.pids())?;
        let after_kill = killed(&system)?;
        let cost = outcome.server_micros();
        println!(
            "{count:>9} {:>9.0} {:>9.2} {cost:>12.1} {:>7.2} {:>13.0} {:>13.0} {:>12.2} {:>13.2}",
            outcome.rate(),
            outcome.latency.value_at_quantile(0.99) as f64 / 1000.0,
            cost / *first.get_or_insert(cost),
            outcome.resident_bytes as f64 / MIB,
            resident as f64 / MIB,
            clean.as_secs_f64(),
            after_kill.as_secs_f64(),
        );
        drop(system);
        std::fs::remove_dir_all(directory)?;
    }
    Ok(())
}

async fn measure(system: &System, keys: &Arc<KeySpace>, mix: Mix, size: Size) -> anyhow::Result<Outcome> {
    let workload = Workload { mix, distribution: Distribution::Uniform, pipelined: 1 };
    let outcome = load::run(system, keys, workload, size).await?;
    ensure!(outcome.errors == 0, "operations failed: {}", outcome.first_error.unwrap_or_default());
    Ok(outcome)
}

/// Kills the node without a warning; its supervisor starts it again. How long until it answers.
fn killed(system: &System) -> anyhow::Result<Duration> {
    let pid = *system.pids().first().context("a system without processes")?;
    let began = Instant::now();
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    // What it had said before it died does not count.
    std::thread::sleep(Duration::from_millis(20));
    until_answered(system)?;
    Ok(began.elapsed())
}

fn until_answered(system: &System) -> anyhow::Result<()> {
    let Target::Resp(target) = &system.target else { return Ok(()) };
    let address = target.addresses.first().context("a system without nodes")?;
    until_ready("the node to answer", || {
        let mut connection = redis::Client::open(format!("redis://{address}"))?.get_connection()?;
        let value: Option<Vec<u8>> = redis::cmd("GET").arg(KeySpace::key(0)).query(&mut connection)?;
        ensure!(value.is_some(), "a key is missing");
        Ok(())
    })
}

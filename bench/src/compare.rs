//! Annulus beside what a user would run instead, in one run on one disk.

use crate::engine;
use crate::load::{self, Distribution, KeySpace, Mix, Outcome, Size, Workload};
use crate::report::{self, Row};
use crate::systems::{self, Annulus, System, Wait};
use anyhow::Context;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Port of Annulus' first node.
const PORT: u16 = 17101;
/// Port of the first node of the ring of which one replica is read.
const SINGLE_PORT: u16 = 17111;
/// Its name in tables.
const SINGLE: &str = "Annulus, r = 1";

/// Arguments of `compare`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Clients in a closed loop.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Keys.
    #[arg(long, default_value_t = 100_000)]
    keys: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 1000)]
    value_bytes: usize,
    /// Seconds measured of each load on each system in each round.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Rounds; in each, every system has its turn with a load before the next load.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Loads to run, by name; all if absent.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Systems to run: annulus, redis, etcd.
    #[arg(long, value_delimiter = ',', default_values_t = ["annulus", "redis", "etcd"].map(String::from))]
    systems: Vec<String>,
    /// Where to put the data, on the disk to be measured; the system's place for temporary files if absent.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Draw the figures into this file.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Process ids of Annulus' nodes are written here once they are filled, for a profiler.
    #[arg(long)]
    pids: Option<PathBuf>,
    /// Fail if any operation did. How fast it was is never a failure.
    #[arg(long)]
    strict: bool,
}

/// Every load that is compared.
fn workloads() -> Vec<Workload> {
    use Distribution::{Uniform, Zipfian};
    let load = |mix, distribution, pipelined| Workload { mix, distribution, pipelined };
    vec![
        load(Mix::Put, Uniform, 1),
        load(Mix::Put, Zipfian, 1),
        load(Mix::Half, Uniform, 1),
        load(Mix::Half, Zipfian, 1),
        load(Mix::Get, Uniform, 1),
        load(Mix::Get, Zipfian, 1),
        load(Mix::Put, Uniform, 16),
        load(Mix::Get, Uniform, 16),
    ]
}

/// Runs the comparison and prints it.
///
/// # Errors
/// When a system cannot be started, or, if so wished, when an operation failed.
pub async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let place = match &arguments.directory {
        Some(directory) => tempfile::tempdir_in(directory),
        None => tempfile::tempdir(),
    }
    .context("making a place for the data")?;
    let keys = KeySpace::new(arguments.keys, arguments.value_bytes);
    let size = Size {
        clients: arguments.clients,
        warm_up: Duration::from_secs_f64((arguments.seconds / 4.0).min(1.0)),
        measured: Duration::from_secs_f64(arguments.seconds),
    };
    let wanted = |load: &Workload| arguments.only.is_empty() || arguments.only.contains(&load.name());
    let loads: Vec<Workload> = workloads().into_iter().filter(wanted).collect();
    report::machine(arguments.clients, arguments.keys, arguments.value_bytes)?;
    // Under a profiler the ring that is profiled has all turns.
    let of_one = arguments.pids.is_none() && loads.iter().any(|load| load.mix == Mix::Get);
    let mut systems = start(arguments, place.path(), &keys, of_one)?;
    for system in &systems {
        load::fill(system, &keys).await.with_context(|| format!("filling {}", system.name))?;
    }
    if let (Some(path), Some(system)) = (&arguments.pids, systems.iter().find(|system| system.name == "Annulus")) {
        let pids: Vec<String> = system.pids().iter().map(u32::to_string).collect();
        std::fs::write(path, pids.join(","))?;
    }
    let redis = systems.iter().position(|system| system.name == systems::REDIS);
    if let Some(at) = redis {
        systems.insert(at + 1, systems[at].waiting(Wait::Along, systems::REDIS_ALONG));
    }
    let mut rows = Vec::new();
    for &load in &loads {
        in_turns(&systems, &keys, load, size, arguments.rounds, &mut rows).await?;
    }
    report::table(&rows);
    report::ratios(&rows);
    report::limits(&rows, |batch| {
        let seconds = (arguments.seconds.ceil() as u64).max(1);
        engine::bare_puts_per_second(arguments.directory.clone(), arguments.value_bytes, seconds, batch)
    })?;
    if let Some(path) = &arguments.svg {
        std::fs::write(path, report::chart(&rows)).with_context(|| format!("writing {}", path.display()))?;
    }
    match rows.iter().find(|row| row.outcome.errors > 0) {
        Some(row) if arguments.strict => anyhow::bail!(
            "{} of {}'s operations failed in {}: {}",
            row.outcome.errors,
            row.system,
            row.load.name(),
            row.outcome.first_error.as_deref().unwrap_or_default()
        ),
        _ => Ok(()),
    }
}

/// Starts the systems; `reads`: with a ring of which one replica is read, beside the usual one.
fn start(
    arguments: &Arguments,
    place: &std::path::Path,
    keys: &KeySpace,
    reads: bool,
) -> anyhow::Result<Vec<System>> {
    let annulus = Annulus { directory: place.join("annulus"), nodes: 3, port: PORT, r: 2, n: 3, name: "Annulus" };
    let mut started = Vec::new();
    for system in &arguments.systems {
        if system == "annulus" && reads {
            let directory = place.join("annulus-single");
            let single = Annulus { directory, port: SINGLE_PORT, r: 1, name: SINGLE, ..annulus.clone() };
            started.push(single.start(keys)?);
        }
        started.push(match system.as_str() {
            "annulus" => annulus.start(keys)?,
            "redis" => systems::redis_cluster(place, keys)?,
            "etcd" => systems::etcd(place)?,
            other => anyhow::bail!("there is no system {other}"),
        });
    }
    Ok(started)
}

/// Each system in turn, and that again for each round.
async fn in_turns(
    systems: &[System],
    keys: &Arc<KeySpace>,
    load: Workload,
    size: Size,
    rounds: usize,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let mut outcomes: Vec<Option<Outcome>> = vec![None; systems.len()];
    for _ in 0..rounds {
        for (system, sum) in systems.iter().zip(&mut outcomes) {
            // etcd has no pipelining; reads wait for nothing, and batches take their WAIT along anyway.
            let same = system.name == systems::REDIS_ALONG && (load.mix == Mix::Get || load.pipelined > 1);
            let other = system.name == SINGLE && load.mix != Mix::Get;
            if same || other || (load.pipelined > 1 && system.name == "etcd") {
                continue;
            }
            let outcome = load::run(system, keys, load, size).await?;
            match sum {
                Some(sum) => sum.add(outcome)?,
                None => *sum = Some(outcome),
            }
        }
    }
    for (system, outcome) in systems.iter().zip(outcomes) {
        if let Some(outcome) = outcome {
            report::progress(system.name, load, &outcome);
            rows.push(Row { system: system.name, load, outcome });
        }
    }
    Ok(())
}

//! The driver: clients in a closed loop, the same for every system.

mod draw;
mod etcd;
mod resp;

pub use draw::{Draw, KeySpace};

use crate::process;
use crate::systems::{Commits, System, Target};
use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// What clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Writes alone.
    Put,
    /// Reads alone.
    Get,
    /// As many reads as writes.
    Half,
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// All alike.
    Uniform,
    /// The k-th most wanted key in proportion to 1/k^0.99, as in YCSB.
    Zipfian,
}

/// A load of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Reads, writes or both.
    pub mix: Mix,
    /// Which keys.
    pub distribution: Distribution,
    /// Operations that a client sends at once.
    pub pipelined: usize,
}

impl Workload {
    /// Name in tables.
    #[must_use]
    pub fn name(&self) -> String {
        let mix = match self.mix {
            Mix::Put => "put",
            Mix::Get => "get",
            Mix::Half => "50/50",
        };
        let distribution = if self.distribution == Distribution::Zipfian { " zipfian" } else { "" };
        let pipelined = if self.pipelined > 1 { format!(" ×{}", self.pipelined) } else { String::new() };
        format!("{mix}{distribution}{pipelined}")
    }
}

/// How much load for how long.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Clients, each with connections of its own, each waiting for its answer before it asks again.
    pub clients: usize,
    /// Before anything is counted.
    pub warm_up: Duration,
    /// While everything is counted.
    pub measured: Duration,
}

/// What came of a load.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Time measured, in seconds.
    pub seconds: f64,
    /// Operations answered as they should be.
    pub operations: u64,
    /// Operations that failed.
    pub errors: u64,
    /// What the first of them said.
    pub first_error: Option<String>,
    /// Microseconds from asking to the answer; with pipelining, those of the whole batch.
    pub latency: Histogram<u64>,
    /// Processor time of all servers, in seconds.
    pub server_seconds: f64,
    /// Processor time of the driver, in seconds.
    pub driver_seconds: f64,
    /// Resident memory of all servers afterwards, in bytes.
    pub resident_bytes: u64,
    /// What the servers committed meanwhile, of those that tell.
    pub commits: Commits,
}

impl Outcome {
    /// Operations a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.seconds
    }

    /// Processor time of all servers for one operation, in microseconds.
    #[must_use]
    pub fn server_micros(&self) -> f64 {
        self.server_seconds * 1e6 / self.operations.max(1) as f64
    }

    /// Processor time of the driver for one operation, in microseconds.
    #[must_use]
    pub fn driver_micros(&self) -> f64 {
        self.driver_seconds * 1e6 / self.operations.max(1) as f64
    }

    /// Adds another round of the same load.
    ///
    /// # Errors
    /// When the latencies do not fit.
    pub fn add(&mut self, other: Self) -> anyhow::Result<()> {
        self.seconds += other.seconds;
        self.operations += other.operations;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.latency.add(other.latency)?;
        self.server_seconds += other.server_seconds;
        self.driver_seconds += other.driver_seconds;
        self.resident_bytes = other.resident_bytes;
        self.commits.commits += other.commits.commits;
        self.commits.changes += other.commits.changes;
        Ok(())
    }
}

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const STOPPED: u8 = 2;

/// What all clients of a load share.
struct Shared {
    keys: Arc<KeySpace>,
    workload: Workload,
    phase: AtomicU8,
    tallies: Mutex<Vec<Tally>>,
}

/// What one client has counted.
struct Tally {
    operations: u64,
    errors: u64,
    first_error: Option<String>,
    latency: Histogram<u64>,
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            operations: 0,
            errors: 0,
            first_error: None,
            latency: Histogram::new_with_bounds(1, 60_000_000, 3)?,
        })
    }

    /// Counts a batch whose answers came while measuring.
    fn count(&mut self, batch: u64, asked: Instant, answer: Result<(), String>) {
        match answer {
            Ok(()) => {
                self.operations += batch;
                self.latency.saturating_record(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
            Err(error) => {
                self.errors += batch;
                self.first_error.get_or_insert(error);
            }
        }
    }
}

/// Puts a load on a system and counts.
///
/// # Errors
/// When clients cannot connect or a server has ended.
pub async fn run(
    system: &System,
    keys: &Arc<KeySpace>,
    workload: Workload,
    size: Size,
) -> anyhow::Result<Outcome> {
    let shared = Arc::new(Shared {
        keys: keys.clone(),
        workload,
        phase: AtomicU8::new(WARMING),
        tallies: Mutex::default(),
    });
    let pids = system.pids();
    let clients = match &system.target {
        Target::Resp(target) => resp::start(&shared, target, size.clients)?,
        Target::Etcd(endpoints) => etcd::start(&shared, endpoints, size.clients).await?,
    };
    tokio::time::sleep(size.warm_up).await;
    let commits_before = system.commits()?;
    let (server_before, driver_before) = (process::processor_time(&pids)?, process::own_processor_time()?);
    let started = Instant::now();
    shared.phase.store(MEASURING, Ordering::Relaxed);
    tokio::time::sleep(size.measured).await;
    shared.phase.store(STOPPED, Ordering::Relaxed);
    let seconds = started.elapsed().as_secs_f64();
    let server = process::processor_time(&pids)? - server_before;
    let driver = process::own_processor_time()? - driver_before;
    let commits = system.commits()?.since(commits_before);
    for client in clients {
        client.await.context("a client panicked")??;
    }
    let mut total = Tally::new()?;
    for tally in shared.tallies.lock().drain(..) {
        total.operations += tally.operations;
        total.errors += tally.errors;
        total.first_error = total.first_error.or(tally.first_error);
        total.latency.add(tally.latency)?;
    }
    if total.operations == 0 {
        bail!("{}: nothing was answered; {}", system.name, total.first_error.unwrap_or_default());
    }
    Ok(Outcome {
        seconds,
        operations: total.operations,
        errors: total.errors,
        first_error: total.first_error,
        latency: total.latency,
        server_seconds: server.as_secs_f64(),
        driver_seconds: driver.as_secs_f64(),
        resident_bytes: process::resident_bytes(&pids)?,
        commits,
    })
}

/// Writes every key once.
///
/// # Errors
/// When a write fails.
pub async fn fill(system: &System, keys: &Arc<KeySpace>) -> anyhow::Result<()> {
    match &system.target {
        Target::Resp(target) => {
            let (keys, target) = (keys.clone(), target.clone());
            tokio::task::spawn_blocking(move || resp::fill(&keys, &target)).await?
        }
        Target::Etcd(endpoints) => etcd::fill(keys, endpoints).await,
    }
}

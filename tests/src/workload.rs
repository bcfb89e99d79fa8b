//! Reads and writes that go on while something happens to the cluster, with every acknowledgement written down.
//!
//! The client is a stock one: the `redis` crate's connection manager, which reconnects by itself. A request that fails is
//! tried again as redis-py and others do by default; both the tries and the failures are counted.

use crate::latencies::{Lately, Latencies};
use crate::ledger::{Ledger, Tally, Verdict, value};
use anyhow::Context;
use rand::{Rng, SeedableRng, rngs::StdRng};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, FromRedisValue};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Tries of one request before it counts as failed.
const TRIES_MAX: u32 = 4;
const TRY_PAUSE: Duration = Duration::from_millis(100);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Counters of a running workload.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests answered without an error.
    pub requests: AtomicU64,
    /// Tries beyond the first.
    pub retries: AtomicU64,
    /// Requests that failed in every try.
    pub failed: AtomicU64,
    /// Reads that lacked an acknowledged write, or showed one that was never sent.
    pub bad_reads: AtomicU64,
    /// The last error seen, for people.
    pub last_error: std::sync::Mutex<Option<String>>,
    /// How long requests took, in microseconds, all tries and pauses between them included.
    latencies: Lately,
}

impl Counters {
    /// What was measured since this was last asked.
    #[must_use]
    pub fn take_latencies(&self) -> Latencies {
        self.latencies.take()
    }
}

/// A workload under way.
pub struct Workload {
    stop: Arc<AtomicBool>,
    workers: JoinSet<Ledger>,
    /// What has happened so far.
    pub counters: Arc<Counters>,
}

/// What to write.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Writers, each with keys of its own.
    pub writers: usize,
    /// Keys of all writers together.
    pub keys: usize,
    /// Length of each value in bytes.
    pub value_bytes: usize,
}

impl Shape {
    fn key(&self, writer: usize, number: usize) -> String {
        format!("item:{writer}:{number}")
    }

    fn keys_each(&self) -> usize {
        self.keys.div_ceil(self.writers)
    }
}

/// Connects as an application would.
///
/// # Errors
/// When nothing answers at the address.
pub async fn connect(address: &str) -> anyhow::Result<ConnectionManager> {
    let client = Client::open(format!("redis://{address}/"))?;
    let config = ConnectionManagerConfig::new()
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_connection_timeout(Some(Duration::from_secs(2)));
    ConnectionManager::new_with_config(client, config).await.with_context(|| format!("connecting to {address}"))
}

/// Writes every key once; returns who wrote what.
///
/// # Errors
/// When nothing answers, or a write fails in every try.
pub async fn load(addresses: &[String], shape: Shape, counters: &Arc<Counters>) -> anyhow::Result<Vec<Ledger>> {
    let mut writers = JoinSet::new();
    for writer in 0..shape.writers {
        let mut connection = connect(&addresses[writer % addresses.len()]).await?;
        let counters = counters.clone();
        writers.spawn(async move {
            let mut ledger = Ledger::default();
            for number in 0..shape.keys_each() {
                let key = shape.key(writer, number);
                write(&mut connection, &mut ledger, &key, shape.value_bytes, &counters).await;
            }
            (writer, ledger)
        });
    }
    let mut ledgers = vec![Ledger::default(); shape.writers];
    while let Some(done) = writers.join_next().await {
        let (writer, ledger) = done?;
        ledgers[writer] = ledger;
    }
    Ok(ledgers)
}

impl Workload {
    /// Starts reads and writes, half and half, on keys that were loaded.
    ///
    /// # Errors
    /// When nothing answers.
    pub async fn start(
        addresses: &[String],
        shape: Shape,
        ledgers: Vec<Ledger>,
        pause: Duration,
    ) -> anyhow::Result<Self> {
        let (stop, counters) = (Arc::new(AtomicBool::new(false)), Arc::new(Counters::default()));
        let mut workers = JoinSet::new();
        for (writer, mut ledger) in ledgers.into_iter().enumerate() {
            let mut connection = connect(&addresses[writer % addresses.len()]).await?;
            let (stop, counters) = (stop.clone(), counters.clone());
            workers.spawn(async move {
                let mut random = StdRng::seed_from_u64(writer as u64);
                while !stop.load(Ordering::Relaxed) {
                    let key = shape.key(writer, random.random_range(0..shape.keys_each()));
                    if random.random_bool(0.5) {
                        write(&mut connection, &mut ledger, &key, shape.value_bytes, &counters).await;
                    } else {
                        check(&mut connection, &ledger, &key, &counters).await;
                    }
                    tokio::time::sleep(pause).await;
                }
                ledger
            });
        }
        Ok(Self { stop, workers, counters })
    }

    /// Ends the workload once every request under way is answered.
    ///
    /// # Errors
    /// When a worker panicked.
    pub async fn stop(mut self) -> anyhow::Result<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Ledger::default();
        while let Some(ledger) = self.workers.join_next().await {
            all.absorb(ledger?);
        }
        Ok(all)
    }
}

/// Reads every acknowledged key back.
///
/// # Errors
/// When nothing answers.
pub async fn verify(addresses: &[String], ledger: &Ledger) -> anyhow::Result<Tally> {
    let counters = Counters::default();
    let mut tally = Tally::default();
    let mut connections = Vec::new();
    for address in addresses {
        connections.push(connect(address).await?);
    }
    for (at, key) in ledger.keys().enumerate() {
        tally.acknowledged += 1;
        let connection = &mut connections[at % addresses.len()];
        let read = read(connection, key, &counters).await;
        let read = read.with_context(|| format!("{key} cannot be read back"))?;
        match ledger.judge(key, read.as_deref()) {
            Verdict::Good => {}
            Verdict::Lost => tally.lost += 1,
            Verdict::Wrong => tally.wrong += 1,
        }
    }
    Ok(tally)
}

async fn write(
    connection: &mut ConnectionManager,
    ledger: &mut Ledger,
    key: &str,
    value_bytes: usize,
    counters: &Counters,
) {
    let version = ledger.attempt(key);
    let mut set = redis::cmd("SET");
    set.arg(key).arg(value(key, version, value_bytes));
    if tries::<()>(connection, &set, counters).await.is_some() {
        ledger.acknowledge(key, version);
    }
}

async fn read(connection: &mut ConnectionManager, key: &str, counters: &Counters) -> Option<Option<Vec<u8>>> {
    let mut get = redis::cmd("GET");
    get.arg(key);
    tries(connection, &get, counters).await
}

async fn check(connection: &mut ConnectionManager, ledger: &Ledger, key: &str, counters: &Counters) {
    if let Some(value) = read(connection, key, counters).await
        && ledger.judge(key, value.as_deref()) != Verdict::Good
    {
        counters.bad_reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// Tries a request as stock clients do; `None` when every try failed.
async fn tries<T: FromRedisValue>(
    connection: &mut ConnectionManager,
    request: &Cmd,
    counters: &Counters,
) -> Option<T> {
    let begun = Instant::now();
    for attempt in 0..TRIES_MAX {
        if attempt > 0 {
            counters.retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(TRY_PAUSE * attempt).await;
        }
        match request.query_async(connection).await {
            Ok(answer) => {
                counters.requests.fetch_add(1, Ordering::Relaxed);
                counters.latencies.record(begun.elapsed());
                return Some(answer);
            }
            Err(error) => {
                if let Ok(mut last) = counters.last_error.lock() {
                    *last = Some(error.to_string());
                }
            }
        }
    }
    counters.failed.fetch_add(1, Ordering::Relaxed);
    None
}

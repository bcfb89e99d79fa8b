//! Clients that write and read while things break, and what became of what they were told.

use crate::cluster::Cluster;
use annulus_tests::ledger::{Ledger, Verdict};
use annulus_tests::workload::{self, Counters, Shape, Workload};
use anyhow::{Context, ensure};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const SHAPE: Shape = Shape { writers: 8, keys: 800, value_bytes: 600 };
const PAUSE: Duration = Duration::from_millis(3);
/// How long replicas may take to be equal once nothing fails any more.
const EQUAL_MAX: Duration = Duration::from_secs(60);

/// Clients at work.
pub struct Load {
    workload: Workload,
}

/// What came of a scenario.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Requests answered.
    pub requests: u64,
    /// Requests that failed in every try; of clients of nodes that failed themselves, mostly.
    pub failed: u64,
    /// The longest that a request took, tries and pauses included, in milliseconds.
    pub longest_ms: f64,
    /// Keys with an acknowledged write.
    pub acknowledged: u64,
    /// Keys whose last acknowledged write is gone, at any node.
    pub lost: u64,
    /// Keys with a value that was never written, at any node.
    pub invented: u64,
    /// Reads that missed what had been acknowledged before, while things were broken: with r + w > n no read does,
    /// unless fallbacks stood in for holders.
    pub stale: u64,
}

impl Load {
    /// Writes every key once, then begins.
    ///
    /// # Errors
    /// When the ring does not answer.
    pub async fn start(cluster: &Cluster, clients_of: &[usize]) -> anyhow::Result<Self> {
        let addresses = cluster.addresses(clients_of);
        let ledgers = workload::load(&addresses, SHAPE, &Arc::new(Counters::default())).await?;
        Ok(Self { workload: Workload::start(&addresses, SHAPE, ledgers, PAUSE).await? })
    }

    /// Requests answered so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.workload.counters.requests.load(Ordering::Relaxed)
    }

    /// The longest that a request took since this was last asked, in milliseconds.
    #[must_use]
    pub fn longest_ms(&self) -> f64 {
        self.workload.counters.take_latencies().quantile_ms(1.0)
    }

    /// Ends the clients, waits until the ring is whole, and reads everything back: by quorum, then at each node by itself.
    ///
    /// # Errors
    /// When the ring does not become whole, or a replica stays behind.
    pub async fn judge(self, cluster: &mut Cluster) -> anyhow::Result<Outcome> {
        let counters = self.workload.counters.clone();
        let ledger = self.workload.stop().await?;
        cluster.settle().await?;
        let all: Vec<usize> = (0..cluster.nodes.len()).collect();
        let tally = workload::verify(&cluster.addresses(&all), &ledger).await?;
        let mut outcome = Outcome {
            requests: counters.requests.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
            longest_ms: counters.take_latencies().quantile_ms(1.0),
            acknowledged: tally.acknowledged,
            lost: tally.lost,
            invented: tally.wrong,
            stale: counters.bad_reads.load(Ordering::Relaxed),
        };
        if cluster.nodes.len() == 3 {
            let (lost, invented) = until_equal(cluster, &ledger).await?;
            outcome.lost = outcome.lost.max(lost);
            outcome.invented = outcome.invented.max(invented);
        }
        Ok(outcome)
    }
}

/// Waits until each of three nodes by itself has what was acknowledged; how many keys do not at the end.
async fn until_equal(cluster: &Cluster, ledger: &Ledger) -> anyhow::Result<(u64, u64)> {
    let began = Instant::now();
    loop {
        let (mut lost, mut invented) = (0, 0);
        for address in cluster.addresses(&[0, 1, 2]) {
            let read = alone(&address, ledger).await?;
            lost += read.0;
            invented += read.1;
        }
        if (lost, invented) == (0, 0) || began.elapsed() > EQUAL_MAX {
            return Ok((lost, invented));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Reads all keys at one node without asking another.
async fn alone(address: &str, ledger: &Ledger) -> anyhow::Result<(u64, u64)> {
    let mut connection =
        redis::Client::open(format!("redis://{address}/"))?.get_multiplexed_async_connection().await?;
    let mut consistency = redis::cmd("ANNULUS");
    consistency.arg("CONSISTENCY").arg(1).arg(2).arg("SLOPPY");
    consistency.query_async::<()>(&mut connection).await.context("reading at one node alone")?;
    let (mut lost, mut invented) = (0, 0);
    let keys: Vec<&str> = ledger.keys().collect();
    for keys in keys.chunks(100) {
        let mut get = redis::cmd("MGET");
        get.arg(keys);
        let values: Vec<Option<Vec<u8>>> = get.query_async(&mut connection).await?;
        ensure!(values.len() == keys.len(), "MGET of {} keys gave {} values", keys.len(), values.len());
        for (key, value) in keys.iter().zip(values) {
            match ledger.judge(key, value.as_deref()) {
                Verdict::Good => {}
                Verdict::Lost => lost += 1,
                Verdict::Wrong => invented += 1,
            }
        }
    }
    Ok((lost, invented))
}

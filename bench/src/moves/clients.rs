//! Clients that go on while data moves: how long their requests take, and which fail.

use crate::load::KeySpace;
use anyhow::ensure;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pause of a client between two requests: they are to notice what moving does, not to take all the machine has.
const PAUSE: Duration = Duration::from_millis(2);

/// Clients in a closed loop with pauses, half reads and half writes.
pub(super) struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    tally: Mutex<Tally>,
}

/// What clients have seen since it was last asked.
struct Tally {
    /// Microseconds of each request that was answered.
    latency: Histogram<u64>,
    failed: u64,
    first_failure: Option<String>,
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { latency: Histogram::new_with_bounds(1, 60_000_000, 3)?, failed: 0, first_failure: None })
    }

    /// 99th percentile in milliseconds.
    fn p99_ms(&self) -> f64 {
        self.latency.value_at_quantile(0.99) as f64 / 1000.0
    }
}

/// What clients felt before something, while it happened, and after it.
pub(super) struct Felt([Tally; 3]);

/// What [`Felt`] is printed below.
pub(super) const P99_HEADINGS: &str = "p99 ms before  during   after  during/mean  failed";

impl Felt {
    /// Watches clients for so many seconds before and after something.
    pub(super) fn of<T>(
        clients: &Clients,
        seconds: f64,
        change: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, Self)> {
        let rest = || std::thread::sleep(Duration::from_secs_f64(seconds));
        clients.take()?;
        rest();
        let before = clients.take()?;
        let change = change()?;
        let during = clients.take()?;
        rest();
        Ok((change, Self([before, during, clients.take()?])))
    }

    /// # Errors
    /// When a request has failed.
    pub(super) fn ensure_nothing_failed(&self) -> anyhow::Result<()> {
        let why = self.0.iter().find_map(|tally| tally.first_failure.as_deref()).unwrap_or_default();
        ensure!(self.failed() == 0, "requests have failed: {why}");
        Ok(())
    }

    fn failed(&self) -> u64 {
        self.0.iter().map(|tally| tally.failed).sum()
    }
}

impl fmt::Display for Felt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, during, after] = self.0.each_ref().map(Tally::p99_ms);
        let ratio = 2.0 * during / (before + after);
        write!(f, "{before:>13.2} {during:>7.2} {after:>7.2} {ratio:>12.2} {:>7}", self.failed())
    }
}

impl Clients {
    /// Starts `count` clients, each with a connection to one of these addresses.
    pub(super) fn start(addresses: &[String], keys: &Arc<KeySpace>, count: usize) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), tally: Mutex::new(Tally::new()?) });
        let mut threads = Vec::new();
        for number in 0..count {
            let client = redis::Client::open(format!("redis://{}", addresses[number % addresses.len()]))?;
            let connection = client.get_connection()?;
            let (shared, keys) = (shared.clone(), keys.clone());
            threads.push(std::thread::spawn(move || work(&shared, &keys, number, connection)));
        }
        Ok(Self { shared, threads })
    }

    /// What was seen since the last time.
    fn take(&self) -> anyhow::Result<Tally> {
        Ok(std::mem::replace(&mut *self.shared.tally.lock(), Tally::new()?))
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(shared: &Shared, keys: &KeySpace, number: usize, mut connection: redis::Connection) {
    let mut at = number as u64;
    while !shared.stop.load(Ordering::Relaxed) {
        // A step that has no divisor in common with the usual numbers of keys visits them all.
        at = at.wrapping_add(1_000_003);
        let key = KeySpace::key(u32::try_from(at % keys.count() as u64).unwrap_or(0));
        let asked = Instant::now();
        let answer = match at % 2 {
            0 => {
                redis::cmd("GET").arg(&key).query::<Option<Vec<u8>>>(&mut connection).map(|value| value.is_some())
            }
            _ => redis::cmd("SET").arg(&key).arg(keys.value(at)).query::<()>(&mut connection).map(|()| true),
        };
        let micros = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut tally = shared.tally.lock();
        match answer {
            Ok(true) => tally.latency.saturating_record(micros),
            Ok(false) => {
                tally.failed += 1;
                tally.first_failure.get_or_insert_with(|| format!("{key} is not found"));
            }
            Err(error) => {
                tally.failed += 1;
                tally.first_failure.get_or_insert_with(|| error.to_string());
            }
        }
        drop(tally);
        std::thread::sleep(PAUSE);
    }
}

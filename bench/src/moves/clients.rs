//! Clients that go on while data moves: how long their requests take, and which fail.

use crate::load::KeySpace;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
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
pub(super) struct Tally {
    /// Microseconds of each request that was answered.
    pub(super) latency: Histogram<u64>,
    pub(super) failed: u64,
    pub(super) first_failure: Option<String>,
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { latency: Histogram::new_with_bounds(1, 60_000_000, 3)?, failed: 0, first_failure: None })
    }

    /// 99th percentile in milliseconds.
    pub(super) fn p99_ms(&self) -> f64 {
        self.latency.value_at_quantile(0.99) as f64 / 1000.0
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
    pub(super) fn take(&self) -> anyhow::Result<Tally> {
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

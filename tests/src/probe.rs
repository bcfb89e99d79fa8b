//! What the machine itself makes of the simplest of what a request needs, measured in the same moments as the requests: a
//! write made durable on the disk, and a thread that wakes up.

use crate::latencies::{Lately, Latencies};
use anyhow::Context;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two of the same kind.
const PAUSE: Duration = Duration::from_millis(10);
/// What is written each time, about a request.
const BYTES: usize = 1_000;
/// Where the file starts anew.
const FILE_BYTES_MAX: usize = 16 << 20;

/// Measures until dropped.
pub struct Probe {
    stop: Arc<AtomicBool>,
    sync: Arc<Lately>,
    wake: Arc<Lately>,
    threads: Vec<JoinHandle<()>>,
}

/// What was measured in some span of time.
#[derive(Debug, Default)]
pub struct Measured {
    /// Appending to a file and making it durable.
    pub sync: Latencies,
    /// Waking up later than asked for.
    pub wake: Latencies,
}

impl Measured {
    /// Adds what was measured at another time.
    pub fn add(&mut self, others: &Self) {
        self.sync.add(&others.sync);
        self.wake.add(&others.wake);
    }
}

impl Probe {
    /// Starts, on a nameless file in this directory.
    ///
    /// # Errors
    /// When there can be no such file.
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (sync, wake) = (Arc::<Lately>::default(), Arc::<Lately>::default());
        let file = tempfile::tempfile_in(directory).context("making a file to write to")?;
        let syncing = std::thread::spawn({
            let (stop, sync) = (stop.clone(), sync.clone());
            move || syncs(file, &stop, &sync)
        });
        let waking = std::thread::spawn({
            let (stop, wake) = (stop.clone(), wake.clone());
            move || wakes(&stop, &wake)
        });
        Ok(Self { stop, sync, wake, threads: vec![syncing, waking] })
    }

    /// What was measured since this was last asked.
    #[must_use]
    pub fn take(&self) -> Measured {
        Measured { sync: self.sync.take(), wake: self.wake.take() }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has measured nothing more; the figures show it.
            let _ = thread.join();
        }
    }
}

fn syncs(mut file: File, stop: &AtomicBool, sync: &Lately) {
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let durable = file.write_all(&[7; BYTES]).and_then(|()| file.sync_data());
        if durable.is_ok() {
            sync.record(begun.elapsed());
        }
        written += BYTES;
        if written > FILE_BYTES_MAX && file.seek(SeekFrom::Start(0)).is_ok() {
            written = 0;
        }
        std::thread::sleep(PAUSE);
    }
}

fn wakes(stop: &AtomicBool, wake: &Lately) {
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        std::thread::sleep(PAUSE);
        wake.record(begun.elapsed().saturating_sub(PAUSE));
    }
}

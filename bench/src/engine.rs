//! What the committer costs: durable puts through it, beside bare fjall writing batches of the same size.

use crate::meter::{Meter, Taken};
use annulus_node::config::Limits;
use annulus_node::storage::{Change, Committer, Engine, FjallEngine, FjallOptions, Space};
use anyhow::Context;
use bytes::Bytes;
use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Different values, so that nothing is won by writing the same one again.
const VALUES: usize = 1024;

/// Arguments of `engine`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Batch sizes to aim at. Each has twice as many submitters: one half is being flushed while the other gathers.
    #[arg(long, value_delimiter = ',', default_values_t = [32, 256])]
    batches: Vec<usize>,
    /// Bytes of a value.
    #[arg(long, default_value_t = 1000)]
    value_bytes: usize,
    /// Rounds of both in turn.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Seconds of each turn.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Where to put the data, on the disk to be measured; the system's place for temporary files if absent.
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// What one turn did.
struct Turn {
    puts: u64,
    syncs: u64,
    taken: Taken,
}

impl Turn {
    fn puts_per_second(&self) -> f64 {
        self.puts as f64 / self.taken.seconds
    }

    fn batch(&self) -> f64 {
        self.puts as f64 / self.syncs.max(1) as f64
    }

    fn processor_micros(&self) -> f64 {
        self.taken.processor_seconds * 1e6 / self.puts.max(1) as f64
    }

    fn print(&self, name: &str) {
        println!(
            "  {name:<10} {:>9.0} puts/s  {:>7.0} fsyncs/s  {:>6.1} puts/fsync  {:>6.2} processor µs/put",
            self.puts_per_second(),
            self.syncs as f64 / self.taken.seconds,
            self.batch(),
            self.processor_micros(),
        );
    }
}

/// Runs the comparison and prints every turn, then the medians.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let values = values(arguments.value_bytes);
    let threads = std::thread::available_parallelism()?;
    println!("durable puts of {} bytes, {threads} processors", arguments.value_bytes);
    for &batch in &arguments.batches {
        println!("batches of about {batch}:");
        let (mut ratios, mut costs) = (Vec::new(), Vec::new());
        for _ in 0..arguments.rounds {
            let annulus = through_committer(arguments, &values, batch * 2)?;
            annulus.print("committer");
            // The same number of puts for each flush as the committer has just reached.
            let bare = bare_fjall(arguments, &values, (annulus.batch().round() as usize).max(1))?;
            bare.print("bare fjall");
            ratios.push(annulus.puts_per_second() / bare.puts_per_second());
            costs.push(annulus.processor_micros() - bare.processor_micros());
        }
        println!(
            "  median of {} rounds: {:.2} of bare fjall's puts/s (least {:.2}, most {:.2}); \
             {:+.2} processor µs/put beside it",
            ratios.len(),
            median(&mut ratios),
            ratios.first().copied().unwrap_or_default(),
            ratios.last().copied().unwrap_or_default(),
            median(&mut costs),
        );
    }
    Ok(())
}

fn through_committer(arguments: &Arguments, values: &Arc<[Bytes]>, submitters: usize) -> anyhow::Result<Turn> {
    let place = place(arguments)?;
    let engine: Arc<dyn Engine> = Arc::new(FjallEngine::open(place.path(), &FjallOptions::default())?);
    let committer = Committer::start(engine, &Limits::default(), |changes, _| {
        std::hint::black_box(changes.len());
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (stop, numbers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let meter = Meter::start()?;
    let (puts, taken) = runtime.block_on(async {
        let tasks: Vec<_> = (0..submitters)
            .map(|_| {
                let (committer, stop, numbers) = (committer.clone(), stop.clone(), numbers.clone());
                let values = values.clone();
                tokio::spawn(async move {
                    let mut puts = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        let number = numbers.fetch_add(1, Ordering::Relaxed);
                        let value = values[number as usize % VALUES].clone();
                        let key = Bytes::copy_from_slice(&key(number));
                        let reservation = committer.reserve(key.len() + value.len()).await?;
                        let change = Change::Put { space: Space::Data, key, value };
                        committer.submit([change], reservation).await?;
                        puts += 1;
                    }
                    anyhow::Ok(puts)
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
        stop.store(true, Ordering::Relaxed);
        let mut puts = 0;
        for task in tasks {
            puts += task.await??;
        }
        anyhow::Ok((puts, meter.read()?))
    })?;
    let syncs = committer.stats().commits.load(Ordering::Relaxed);
    runtime.block_on(committer.close());
    Ok(Turn { puts, syncs, taken })
}

/// Durable puts a second of the bare engine, with so many to a flush, on a machine that has nothing else to do.
///
/// # Errors
/// Those of the engine.
pub fn bare_puts_per_second(
    directory: Option<PathBuf>,
    value_bytes: usize,
    seconds: u64,
    batch_puts: usize,
) -> anyhow::Result<f64> {
    let arguments = Arguments { batches: Vec::new(), value_bytes, rounds: 1, seconds, directory };
    Ok(bare_fjall(&arguments, &values(value_bytes), batch_puts)?.puts_per_second())
}

fn bare_fjall(arguments: &Arguments, values: &Arc<[Bytes]>, batch_puts: usize) -> anyhow::Result<Turn> {
    let place = place(arguments)?;
    // Opened a second time, as a node's store always is: fjall fills a journal of its own making in place, but
    // appends to one that it has found.
    Database::builder(place.path()).open()?.keyspace("data", KeyspaceCreateOptions::default)?;
    let database = Database::builder(place.path()).open()?;
    let keyspace = database.keyspace("data", KeyspaceCreateOptions::default)?;
    let (mut number, mut syncs) = (0_u64, 0);
    let meter = Meter::start()?;
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    while Instant::now() < end {
        let mut batch = database.batch().durability(Some(PersistMode::SyncData));
        for _ in 0..batch_puts {
            batch.insert(&keyspace, key(number), values[number as usize % VALUES].as_ref());
            number += 1;
        }
        batch.commit()?;
        syncs += 1;
    }
    Ok(Turn { puts: number, syncs, taken: meter.read()? })
}

/// As a node's: a token that is anywhere on the ring, then the key.
fn key(number: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[8..].copy_from_slice(format!("key:{number:012}").as_bytes());
    key
}

fn values(bytes: usize) -> Arc<[Bytes]> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut value = || {
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        std::iter::repeat_with(next).take(bytes).collect()
    };
    (0..VALUES).map(|_| value()).collect()
}

fn place(arguments: &Arguments) -> anyhow::Result<tempfile::TempDir> {
    let place = match &arguments.directory {
        Some(directory) => tempfile::tempdir_in(directory),
        None => tempfile::tempdir(),
    };
    place.context("making a place for the data")
}

/// Sorts the numbers and returns the one in the middle.
fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

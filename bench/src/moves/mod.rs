//! What a change of the ring costs: bytes moved beside the least possible, how fast, what clients notice of it and of nodes
//! that are restarted, and what is sent again after a node has died.

mod clients;
mod limits;
mod rate;
mod ring;

use crate::load::KeySpace;
use crate::systems::until_ready;
use anyhow::{Context, ensure};
use clients::{Clients, Felt, P99_HEADINGS};
use nix::sys::signal::Signal;
use rate::rate;
use ring::{Change, Ring};
use std::path::Path;
use std::sync::Arc;

/// Port of the first node.
const PORT: u16 = 17301;
const MIB: f64 = (1 << 20) as f64;
/// Values written at once while filling.
const FILL_BATCH: usize = 128;

/// How often nodes are restarted.
const RESTART_ROUNDS: usize = 3;

/// Arguments of `moves`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Keys.
    #[arg(long, default_value_t = 100_000)]
    keys: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 1000)]
    value_bytes: usize,
    /// Partitions of the ring.
    #[arg(long, default_value_t = 256)]
    partitions: u32,
    /// Clients that read and write meanwhile.
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Seconds that clients are watched before each change and after it.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Parts to run: changes, restarts, rate, deaths.
    #[arg(long, value_delimiter = ',', default_values_t = ["changes", "restarts", "rate", "deaths"].map(String::from))]
    only: Vec<String>,
    /// Changes, one run of a ring after the other: nodes/n that it begins with, then what it is changed to.
    #[arg(long, value_delimiter = ',', default_values_t = [
        "3/3 4/3 3/3 6/3 5/3 5/5 5/3", "10/3 7/3",
    ].map(String::from))]
    changes: Vec<String>,
}

/// Nodes and replicas, as `nodes/n`.
fn sizes(text: &str) -> anyhow::Result<Vec<(usize, u8)>> {
    let size = |size: &str| {
        let (nodes, n) = size.split_once('/').context("a size is nodes/n")?;
        anyhow::Ok((nodes.parse()?, n.parse()?))
    };
    text.split_whitespace().map(size).collect::<anyhow::Result<_>>().with_context(|| format!("reading {text:?}"))
}

/// Runs all parts and prints what they came to.
///
/// # Errors
/// When a ring does not settle, or a request failed.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let place = tempfile::tempdir().context("making a place for the data")?;
    let keys = KeySpace::new(arguments.keys, arguments.value_bytes);
    for part in &arguments.only {
        let directory = place.path().join(part);
        match part.as_str() {
            "changes" => {
                println!("change         moved MiB   minimum  moved/min  seconds   MiB/s  {P99_HEADINGS}");
                for (number, of_ring) in arguments.changes.iter().enumerate() {
                    let sizes = sizes(of_ring)?;
                    changes(arguments, &directory.join(number.to_string()), &keys, &sizes)?;
                }
            }
            "restarts" => restarts(arguments, &directory, &keys)?,
            "rate" => rate(arguments, &directory, &keys)?,
            "deaths" => deaths(arguments, &directory, &keys)?,
            other => anyhow::bail!("there is no part {other:?}; there are changes, restarts, rate and deaths"),
        }
        let _ = std::fs::remove_dir_all(directory);
    }
    Ok(())
}

/// One change after the other on one ring, while clients read and write.
fn changes(
    arguments: &Arguments,
    directory: &Path,
    keys: &Arc<KeySpace>,
    sizes: &[(usize, u8)],
) -> anyhow::Result<()> {
    let (&first, targets) = sizes.split_first().context("a ring without a size")?;
    let ring = Ring::start(directory.to_owned(), first, PORT, arguments.partitions)?;
    fill(&ring, keys)?;
    let clients = clients(&ring, arguments, keys)?;
    let mut before = first;
    for &(nodes, n) in targets {
        let felt = Felt::of(&clients, arguments.seconds, || {
            let epoch = ring.begin(nodes, n)?;
            ring.settle(nodes, n, epoch, |_| Ok(()))
        });
        let (Change { moved, minimum, seconds }, felt) = felt?;
        let name = match before {
            (nodes_before, n_before) if n_before == n => format!("{nodes_before} -> {nodes}"),
            (_, n_before) => format!("n {n_before} -> {n}"),
        };
        println!(
            "{name:<12} {:>11.1} {:>9.1} {:>10.3} {seconds:>8.1} {:>7.1}  {felt}",
            moved as f64 / MIB,
            minimum as f64 / MIB,
            if moved == 0 { 1.0 } else { moved as f64 / minimum as f64 },
            moved as f64 / MIB / seconds,
        );
        felt.ensure_nothing_failed()?;
        before = (nodes, n);
    }
    Ok(())
}

/// Starts clients of the first three nodes, which no change takes away and no restart ends.
fn clients(ring: &Ring, arguments: &Arguments, keys: &Arc<KeySpace>) -> anyhow::Result<Clients> {
    let addresses: Vec<String> = ring.status()?.nodes.iter().take(3).map(|node| node.resp.clone()).collect();
    Clients::start(&addresses, keys, arguments.clients)
}

/// Nodes that no client is connected to are ended and started again, one after the other, while clients read and write.
fn restarts(arguments: &Arguments, directory: &Path, keys: &Arc<KeySpace>) -> anyhow::Result<()> {
    let ring = Ring::start(directory.to_owned(), (5, 3), PORT, arguments.partitions)?;
    fill(&ring, keys)?;
    let clients = clients(&ring, arguments, keys)?;
    println!("restarts of            seconds  {P99_HEADINGS}");
    for round in 1..=RESTART_ROUNDS {
        let (seconds, felt) = Felt::of(&clients, arguments.seconds, || ring.restart(&[3, 4]))?;
        println!("two of five, {round:<9} {seconds:>8.1}  {felt}");
        felt.ensure_nothing_failed()?;
    }
    Ok(())
}

/// What is sent again when the joiner, or a node that it copies from, dies half way.
fn deaths(arguments: &Arguments, directory: &Path, keys: &Arc<KeySpace>) -> anyhow::Result<()> {
    for (name, victim) in [("the joiner", 3), ("a source", 1)] {
        let ring = Ring::start(directory.join(name.replace(' ', "-")), (3, 3), PORT, arguments.partitions)?;
        fill(&ring, keys)?;
        let (mut before, mut killed) = (0, false);
        let epoch = ring.begin(4, 3)?;
        let change = ring.settle(4, 3, epoch, |status| {
            let half = status.nodes.iter().map(|node| node.bytes).sum::<u64>() / 8;
            if killed || status.bytes_moved < half {
                return Ok(());
            }
            let node = status.nodes.get(victim).context("no such node")?;
            // A process that dies takes its counter along.
            before = Ring::metric(node, "annulus_handed_out_bytes")?;
            Ring::end(node, Signal::SIGKILL)?;
            killed = true;
            Ok(())
        })?;
        ensure!(killed, "everything had moved before half of it was seen to; use more keys");
        let sent = ring.handed_out()? + before;
        let again = sent.saturating_sub(change.moved);
        println!(
            "{name} killed half way: {:.1} MiB sent, {:.1} MiB of them kept, {:.2} MiB again ({:.2} %); moved/min {:.3}",
            sent as f64 / MIB,
            change.moved as f64 / MIB,
            again as f64 / MIB,
            again as f64 * 100.0 / change.moved as f64,
            change.moved as f64 / change.minimum as f64,
        );
    }
    Ok(())
}

/// Writes every key once.
fn fill(ring: &Ring, keys: &KeySpace) -> anyhow::Result<()> {
    let status = ring.status()?;
    let node = status.nodes.first().context("a ring without nodes")?;
    let mut connection = redis::Client::open(format!("redis://{}", node.resp))?.get_connection()?;
    let all: Vec<u32> = (0..u32::try_from(keys.count())?).collect();
    for batch in all.chunks(FILL_BATCH) {
        let mut pipeline = redis::pipe();
        for &key in batch {
            pipeline.set(KeySpace::key(key), keys.value(u64::from(key))).ignore();
        }
        // With gigabytes the nodes' one disk cannot keep up at times, and then writes are refused.
        until_ready("the ring to take writes", || Ok(pipeline.query::<()>(&mut connection)?))?;
    }
    // Tables are written and compacted for a while after the last write, which is no part of what follows.
    ring.until_idle()
}

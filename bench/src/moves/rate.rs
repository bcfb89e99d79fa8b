//! How fast a node is filled that nobody else wants anything of.

use super::limits::{self, Processors};
use super::ring::{NodeLine, Ring};
use super::{Arguments, MIB, PORT, fill};
use crate::load::KeySpace;
use crate::process;
use anyhow::Context;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How fast one joiner copies while nobody else wants anything, beside the disk, loopback and the processors.
pub(super) fn rate(arguments: &Arguments, directory: &Path, keys: &Arc<KeySpace>) -> anyhow::Result<()> {
    let ring = Ring::start(directory.to_owned(), (3, 3), PORT, arguments.partitions)?;
    fill(&ring, keys)?;
    // Before and after, for a disk is not as fast at all times.
    let disk = || anyhow::Ok([limits::disk(directory, 4)?, limits::disk(directory, 64)?]);
    let (before, loopback) = (disk()?, limits::loopback()?);
    let through = limits::loopback_to_disk(directory, 4)?;
    let epoch = ring.begin(4, 3)?;
    // From the first byte to the last, as the joiner counts them; what is decided before and after is not copying.
    let (mut first, mut last) = (None, None);
    ring.settle(4, 3, epoch, |status| {
        let Some(joiner) = status.nodes.get(3).filter(|joiner| joiner.answers) else { return Ok(()) };
        if let Some(now) = Joiner::now(joiner)?.filter(|now| now.bytes > 0) {
            first.get_or_insert(now);
            if last.is_none_or(|before: Joiner| before.bytes < now.bytes) {
                last = Some(now);
            }
        }
        Ok(())
    })?;
    let (first, last) = first.zip(last).context("nothing was moved")?;
    let seconds = (last.at - first.at).as_secs_f64().max(0.001);
    let copied = (last.bytes - first.bytes) as f64 / seconds;
    println!("3 -> 4 without clients: {:.0} MiB at {:.1} MiB/s", last.bytes as f64 / MIB, copied / MIB);
    for ((mebibytes, before), after) in [4, 64].into_iter().zip(before).zip(disk()?) {
        println!(
            "  disk, a sync every {mebibytes} MiB: {:.1} MiB/s before, {:.1} after; ratio {:.2}",
            before / MIB,
            after / MIB,
            2.0 * copied / (before + after)
        );
    }
    println!("  loopback, one connection: {:.1} MiB/s; ratio {:.2}", loopback / MIB, copied / loopback);
    println!("  loopback to disk, a sync every 4 MiB: {:.1} MiB/s; ratio {:.2}", through / MIB, copied / through);
    println!(
        "  processors: {:.0} % busy meanwhile; the joiner took {:.0} % of one",
        100.0 * last.processors.busy_since(first.processors),
        100.0 * (last.own - first.own).as_secs_f64() / seconds
    );
    Ok(())
}

/// How far the joiner is, and what that has taken.
#[derive(Clone, Copy)]
struct Joiner {
    at: Instant,
    bytes: u64,
    processors: Processors,
    /// Its own processor time.
    own: Duration,
}

impl Joiner {
    /// `None`: it does not tell yet.
    fn now(node: &NodeLine) -> anyhow::Result<Option<Self>> {
        let Ok(bytes) = Ring::metric(node, "annulus_moved_bytes") else { return Ok(None) };
        let own = process::processor_time(&[node.pid.context("it has no process")?])?;
        Ok(Some(Self { at: Instant::now(), bytes, processors: Processors::now()?, own }))
    }
}

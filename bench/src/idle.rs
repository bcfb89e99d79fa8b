//! What a ring takes while nobody asks for anything: processor time, and bytes between peers.

use crate::load::{self, KeySpace};
use crate::process;
use crate::systems::Annulus;
use anyhow::{Context, ensure};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

/// RESP port of the first node.
const PORT: u16 = 17601;
/// Ports of the peer protocol are so much above.
const PEER_PORT_OFFSET: u16 = 2000;
const NODES: usize = 3;
const MIB: f64 = (1 << 20) as f64;

/// Arguments of `idle`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Keys.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Seconds of peace before anything is counted, for the engine to end its work.
    #[arg(long, default_value_t = 30.0)]
    settle: f64,
    /// Seconds counted.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Process ids of the nodes are written here once they are idle, for a profiler.
    #[arg(long)]
    pids: Option<std::path::PathBuf>,
}

/// Fills a ring of three, leaves it alone, and prints what it took meanwhile.
///
/// # Errors
/// When the ring does not start, or `ss` is missing.
pub async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let place = tempfile::tempdir().context("making a place for the data")?;
    let keys = KeySpace::new(arguments.keys, arguments.value_bytes);
    let directory = place.path().join("annulus");
    let annulus = Annulus { directory, nodes: NODES, port: PORT, r: 2, n: 3, name: "Annulus" };
    let system = annulus.start(&keys)?;
    load::fill(&system, &keys).await?;
    tokio::time::sleep(Duration::from_secs_f64(arguments.settle)).await;
    let pids = system.pids();
    if let Some(path) = &arguments.pids {
        let list: Vec<String> = pids.iter().map(u32::to_string).collect();
        std::fs::write(path, list.join(","))?;
    }
    let (time, sent) = (process::processor_time(&pids)?, sent_between_peers()?);
    tokio::time::sleep(Duration::from_secs_f64(arguments.seconds)).await;
    let time = process::processor_time(&pids)?.saturating_sub(time);
    let bytes: u64 = sent_between_peers()?
        .into_iter()
        .map(|(connection, now)| now.saturating_sub(sent.get(&connection).copied().unwrap_or(0)))
        .sum();
    let pairs = NODES * (NODES - 1) / 2;
    println!(
        "{NODES} nodes with {} keys of {} bytes each, idle for {} s:",
        arguments.keys, arguments.value_bytes, arguments.seconds
    );
    println!("  {:.2} % of a core, all nodes together", time.as_secs_f64() * 100.0 / arguments.seconds);
    println!(
        "  {:.2} KB/s between the two nodes of a pair, both ways together",
        bytes as f64 / 1000.0 / arguments.seconds / pairs as f64
    );
    println!("  {:.0} MiB resident, all nodes together", process::resident_bytes(&pids)? as f64 / MIB);
    Ok(())
}

/// Bytes sent so far on each connection of the peer protocol, by its two ends, as the kernel counts them.
fn sent_between_peers() -> anyhow::Result<BTreeMap<(String, String), u64>> {
    let output = Command::new("ss").args(["-tniHO", "state", "established"]).output().context("running ss")?;
    ensure!(output.status.success(), "ss: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(connection).collect())
}

fn connection(line: &str) -> Option<((String, String), u64)> {
    let mut fields = line.split_whitespace().skip(2);
    let (local, remote) = (fields.next()?, fields.next()?);
    let of_peer = |address: &str| {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let first = PORT + PEER_PORT_OFFSET;
        port.is_some_and(|port| (first..first + NODES as u16).contains(&port))
    };
    if !of_peer(local) && !of_peer(remote) {
        return None;
    }
    let sent =
        fields.find_map(|field| field.strip_prefix("bytes_sent:")).map_or(Some(0), |sent| sent.parse().ok())?;
    Some(((local.to_owned(), remote.to_owned()), sent))
}

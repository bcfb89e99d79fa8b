//! `annulus-node dev`: a ring of real nodes on this machine, each a process of its own, without Kubernetes.
//!
//! The supervisor does what the operator does on a cluster, with the same claim, moves and proof: it watches the nodes,
//! publishes rings, and starts and stops processes. Its wish and its last words are files in the directory, so that
//! `dev scale` and `dev status` are other processes.

mod files;
mod process;
mod report;
mod supervisor;

use anyhow::{Context, bail};
use clap::Subcommand;
use files::{Directory, Settings, Wish};
use std::path::PathBuf;

/// Flags of `dev`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum Command {
    /// Change the number of nodes of a running ring and watch the data move.
    Scale {
        /// How many nodes there shall be.
        nodes: usize,
        /// Replication factor n from now on; as before if absent.
        #[arg(long)]
        replication_factor: Option<u8>,
        /// Directory of the ring.
        #[arg(long)]
        dir: PathBuf,
        /// Return at once instead of when the data has moved.
        #[arg(long)]
        no_wait: bool,
    },
    /// Show the nodes of a running ring and what moves.
    Status {
        /// Directory of the ring.
        #[arg(long)]
        dir: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Flags of a ring that is run.
#[derive(clap::Args)]
struct Run {
    /// How many nodes. A directory that already has a ring keeps the number it was scaled to last, unless this is
    /// given.
    #[arg(long)]
    nodes: Option<usize>,
    /// RESP port of node 0; node i has this port + i, and + 1000, + 2000, + 3000 for gRPC, peers and HTTP.
    #[arg(long, default_value_t = 7001)]
    resp_port: u16,
    /// Directory for the data of all nodes; made if it is not there.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Replication factor n of a new ring; at most the number of nodes.
    #[arg(long, default_value_t = 3)]
    replication_factor: u8,
    /// Replicas a read asks; a majority if absent.
    #[arg(long)]
    read: Option<u8>,
    /// Replicas that must have a write; a majority if absent.
    #[arg(long)]
    write: Option<u8>,
    /// Number of partitions of a new ring, a power of two.
    #[arg(long, default_value_t = 1024)]
    partitions: u32,
    /// Most partitions that move at once.
    #[arg(long, default_value_t = 256)]
    parallel_moves: usize,
    /// Let FLUSHALL delete all keys.
    #[arg(long)]
    flush_allowed: bool,
    /// File of the users who may connect over RESP, in the format of a Redis ACL file; without it everyone may.
    #[arg(long)]
    acl_file: Option<PathBuf>,
}

/// Runs a ring, or speaks with one that runs.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Some(Command::Scale { nodes, replication_factor, dir, no_wait }) => {
            report::scale(&Directory::at(dir), nodes, replication_factor, no_wait).await
        }
        Some(Command::Status { dir, json }) => report::status(&Directory::at(dir), json),
        None => supervise(arguments.run).await,
    }
}

async fn supervise(run: Run) -> anyhow::Result<()> {
    let Some(dir) = run.dir else { bail!("say where the data goes: --dir DIR") };
    let directory = Directory::create(dir).context("making the directory")?;
    let _lock = directory.lock()?;
    let n = run.replication_factor;
    let majority = n / 2 + 1;
    let settings = Settings {
        cluster: uuid::Uuid::new_v4(),
        resp_port: run.resp_port,
        partitions: run.partitions,
        n,
        r: run.read.unwrap_or(majority),
        w: run.write.unwrap_or(majority),
        flush_allowed: run.flush_allowed,
        acl_file: run.acl_file.map(std::path::absolute).transpose()?,
    };
    let settings = directory.settings_or(settings)?;
    let kept = directory.wish();
    let n = kept.map_or(settings.n, |wish| wish.n);
    let nodes = run.nodes.or(kept.map(|wish| wish.nodes)).unwrap_or(usize::from(n));
    if nodes < usize::from(n) {
        bail!("{nodes} nodes cannot hold {n} replicas of each item; run at least {n} nodes");
    }
    directory.set_wish(Wish { nodes, n })?;
    supervisor::run(directory, settings, run.parallel_moves).await
}

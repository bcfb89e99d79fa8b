//! `kubectl annulus`: what a cluster's ring looks like, what moves, and what waits.
//!
//! Put on the PATH as `kubectl-annulus`, it is a kubectl plugin. It reads the resource and the ring document through the
//! API server, with the caller's own rights.

mod cluster;
mod explain;
mod show;

use clap::{Parser, Subcommand};
use cluster::Source;
use std::io::IsTerminal;
use std::time::Duration;

/// Shows Annulus clusters.
#[derive(Parser)]
#[command(name = "kubectl-annulus", bin_name = "kubectl annulus", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Namespace of the cluster; the context's if absent.
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// Show again every second, until interrupted.
    #[arg(short, long, global = true)]
    watch: bool,
}

#[derive(Subcommand)]
enum Command {
    /// How the cluster is, and what waits for what.
    Status {
        /// Name of the KeyValueCluster.
        name: String,
    },
    /// The members and how many partitions each owns and holds.
    Ring {
        /// Name of the KeyValueCluster.
        name: String,
    },
    /// Partitions that move now, from which members to which.
    Moves {
        /// Name of the KeyValueCluster.
        name: String,
    },
    /// What the cluster is doing and why: what is wanted, what is, what each step waits for, what happened lately.
    Explain {
        /// Name of the KeyValueCluster.
        name: String,
    },
    /// Where a key lives: its slot, partition, preference list and fallbacks.
    Where {
        /// Name of the KeyValueCluster.
        name: String,
        /// The key.
        key: String,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let source = Source::connect(arguments.namespace).await?;
    loop {
        let text = match &arguments.command {
            Command::Status { name } => show::status(&source.resource(name).await?),
            Command::Ring { name } => show::ring(&source.ring(name).await?),
            Command::Moves { name } => show::moves(&source.ring(name).await?),
            Command::Explain { name } => {
                let (resource, told) = (source.resource(name).await?, source.told(name).await?);
                // There may be none yet; that is among what is explained.
                explain::explain(&resource, source.ring(name).await.ok().as_ref(), &told)
            }
            Command::Where { name, key } => show::whereabouts(source.ring(name).await?, key)?,
        };
        // What was shown before is shown over, but only to people: a file is to have it all.
        let over = if arguments.watch && std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        println!("{over}{text}");
        if !arguments.watch {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

//! `annulus-node`: `serve` is one node of a ring, `dev` a whole ring of nodes on this machine.

use anyhow::Context;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

mod dev;
mod serve;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A node of an Annulus ring: a peer-to-peer, always-writable key-value store that speaks Redis.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve as one node. The operator starts nodes like this; by hand, `dev` is what you want.
    Serve(Box<serve::Arguments>),
    /// Run a ring of real nodes on loopback, without Kubernetes.
    Dev(dev::Arguments),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    // For the real faults in tests/, as for the simulation: nothing that is shipped has the feature.
    #[cfg(feature = "planted")]
    if let Ok(bug) = std::env::var("ANNULUS_PLANTED") {
        annulus_node::planted::plant(&bug);
    }
    let runtime = runtime().context("starting the runtime")?;
    match arguments.command {
        Command::Serve(arguments) => runtime.block_on(serve::run(*arguments)),
        Command::Dev(arguments) => runtime.block_on(dev::run(arguments)),
    }
}

/// As many threads as there are processors, or as `TOKIO_WORKER_THREADS` says. A single one needs no scheduler that moves
/// tasks between threads.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let told = std::env::var("TOKIO_WORKER_THREADS").ok().and_then(|told| told.parse().ok());
    let threads = told.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    if threads == 1 {
        return tokio::runtime::Builder::new_current_thread().enable_all().build();
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

//! `annulus-sim`: runs seeds, each in a process of its own, so that nothing of one run is left for the next.

use annulus_sim::world::{self, Outcome};
use clap::{Parser, Subcommand};
use rand::SeedableRng;
use rand::rngs::StdRng;

mod fleet;

/// Deterministic simulation of whole Annulus rings.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one seed in this process.
    One {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// Tells what happens.
        #[arg(long)]
        talk: bool,
        /// Puts in a bug. Needs the feature `planted`.
        #[arg(long)]
        planted: Option<String>,
    },
    /// Puts in each of the known bugs and tells how many seeds it takes to find it.
    Planted {
        /// Most seeds to try for each.
        #[arg(long, default_value_t = 400)]
        seeds: u64,
        /// Only bugs whose name contains this.
        #[arg(long, default_value = "")]
        only: String,
        /// How many at once.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Runs many seeds.
    Run {
        /// How many.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first of them.
        #[arg(long, default_value_t = 1)]
        first: u64,
        /// How many at once.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Runs seeds for some time.
    Soak {
        /// How long, in minutes.
        #[arg(long)]
        minutes: u64,
        /// The first of them.
        #[arg(long, default_value_t = 1_000_000)]
        first: u64,
        /// How many at once.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
}

fn main() {
    let outcome = match Arguments::parse().command {
        Command::One { seed, talk, planted } => plant(planted.as_deref()).and_then(|()| one(seed, talk)),
        Command::Planted { seeds, only, jobs } => fleet::planted(seeds, &only, jobs),
        Command::Run { seeds, first, jobs } => fleet::run(first, Some(seeds), None, jobs),
        Command::Soak { minutes, first, jobs } => fleet::run(first, None, Some(minutes * 60), jobs),
    };
    // Said here without a backtrace, which would only show this function.
    if let Err(error) = outcome {
        eprintln!("{error:#}");
        std::process::exit(1);
    }
}

#[cfg(feature = "planted")]
fn plant(bug: Option<&str>) -> anyhow::Result<()> {
    bug.into_iter().for_each(annulus_node::planted::plant);
    Ok(())
}

#[cfg(not(feature = "planted"))]
fn plant(bug: Option<&str>) -> anyhow::Result<()> {
    anyhow::ensure!(bug.is_none(), "bugs can only be put in by a program built with --features planted");
    Ok(())
}

/// Runs a seed and prints what came of it as one line.
fn one(seed: u64, talk: bool) -> anyhow::Result<()> {
    if let Ok(filter) = std::env::var("RUST_LOG") {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .without_time()
            .init();
    }
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    // A thread of its own: what its hash maps are keyed with is drawn anew, from the seed.
    let outcome = std::thread::Builder::new().name("world".to_owned()).stack_size(16 << 20).spawn(move || {
        let _clock = mad_turmoil::time::SimClocksGuard::init();
        world::run(seed, talk)
    })?;
    let outcome = outcome.join().map_err(|_| anyhow::anyhow!("seed {seed}: the run panicked"))?;
    print(seed, &outcome);
    if !outcome.findings.is_empty() {
        std::process::exit(1);
    }
    Ok(())
}

fn print(seed: u64, outcome: &Outcome) {
    let faults: u32 = outcome.faults.values().sum();
    println!(
        "seed={seed} trace={:016x} events={} simulated_ms={} operations={} acknowledged={} reads={} written={} epochs={} faults={faults} findings={}",
        outcome.trace,
        outcome.events,
        outcome.simulated.as_millis(),
        outcome.operations,
        outcome.acknowledged,
        outcome.reads,
        outcome.written,
        outcome.epochs,
        outcome.findings.len(),
    );
    for finding in &outcome.findings {
        println!("finding {}: {}", finding.checker, finding.what);
    }
}

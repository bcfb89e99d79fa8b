//! Benchmarks of Annulus, each beside its peer or its limit in one run.
//!
//! What is compared runs in turns, A B A B, on the same machine within the same minutes, so that a busy neighbour or a
//! throttled disk falls on both. Read the ratios; the absolute numbers are the machine's.

mod compare;
mod engine;
mod growth;
mod idle;
mod limits;
mod load;
mod meter;
mod moves;
mod process;
mod proto;
mod report;
mod systems;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The node's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
#[command(name = "annulus-bench", about, version)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// Durable puts through the committer, beside bare fjall with batches of the same size.
    Engine(engine::Arguments),
    /// Annulus beside Redis Cluster and etcd under the same loads.
    Compare(compare::Arguments),
    /// What bounds any store on this machine: flushes of the disk, and round trips by TCP and by gRPC.
    Limits(limits::Arguments),
    /// The cost of an operation on 3, 6 and 12 nodes, and of one node with more and more keys.
    Growth(growth::Arguments),
    /// Processor time and bytes between peers of a ring that nobody uses.
    Idle(idle::Arguments),
    /// Changes of a ring under load: what is moved beside the least possible, how fast, and what clients notice.
    Moves(moves::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().benchmark) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a backtrace, behind which the end of a log would not show it.
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(benchmark: Benchmark) -> anyhow::Result<()> {
    match benchmark {
        Benchmark::Engine(arguments) => engine::run(&arguments),
        Benchmark::Moves(arguments) => moves::run(&arguments),
        Benchmark::Limits(arguments) => limits::run(&arguments),
        Benchmark::Growth(arguments) => runtime()?.block_on(growth::run(&arguments)),
        Benchmark::Idle(arguments) => runtime()?.block_on(idle::run(&arguments)),
        Benchmark::Compare(arguments) => runtime()?.block_on(compare::run(&arguments)),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

//! Real nodes, each with a network and a disk of its own, which are broken while clients write and read. Nothing that was
//! acknowledged may be lost, and nothing invented.

mod cluster;
mod load;
mod plain;
mod process;
mod sandbox;
mod scenarios;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use cluster::{Cluster, Site};
use scenarios::{Found, Scenario};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
#[command(name = "annulus-faults", about, version)]
struct Arguments {
    /// Scenarios to run; all if absent.
    names: Vec<String>,
    /// Only those of the short set.
    #[arg(long)]
    short: bool,
    /// Say what there is, and run nothing.
    #[arg(long)]
    list: bool,
    /// The node's program; the one beside this if absent.
    #[arg(long)]
    node: Option<PathBuf>,
    /// A bug to put into the nodes, which must be found: their program is one built with the feature `planted`.
    #[arg(long, value_name = "BUG")]
    planted: Option<String>,
    /// Append to this file until killed: the plain program of `power-loss-plain`.
    #[arg(long, hide = true)]
    append: Option<PathBuf>,
}

fn main() -> ExitCode {
    match start(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a backtrace, behind which the end of a log would not show it.
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> anyhow::Result<()> {
    if let Some(file) = &arguments.append {
        return plain::append(file);
    }
    let chosen = chosen(&arguments)?;
    if arguments.list {
        chosen.iter().for_each(|scenario| println!("{:<18} {}", scenario.name, scenario.about));
        return Ok(());
    }
    sandbox::enter()?;
    let beside = || Ok::<_, std::io::Error>(std::env::current_exe()?.with_file_name("annulus-node"));
    let program = arguments.node.clone().map_or_else(beside, Ok)?;
    ensure!(program.exists(), "{} is missing; build it: cargo build -p annulus-node", program.display());
    println!(
        "| scenario | seconds | requests | acknowledged keys | lost | invented | stale reads | failed | longest ms | |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---|");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut wrong = Vec::new();
    let mut site = Site { program, planted: arguments.planted, nets: Vec::new() };
    for scenario in &chosen {
        let begun = Instant::now();
        match runtime.block_on(run(scenario, &mut site)) {
            Ok(found) => {
                print(scenario, &found, begun.elapsed().as_secs_f64());
                let outcome = found.outcome;
                let stale = outcome.stale > 0 && !scenario.stale_reads;
                if outcome.lost > 0 || outcome.invented > 0 || stale || outcome.acknowledged == 0 {
                    wrong.push(scenario.name);
                }
            }
            Err(error) => {
                println!(
                    "| {} | {:.0} | | | | | | | | **{error:#}** |",
                    scenario.name,
                    begun.elapsed().as_secs_f64()
                );
                wrong.push(scenario.name);
            }
        }
    }
    match &site.planted {
        Some(bug) => ensure!(wrong.len() == chosen.len(), "the bug {bug} was not found"),
        None => ensure!(wrong.is_empty(), "not as it should be: {}", wrong.join(", ")),
    }
    Ok(())
}

fn chosen(arguments: &Arguments) -> anyhow::Result<Vec<Scenario>> {
    let mut all = scenarios::all();
    let unknown = arguments.names.iter().find(|name| all.iter().all(|scenario| scenario.name != **name));
    if let Some(unknown) = unknown {
        bail!("there is no scenario {unknown:?}; --list names them");
    }
    all.retain(|scenario| arguments.names.is_empty() || arguments.names.iter().any(|name| name == scenario.name));
    all.retain(|scenario| !arguments.short || scenario.short);
    Ok(all)
}

async fn run(scenario: &Scenario, site: &mut Site) -> anyhow::Result<Found> {
    let place = tempfile::tempdir().context("making a place for disks")?;
    site.prepare(scenario.nodes)?;
    let mut cluster = Cluster::start(site, place.path(), scenario.nodes).await?;
    let found = (scenario.run)(&mut cluster).await;
    if found.is_err() {
        for ordinal in 0..scenario.nodes {
            eprintln!("node-{ordinal}'s log ends with\n{}", cluster.log(ordinal));
        }
    }
    found
}

fn print(scenario: &Scenario, found: &Found, seconds: f64) {
    let outcome = found.outcome;
    println!(
        "| {} | {seconds:.0} | {} | {} | {} | {} | {} | {} | {:.0} | {} |",
        scenario.name,
        outcome.requests,
        outcome.acknowledged,
        outcome.lost,
        outcome.invented,
        outcome.stale,
        outcome.failed,
        outcome.longest_ms,
        found.note
    );
}

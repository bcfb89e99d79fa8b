//! Many runs, each a process, some at once.

use annulus_sim::planted::{BUGS, Bug};
use anyhow::Context;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Runs seeds from `first` on: as many as asked for, or until time is up. Fails if any run finds something.
pub fn run(first: u64, seeds: Option<u64>, seconds: Option<u64>, jobs: usize) -> anyhow::Result<()> {
    let began = uptime()?;
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let late =
                        seconds.is_some_and(|limit| uptime().map_or(true, |now| now - began > limit as f64));
                    if late || seeds.is_some_and(|seeds| seed >= first + seeds) {
                        return;
                    }
                    match run_one(seed, None) {
                        Ok(run) => lock(&totals).add(seed, run),
                        Err(error) => {
                            eprintln!("seed {seed} could not be run: {error:#}");
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let totals = lock(&totals);
    let took = uptime()? - began;
    println!(
        "{} seeds in {took:.1} s, {:.2} seeds/s; {:.0} s simulated; {}",
        totals.seeds,
        totals.seeds as f64 / took.max(0.01),
        totals.sum("simulated_ms") as f64 / 1000.0,
        ["operations", "acknowledged", "reads", "written", "epochs", "faults", "events"]
            .map(|name| format!("{} {name}", totals.sum(name)))
            .join(", ")
    );
    anyhow::ensure!(!stop.load(Ordering::Relaxed), "a run could not be carried out");
    anyhow::ensure!(
        totals.failed.is_empty(),
        "{} seeds failed: {:?}; replay one with: make sim SEED={}",
        totals.failed.len(),
        totals.failed,
        totals.failed[0]
    );
    Ok(())
}

/// Puts in one bug after the other and runs seeds until it is found. Fails if one is not found within `seeds`.
pub fn planted(seeds: u64, only: &str, jobs: usize) -> anyhow::Result<()> {
    let bugs: Vec<Bug> = BUGS.iter().copied().filter(|bug| bug.name.contains(only)).collect();
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    println!("{:<30} {:<46} {:>5}  checker", "bug", "promise broken", "seeds");
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = (1..=seeds).find_map(|seed| match run_one(seed, Some(bug.name)) {
                        Ok(run) => Some((seed, run.findings.first()?.0.clone())),
                        Err(error) => Some((seed, format!("could not be run: {error:#}"))),
                    });
                    let (took, checker) = match found {
                        Some((seed, checker)) => (seed.to_string(), checker),
                        None => {
                            missed.lock().unwrap_or_else(PoisonError::into_inner).push(bug.name);
                            (String::from("-"), format!("not found in {seeds} seeds"))
                        }
                    };
                    println!("{:<30} {:<46} {took:>5}  {checker}", bug.name, bug.promise);
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap_or_else(PoisonError::into_inner);
    anyhow::ensure!(missed.is_empty(), "not found: {}", missed.join(", "));
    Ok(())
}

/// What one process said.
struct Run {
    /// Figures by name.
    figures: BTreeMap<String, String>,
    /// (checker, what it found).
    findings: Vec<(String, String)>,
}

/// Runs one seed in a process of its own.
fn run_one(seed: u64, bug: Option<&str>) -> anyhow::Result<Run> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    command.args(["one", "--seed", &seed.to_string()]);
    if let Some(bug) = bug {
        command.args(["--planted", bug]);
    }
    let output = command.output().context("starting")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let figures: BTreeMap<String, String> = first
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    anyhow::ensure!(
        figures.contains_key("trace"),
        "it ended with {} and said: {text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let findings = lines
        .filter_map(|line| line.strip_prefix("finding ")?.split_once(": "))
        .map(|(checker, what)| (checker.to_owned(), what.to_owned()))
        .collect();
    Ok(Run { figures, findings })
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    sums: BTreeMap<String, u64>,
    failed: Vec<u64>,
}

impl Totals {
    fn add(&mut self, seed: u64, run: Run) {
        self.seeds += 1;
        for (name, value) in &run.figures {
            *self.sums.entry(name.clone()).or_default() += value.parse::<u64>().unwrap_or(0);
        }
        if !run.findings.is_empty() {
            self.failed.push(seed);
        }
        for (checker, what) in &run.findings {
            println!("seed {seed}: {checker}: {what}");
        }
    }

    fn sum(&self, name: &str) -> u64 {
        self.sums.get(name).copied().unwrap_or(0)
    }
}

fn lock(totals: &Mutex<Totals>) -> MutexGuard<'_, Totals> {
    totals.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since the machine was started. The clocks that the standard library reads are simulated in this program.
fn uptime() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/uptime").context("reading /proc/uptime")?;
    let seconds = text.split_whitespace().next().context("/proc/uptime is empty")?;
    seconds.parse().context("/proc/uptime is no number")
}

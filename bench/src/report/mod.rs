//! What is printed and drawn.

mod chart;

pub use chart::chart;

use crate::load::{Mix, Outcome, Workload};

/// One system under one load.
pub struct Row {
    /// The system.
    pub system: &'static str,
    /// The load.
    pub load: Workload,
    /// What came of it.
    pub outcome: Outcome,
}

/// What is wanted of a ratio.
struct Goal {
    mix: Mix,
    pipelined: bool,
    annulus: &'static str,
    other: &'static str,
    least: f64,
}

const GOALS: [Goal; 10] = [
    goal(Mix::Put, false, "Annulus", "Redis Cluster", 2.0),
    goal(Mix::Put, false, "Annulus", "etcd", 8.0),
    goal(Mix::Half, false, "Annulus", "Redis Cluster", 2.0),
    goal(Mix::Half, false, "Annulus", "etcd", 0.0),
    goal(Mix::Get, false, "Annulus", "Redis Cluster", 0.7),
    goal(Mix::Get, false, "Annulus", "etcd", 8.0),
    goal(Mix::Get, false, "Annulus, r = 1", "Redis Cluster", 1.0),
    goal(Mix::Put, true, "Annulus", "Redis Cluster", 1.5),
    goal(Mix::Get, true, "Annulus", "Redis Cluster", 0.7),
    goal(Mix::Get, true, "Annulus, r = 1", "Redis Cluster", 0.0),
];

const fn goal(mix: Mix, pipelined: bool, annulus: &'static str, other: &'static str, least: f64) -> Goal {
    Goal { mix, pipelined, annulus, other, least }
}

/// Says what is measured on what.
///
/// # Errors
/// When the number of processors cannot be told.
pub fn machine(clients: usize, keys: usize, value_bytes: usize) -> anyhow::Result<()> {
    let processors = std::thread::available_parallelism()?;
    println!(
        "{clients} clients in a closed loop, {keys} keys, values of {value_bytes} bytes, {processors} processors for \
         servers and driver together"
    );
    Ok(())
}

/// Says that a load is done.
pub fn progress(system: &str, load: Workload, outcome: &Outcome) {
    eprintln!("{system:<26} {:<16} {:>9.0} ops/s", load.name(), outcome.rate());
}

/// Prints every figure, as Markdown.
pub fn table(rows: &[Row]) {
    println!();
    println!(
        "| load | system | ops/s | p50 ms | p99 ms | p99.9 ms | errors | server CPU µs/op | driver CPU µs/op | servers' memory MB |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for Row { system, load, outcome } in rows {
        let latency = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1000.0;
        println!(
            "| {} | {system} | {:.0} | {:.2} | {:.2} | {:.2} | {} | {:.1} | {:.1} | {} |",
            load.name(),
            outcome.rate(),
            latency(0.5),
            latency(0.99),
            latency(0.999),
            outcome.errors,
            outcome.server_micros(),
            outcome.driver_micros(),
            outcome.resident_bytes >> 20,
        );
        if let Some(error) = &outcome.first_error {
            eprintln!("{system}, {}: {error}", load.name());
        }
    }
}

/// Prints how Annulus compares, as Markdown. A ratio above 1 means that Annulus does better, except in the last
/// columns, where less is better.
pub fn ratios(rows: &[Row]) {
    println!();
    println!("| load | | beside | ops/s ratio | goal | p99 ratio | server CPU/op ratio |");
    println!("|---|---|---|---:|---:|---:|---:|");
    for row in rows.iter().filter(|row| row.system.starts_with("Annulus")) {
        for other in rows.iter().filter(|other| other.load == row.load && !other.system.starts_with("Annulus")) {
            let goal = GOALS.iter().find(|goal| {
                goal.mix == row.load.mix
                    && goal.pipelined == (row.load.pipelined > 1)
                    && goal.annulus == row.system
                    && goal.other == other.system
            });
            let ratio = row.outcome.rate() / other.outcome.rate();
            let goal = match goal.map(|goal| goal.least).filter(|&least| least > 0.0) {
                Some(least) if ratio >= least => format!("≥ {least:.1}, met"),
                Some(least) => format!("≥ {least:.1}, **not met**"),
                None => String::new(),
            };
            let p99 = |row: &Row| row.outcome.latency.value_at_quantile(0.99) as f64;
            println!(
                "| {} | {} | {} | {ratio:.2} | {goal} | {:.2} | {:.2} |",
                row.load.name(),
                row.system,
                other.system,
                p99(row) / p99(other),
                row.outcome.server_micros() / other.outcome.server_micros(),
            );
        }
    }
}

/// Prints puts beside what the bare engine does with as many to a flush of the disk: a third of that, since three copies
/// are written on one machine.
///
/// # Errors
/// When the bare engine cannot be measured.
pub fn limits(rows: &[Row], bare: impl Fn(usize) -> anyhow::Result<f64>) -> anyhow::Result<()> {
    let told = |row: &&Row| row.load.mix == Mix::Put && row.outcome.commits.commits > 0;
    let rows: Vec<&Row> = rows.iter().filter(told).collect();
    if rows.is_empty() {
        return Ok(());
    }
    println!();
    println!(
        "| load | writes to a flush | flushes/s of all nodes | bare engine, puts/s | a third of it | Annulus, puts/s | ratio | goal |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---|");
    for Row { load, outcome, .. } in rows {
        let batch = outcome.commits.changes_each();
        let bare = bare(batch.round().max(1.0) as usize)?;
        let ratio = outcome.rate() / (bare / 3.0);
        println!(
            "| {} | {batch:.1} | {:.0} | {bare:.0} | {:.0} | {:.0} | {ratio:.2} | ≥ 0.5, {} |",
            load.name(),
            outcome.commits.commits as f64 / outcome.seconds,
            bare / 3.0,
            outcome.rate(),
            if ratio >= 0.5 { "met" } else { "**not met**" },
        );
    }
    Ok(())
}

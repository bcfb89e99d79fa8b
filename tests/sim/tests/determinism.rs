//! A seed is a run: the same seed gives the same run, bit for bit, and another seed another.

#![allow(clippy::unwrap_used, reason = "tests may panic, in functions that tests share too")]

use std::collections::BTreeSet;
use std::process::Command;

/// The line of figures that a run prints, trace hash included.
fn run(seed: u64) -> String {
    let program = env!("CARGO_BIN_EXE_annulus-sim");
    let output = Command::new(program).args(["one", "--seed", &seed.to_string()]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().next().unwrap_or_default().to_owned();
    assert!(line.contains("trace="), "seed {seed} ended with {}: {}", output.status, text);
    line
}

#[test]
fn twenty_seeds_replay_bit_for_bit() {
    let seeds = 1..=20;
    let lines: Vec<String> = seeds.clone().map(run).collect();
    for (seed, first) in seeds.zip(&lines) {
        assert_eq!(run(seed), *first);
    }
    let traces: BTreeSet<&str> = lines.iter().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(traces.len(), lines.len(), "different seeds are different runs");
}

//! A program that does nothing but append to a file and sync it, and says how much is durable: what it has lost after a
//! power failure was lost by the sandbox, or by the file system, and by no node.

use anyhow::Context;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

const RECORD_BYTES: usize = 1000;
/// A sync makes up to so many records durable.
const RECORDS_MAX: u64 = 20;

fn record(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(RECORD_BYTES / 8)
}

/// How many records a file has from its beginning on. What comes behind is not one.
///
/// # Errors
/// When the file cannot be read.
pub fn records(path: &Path) -> anyhow::Result<u64> {
    let bytes = if path.exists() { std::fs::read(path)? } else { Vec::new() };
    let good = bytes.chunks(RECORD_BYTES).zip(0..).take_while(|(bytes, number)| **bytes == record(*number));
    Ok(good.count() as u64)
}

/// Goes on where the file ends, and prints after each sync how many records there are, until it is killed.
///
/// # Errors
/// When the disk fails.
pub fn append(path: &Path) -> anyhow::Result<()> {
    let mut number = records(path)?;
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.set_len(number * RECORD_BYTES as u64)?;
    loop {
        let next = number + 1 + number % RECORDS_MAX;
        file.write_all(&(number..next).flat_map(record).collect::<Vec<u8>>())?;
        file.sync_data()?;
        number = next;
        writeln!(std::io::stdout(), "{number}")?;
    }
}

/// The last that a program which appended has said, once it has ended: how many records are durable, of how many syncs.
///
/// # Errors
/// When it said something else.
pub fn said(output: impl Read) -> anyhow::Result<(u64, u64)> {
    let (mut durable, mut syncs) = (0, 0);
    for line in BufReader::new(output).lines() {
        let line = line?;
        durable = line.parse().with_context(|| format!("{line:?} is no number of records"))?;
        syncs += 1;
    }
    Ok((durable, syncs))
}

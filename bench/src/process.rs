//! What processes have taken so far, as Linux counts it.

use anyhow::Context;
use std::time::Duration;

/// Linux counts processor time in hundredths of a second here, whatever the machine.
const TICK: Duration = Duration::from_millis(10);

/// Processor time of all threads of these processes, user and system.
///
/// # Errors
/// When one of them is gone.
pub fn processor_time(pids: &[u32]) -> anyhow::Result<Duration> {
    pids.iter().map(|pid| of_process(&pid.to_string())).sum()
}

/// Processor time of all threads of this process, user and system.
///
/// # Errors
/// When `/proc` is not as expected.
pub fn own_processor_time() -> anyhow::Result<Duration> {
    of_process("self")
}

/// Bytes of memory that these processes have resident.
///
/// # Errors
/// When one of them is gone.
pub fn resident_bytes(pids: &[u32]) -> anyhow::Result<u64> {
    let of_one = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("reading resident memory")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes = line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
        Ok(kilobytes.context("no number in VmRSS")? << 10)
    };
    pids.iter().map(of_one).sum()
}

fn of_process(pid: &str) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("reading processor time of process {pid}"))?;
    // The command's name comes first and may hold anything; the fields are counted behind it.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).context("reading processor time")?;
    let ticks = |at: usize| fields.split_whitespace().nth(at).and_then(|field| field.parse::<u32>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("reading processor time")?;
    Ok(TICK * (user + system))
}

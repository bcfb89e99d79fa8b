//! Time and processor time that a stretch of work takes.

use anyhow::Context;
use std::time::{Duration, Instant};

/// Linux counts processor time in hundredths of a second here, whatever the machine.
const TICK: Duration = Duration::from_millis(10);

/// Started before the work, read after it.
pub struct Meter {
    started: Instant,
    processor: Duration,
}

/// What the work took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Seconds by the clock.
    pub seconds: f64,
    /// Seconds of processor time of all threads of this process, user and system.
    pub processor_seconds: f64,
}

impl Meter {
    /// Starts measuring.
    pub fn start() -> anyhow::Result<Self> {
        Ok(Self { started: Instant::now(), processor: processor_time()? })
    }

    /// Measures what was done since the start.
    pub fn read(&self) -> anyhow::Result<Taken> {
        let processor_seconds = processor_time()?.saturating_sub(self.processor).as_secs_f64();
        Ok(Taken { seconds: self.started.elapsed().as_secs_f64(), processor_seconds })
    }
}

fn processor_time() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("reading processor time")?;
    // The command's name comes first and may hold anything; the fields are counted behind it.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).context("reading processor time")?;
    let ticks = |at: usize| fields.split_whitespace().nth(at).and_then(|field| field.parse::<u32>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("reading processor time")?;
    Ok(TICK * (user + system))
}

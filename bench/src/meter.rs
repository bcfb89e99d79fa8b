//! Time and processor time that a stretch of work takes.

use crate::process::own_processor_time;
use std::time::{Duration, Instant};

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
        Ok(Self { started: Instant::now(), processor: own_processor_time()? })
    }

    /// Measures what was done since the start.
    pub fn read(&self) -> anyhow::Result<Taken> {
        let processor_seconds = own_processor_time()?.saturating_sub(self.processor).as_secs_f64();
        Ok(Taken { seconds: self.started.elapsed().as_secs_f64(), processor_seconds })
    }
}

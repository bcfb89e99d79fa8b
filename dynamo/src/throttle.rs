//! How fast partitions may be copied while clients are served: additive increase, multiplicative decrease (Chiu and Jain,
//! 1989), with the delay that clients notice as the sign of congestion (as in LEDBAT, RFC 6817).
//!
//! Each node watches how long its clients' requests take, in windows of a fraction of a second, and compares with what
//! is usual while nothing is copied. Whoever copies goes by the worse of its own pressure and its sources'.

use std::time::Duration;

/// Latency while copying ÷ latency while not, up to which copying does not hold back.
pub const PRESSURE_MAX: f64 = 1.5;
/// Windows with fewer requests say nothing.
pub const SAMPLES_MIN: u64 = 32;
/// Part of the difference that a window moves what is usual by.
const LEARN: f64 = 1.0 / 8.0;
/// Latencies below this one are not worth holding back for, in seconds.
const UNNOTICED: f64 = 0.001;

/// How much clients of one node feel: the tail of their latency beside what it is while nothing is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    usual: Option<f64>,
    now: f64,
}

impl Pressure {
    /// Takes a window into account: the 99th percentile of its requests, how many they were, and whether partitions
    /// were copied to or from the node meanwhile.
    pub fn window(&mut self, p99: Duration, samples: u64, copying: bool) {
        if samples < SAMPLES_MIN {
            self.now = 0.0;
            return;
        }
        let p99 = p99.as_secs_f64().max(UNNOTICED);
        match &mut self.usual {
            Some(usual) if !copying => *usual += LEARN * (p99 - *usual),
            // What was never seen without copying cannot be compared; it gets less from here, if copying is why.
            None => self.usual = Some(p99),
            Some(usual) => *usual = usual.min(p99),
        }
        self.now = self.usual.map_or(0.0, |usual| p99 / usual);
    }

    /// 1: as ever; 2: twice as slow; 0: nobody is there to notice.
    #[must_use]
    pub fn get(&self) -> f64 {
        self.now
    }
}

/// The rate at which a node copies, in bytes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    rate: f64,
    least: f64,
    most: f64,
}

/// Rate that a node begins with, in bytes a second.
const FIRST: f64 = (8 << 20) as f64;
/// Each window without pressure adds this much.
const ADDED: f64 = (2 << 20) as f64;
/// Each window without clients multiplies by this: the first window of a client finds the rate back soon enough.
const NOBODY: f64 = 4.0;
/// Each window with pressure leaves this part.
const LEFT: f64 = 0.6;
/// However much clients feel, copying goes on at this rate: a move that never ends protects nobody.
const LEAST: f64 = (1 << 20) as f64;
/// No disk or network that this is for is faster.
const MOST: f64 = (4_u64 << 30) as f64;

impl Throttle {
    /// Never faster than `bytes_per_second_max`, if that is given.
    #[must_use]
    pub fn new(bytes_per_second_max: Option<u64>) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        let most = bytes_per_second_max.filter(|&most| most > 0).map_or(MOST, |most| (most as f64).min(MOST));
        Self { rate: FIRST.min(most), least: LEAST.min(most), most }
    }

    /// A window is over; `pressure` is the highest of those concerned.
    pub fn adjust(&mut self, pressure: f64) {
        let rate = match pressure {
            pressure if pressure > PRESSURE_MAX => self.rate * LEFT,
            0.0 => self.rate * NOBODY,
            _ => self.rate + ADDED,
        };
        self.rate = rate.clamp(self.least, self.most);
    }

    /// The rate in bytes a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// How long this many bytes take at the rate.
    #[must_use]
    pub fn time_for(&self, bytes: u64) -> Duration {
        #[allow(clippy::cast_precision_loss, reason = "pages are small")]
        Duration::from_secs_f64(bytes as f64 / self.rate)
    }
}

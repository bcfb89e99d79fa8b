//! How fast partitions may be copied while clients are served: a small part more in each window, a large part less once it
//! is felt (multiplicative increase and decrease: Chiu and Jain, 1989), with the delay that clients notice as the sign of congestion (as in LEDBAT, RFC 6817).
//!
//! Each node watches how long its clients' requests take, and those that peers send it for their clients, in windows of a
//! fraction of a second, and compares the [tail] of the last seconds with what is usual while nothing is copied. Whoever
//! copies goes by its own pressure and its sources' [together]: what one of many finds is half chance. While nobody asks them
//! there is nothing to hold back for; the rate that clients are known to bear is kept for when they come.
//!
//! [tail]: crate::tail

mod pressure;

use std::time::Duration;

pub use pressure::{Pressure, together};

/// Latency while copying ÷ what is usual while not, from which on copying is slowed down: less than the half more that clients
/// are to feel at most, for it is noticed a second or two later, and they feel the other things that a move takes besides.
pub const PRESSURE_MAX: f64 = 1.3;
/// And from which on it is not sped up any more.
const PRESSURE_ENOUGH: f64 = 1.15;
/// Fewer requests have no 99th percentile to speak of.
pub const SAMPLES_MIN: u64 = 32;

/// The rate at which a node copies, in bytes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    /// For as long as clients are there.
    rate: f64,
    least: f64,
    most: f64,
    /// Nobody is there to notice.
    alone: bool,
}

/// Rate that a node begins with beside clients, in bytes a second. Many nodes may begin at once, on one machine even.
pub const FIRST: f64 = (512 << 10) as f64;
/// Each window without pressure adds this part of the rate: it doubles in six seconds, so little of that comes about in the
/// two that it takes until clients are seen to feel it.
const ADDED: f64 = 1.0 / 32.0;
/// Each window with pressure leaves this part: as much as is felt for some windows after it was done away with.
const LEFT: f64 = 0.9;
/// However much clients feel, copying goes on at this rate: a move that never ends protects nobody. So many nodes may be at it
/// on one machine that more would be felt.
const LEAST: f64 = (128 << 10) as f64;
/// What a call is taken for besides the bytes that it brings: what it costs both ends, flushes above all. With little in each
/// partition, calls are all that clients feel of a move.
pub const CALL_BYTES: u64 = 4 << 10;
/// What is copied at this rate, in bytes a second, is not what clients feel.
pub const LITTLE: f64 = 2.0 * LEAST;
/// No disk or network that this is for is faster.
const MOST: f64 = (4_u64 << 30) as f64;

impl Throttle {
    /// Never faster than `bytes_per_second_max`, if that is given. `alone`: whether nobody is there to notice.
    #[must_use]
    pub fn new(bytes_per_second_max: Option<u64>, alone: bool) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        let most = bytes_per_second_max.filter(|&most| most > 0).map_or(MOST, |most| (most as f64).min(MOST));
        Self { rate: FIRST.min(most), least: LEAST.min(most), most, alone }
    }

    /// A window is over; `pressure` is that of those concerned [together].
    pub fn adjust(&mut self, pressure: f64) {
        self.alone = pressure <= 0.0;
        let rate = match pressure {
            pressure if pressure > PRESSURE_MAX => self.rate * LEFT,
            pressure if pressure > PRESSURE_ENOUGH || self.alone => self.rate,
            _ => self.rate * (1.0 + ADDED),
        };
        self.rate = rate.clamp(self.least, self.most);
    }

    /// A client has come: it is not made to wait until the window is over.
    pub fn heed(&mut self) {
        self.alone = false;
    }

    /// Whether nobody is there to notice.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// The rate in bytes a second: what was found to be borne, or as fast as it goes while nobody is there.
    #[must_use]
    pub fn rate(&self) -> f64 {
        if self.alone { self.most } else { self.rate }
    }

    /// How long this many bytes take at the rate.
    #[must_use]
    pub fn time_for(&self, bytes: u64) -> Duration {
        #[allow(clippy::cast_precision_loss, reason = "pages are small")]
        Duration::from_secs_f64(bytes as f64 / self.rate())
    }
}

/// Part of a move that may be on its way at once. A node that dies meanwhile is sent no more than that again.
const UNDER_WAY_PART: u64 = 128;
/// The same where only a host that loses power is sent it again.
const SPOOLED_PART: u64 = 8;
const UNDER_WAY_MAX: u64 = 32 << 20;

/// How many bytes may be asked for and not yet be durable, of about so many that are to be copied to a node; `least`,
/// however few those are. `spooled`: a process that is killed leaves them to the next one.
#[must_use]
pub fn under_way_max(move_bytes: u64, least: u64, spooled: bool) -> u64 {
    let part = if spooled { SPOOLED_PART } else { UNDER_WAY_PART };
    (move_bytes / part).max(least).clamp(1, UNDER_WAY_MAX)
}

//! Hedged requests (Dean and Barroso, "The Tail at Scale", 2013): when a replica takes longer than it usually does,
//! another one is asked as well, and whoever answers first counts. What that may cost is bounded by a budget.

use std::time::Duration;

/// A quantile of durations, learned as they come, in constant space: each sample moves the estimate a little up or
/// down, by steps that balance exactly at the quantile (Robbins and Monro, 1951; the steps go with the estimate, so that
/// it finds its order of magnitude soon and stays in proportion).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    quantile: f64,
    micros: f64,
}

/// Part of the estimate that a sample moves it by, at most.
const STEP: f64 = 1.0 / 16.0;

impl Quantile {
    /// An estimate to begin with. `quantile` is between 0 and 1, such as 0.95.
    #[must_use]
    pub fn new(quantile: f64, first: Duration) -> Self {
        Self { quantile: quantile.clamp(0.0, 1.0), micros: micros(first).max(1.0) }
    }

    /// Takes a sample into account.
    pub fn add(&mut self, sample: Duration) {
        let up = micros(sample) > self.micros;
        let step = if up { self.quantile } else { self.quantile - 1.0 };
        self.micros = (self.micros * (1.0 + STEP * step)).max(1.0);
    }

    /// The estimate.
    #[must_use]
    pub fn get(&self) -> Duration {
        Duration::from_secs_f64(self.micros / 1e6)
    }
}

/// What may be asked beyond what has to be: a token bucket that each request adds a part of a token to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    part: f64,
    tokens: f64,
    tokens_max: f64,
}

impl Budget {
    /// A budget of `part` further requests for each request, of which up to `tokens_max` can be saved up. It begins
    /// full, so that a member which has just begun can hedge too.
    #[must_use]
    pub fn new(part: f64, tokens_max: f64) -> Self {
        Self { part, tokens: tokens_max, tokens_max }
    }

    /// A request was made that had to be.
    pub fn earn(&mut self) {
        self.tokens = (self.tokens + self.part).min(self.tokens_max);
    }

    /// Whether a further request may be made; if so, it is counted.
    pub fn spend(&mut self) -> bool {
        let may = self.tokens >= 1.0;
        if may {
            self.tokens -= 1.0;
        }
        may
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

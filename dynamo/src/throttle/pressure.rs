//! How much clients feel of copying: the tail of their latency beside what it is while nothing is copied.

use super::SAMPLES_MIN;
use std::time::Duration;

/// Latencies below this one are not worth holding back for, in seconds.
const UNNOTICED: f64 = 0.001;
/// How many windows without copying tell what is usual: with four in a second the last minute. Half of them have to be
/// slow for that to be usual: pods that start, which every scale out begins with, take some ten seconds.
const LATELY: usize = 256;
/// Part of the difference that a quicker window moves what is usual by while something is copied. Only quicker ones count
/// then, so it has to be little: else what is usual would soon be the best that ever was.
const LEARN_COPYING: f64 = 1.0 / 256.0;

/// How much those who ask one node feel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pressure {
    usual: Option<f64>,
    /// Windows that `usual` was learned from.
    windows: u32,
    /// What was felt in the last windows without copying.
    lately: Lately,
    now: f64,
}

impl Pressure {
    /// Takes a window into account: the 99th percentile of its requests, how many they were, and whether more than
    /// [`LITTLE`](super::LITTLE) was copied to or from the node meanwhile. So where clients feel something that copying is not the
    /// cause of, it is usual after a while: copying slows down, and what they still feel is none of it.
    pub fn window(&mut self, p99: Duration, samples: u64, copying: bool) {
        if samples < SAMPLES_MIN {
            // Whoever is there may feel anything, but there is no sign of it.
            self.now = if samples == 0 { 0.0 } else { 1.0 };
            return;
        }
        let p99 = p99.as_secs_f64().max(UNNOTICED);
        self.windows = self.windows.saturating_add(1);
        let usual = match self.usual {
            _ if !copying => self.lately.median_with(p99),
            // What was never seen without copying cannot be compared; it gets less from here, if copying is why.
            None => p99,
            Some(usual) => {
                let part = LEARN_COPYING.max(1.0 / f64::from(self.windows));
                usual + part * (p99 - usual).min(0.0)
            }
        };
        self.usual = Some(usual);
        self.now = p99 / usual;
    }

    /// 1: as ever; 2: twice as slow; 0: nobody is there to notice.
    #[must_use]
    pub fn get(&self) -> f64 {
        self.now
    }
}

/// The last values of many.
#[derive(Clone, Debug, Default, PartialEq)]
struct Lately {
    values: Vec<f64>,
    /// Where the next one goes.
    next: usize,
}

impl Lately {
    /// Adds a value; the median of those of late.
    fn median_with(&mut self, value: f64) -> f64 {
        match self.values.get_mut(self.next) {
            Some(oldest) => *oldest = value,
            None => self.values.push(value),
        }
        self.next = (self.next + 1) % LATELY;
        let mut sorted = self.values.clone();
        let middle = sorted.len() / 2;
        *sorted.select_nth_unstable_by(middle, f64::total_cmp).1
    }
}

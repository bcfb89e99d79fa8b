//! How much clients feel of copying: the tail of their latency beside what it is while nothing is copied.

use super::{PRESSURE_MAX, SAMPLES_MIN};
use std::time::Duration;

/// Latencies below this one are not worth holding back for, in seconds.
const UNNOTICED: f64 = 0.001;
/// How many windows without copying tell what is usual, by their median: with four in a second the last half minute. So what
/// lasts is usual after a quarter of one, and pods that start, which scaling begins with and which takes some ten seconds, are
/// not.
const LATELY: usize = 128;
/// Part of the difference that a quicker window moves what is usual by while something is copied. Only quicker ones count
/// then, so it has to be little: else what is usual would soon be the best that ever was.
const LEARN_COPYING: f64 = 1.0 / 256.0;

/// Part of the difference that a window without copying moves what is usual in the long run by: four minutes.
const LEARN_LONG: f64 = 1.0 / 1024.0;
/// How much of what is usual in the long run is as bad as [`PRESSURE_MAX`] of what is usual now: the half more that clients are to
/// feel at most, of copying and of all else that a move takes.
const LONG_MAX: f64 = 1.5;

/// How much more than [all together](together) one may feel. Its tail is made of a few hundred requests, and among many nodes
/// there is always one that has a bad moment.
const ONE_OF_MANY: f64 = 1.4;

/// How much those feel who take part in a move, from how much each of them does: their mean, unless one suffers so much more
/// than the others that it is not chance. 0: nobody is there to notice, at none of them.
pub fn together(pressures: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut count, mut worst) = (0.0, 0.0, 0.0_f64);
    // Where nobody is there, nobody feels little of it either.
    for pressure in pressures.into_iter().filter(|&pressure| pressure > 0.0) {
        sum += pressure;
        count += 1.0;
        worst = worst.max(pressure);
    }
    if count > 0.0 { (sum / count).max(worst / ONE_OF_MANY) } else { 0.0 }
}

/// How much those who ask one node feel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pressure {
    usual: Option<f64>,
    /// Windows that `usual` was learned from.
    windows: u32,
    /// What was felt in the last windows without copying.
    lately: Lately,
    /// What is usual in the long run. While partitions move much is felt that is not copying's doing, and what is usual now has it.
    long: Option<f64>,
    /// Windows without copying.
    still: u32,
    now: f64,
}

impl Pressure {
    /// Takes a window into account: the 99th percentile of its requests, how many they were, and whether more than
    /// [`LITTLE`](super::LITTLE) was copied to or from the node meanwhile. So where clients feel something that copying is not the
    /// cause of, it is usual after some minutes: copying slows down, and what they still feel is none of it.
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
        let long = self.long_with(usual, copying);
        self.now = (p99 / usual).max(p99 / long * PRESSURE_MAX / LONG_MAX);
    }

    /// Takes into account what is usual now; what is in the long run.
    fn long_with(&mut self, usual: f64, copying: bool) -> f64 {
        self.still = self.still.saturating_add(u32::from(!copying));
        let long = match self.long {
            Some(long) if copying => long.min(usual),
            Some(long) => long + LEARN_LONG.max(1.0 / f64::from(self.still)) * (usual - long),
            None => usual,
        };
        *self.long.insert(long)
    }

    /// What is usual, in seconds; `None`: not known yet.
    #[must_use]
    pub fn usual(&self) -> Option<f64> {
        self.usual
    }

    /// What is usual in the long run, in seconds; `None`: not known yet.
    #[must_use]
    pub fn usual_long(&self) -> Option<f64> {
        self.long
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

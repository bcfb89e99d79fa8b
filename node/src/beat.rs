//! The beat of a node: what it does again and again, it does at the same moments.
//!
//! A node that nobody uses is then woken once for all of it, and its peers hear on one occasion what it has to say on
//! several streams.

use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Moments that all tasks of a node share.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    since: Instant,
}

impl Beat {
    /// A beat that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self { since: Instant::now() }
    }

    /// Ticks at all multiples of `period` since the beat began that are still to come. Those that are missed are left out.
    #[must_use]
    pub fn ticks(&self, period: Duration) -> Interval {
        let mut ticks = interval_at(self.next(period, Instant::now()), period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks
    }

    fn next(&self, period: Duration, now: Instant) -> Instant {
        let into = (now - self.since).as_nanos() % period.as_nanos().max(1);
        now + period.saturating_sub(Duration::from_nanos(u64::try_from(into).unwrap_or(0)))
    }
}

impl Default for Beat {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whenever_it_is_joined_the_moments_are_the_same() {
        let (beat, period) = (Beat::new(), Duration::from_millis(250));
        let mut first = beat.ticks(period);
        tokio::time::sleep(Duration::from_millis(70)).await;
        let mut second = beat.ticks(period);
        let (first, second) = (first.tick().await, second.tick().await);
        assert_eq!((first, second), (beat.since + period, beat.since + period));
        let mut late = beat.ticks(period);
        tokio::time::sleep(period * 5 / 2).await;
        late.tick().await;
        assert_eq!(late.tick().await, beat.since + 4 * period, "what was missed is left out");
    }
}

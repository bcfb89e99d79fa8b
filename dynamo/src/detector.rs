//! Whether another member is to be sent requests, as one observer sees it. It is never told on, and never decides who
//! owns what: a member that is routed around keeps its partitions.
//!
//! Two signs count. *Silence*: heartbeats come at an interval that the observer learns, with its spread, and a member
//! that is silent for longer than is likely is suspected. That is the accrual detector of Hayashibara, Défago, Yared and
//! Katayama (2004), with the moving averages of Jacobson (1988) for a window, and its threshold Φ turned into a time: for
//! normally distributed intervals Φ = 8 is reached 5.6 standard deviations after the mean. *Stalling*: a member that
//! goes on sending heartbeats but answers no request for a while, though it has some, is of no use either.
//!
//! Times are since any moment that the observer chooses.

use std::time::Duration;

/// Standard deviations after the mean at which the chance of a later heartbeat is 10⁻⁸.
const DEVIATIONS: f64 = 5.61;
/// Weight of a new interval in the averages.
const WEIGHT: f64 = 1.0 / 16.0;
/// Least standard deviation, in seconds: schedulers are not more exact than this.
const DEVIATION_MIN: f64 = 0.05;

/// What to think of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is to be sent requests.
    Alive,
    /// It has been silent for too long.
    Silent,
    /// It gives signs of life and no answers.
    Stalled,
}

/// Bounds of a detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Time between two heartbeats, as they are sent.
    pub heartbeat: Duration,
    /// However regular heartbeats have been, silence is excused for this long.
    pub silence_min: Duration,
    /// However irregular they have been, it is not excused for longer.
    pub silence_max: Duration,
    /// How long no request may be answered while some wait.
    pub stall_max: Duration,
}

/// One observer's view of one member, from when a connection begins.
#[derive(Clone, Debug)]
pub struct Detector {
    bounds: Bounds,
    heard: Duration,
    mean: f64,
    variance: f64,
    waiting: usize,
    /// When the last answer came, or the first request that waits was sent if that was later.
    progress: Duration,
}

impl Detector {
    /// A member that has just been heard.
    #[must_use]
    pub fn new(bounds: Bounds, now: Duration) -> Self {
        let mean = bounds.heartbeat.as_secs_f64();
        Self { bounds, heard: now, mean, variance: DEVIATION_MIN * DEVIATION_MIN, waiting: 0, progress: now }
    }

    /// It gave a sign of life, a heartbeat or anything else.
    pub fn heard(&mut self, now: Duration) {
        let interval = now.saturating_sub(self.heard).as_secs_f64();
        self.heard = self.heard.max(now);
        // What comes between heartbeats says nothing about how regular those are.
        if interval * 2.0 < self.bounds.heartbeat.as_secs_f64() {
            return;
        }
        let off = interval - self.mean;
        self.mean += WEIGHT * off;
        self.variance += WEIGHT * (off * off - self.variance);
    }

    /// A request was sent that is answered soon, whatever else happens.
    pub fn asked(&mut self, now: Duration) {
        if self.waiting == 0 {
            self.progress = self.progress.max(now);
        }
        self.waiting += 1;
    }

    /// A request was answered.
    pub fn answered(&mut self, now: Duration) {
        self.waiting = self.waiting.saturating_sub(1);
        self.progress = self.progress.max(now);
    }

    /// A request's sender waits no longer.
    pub fn given_up(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// From when on the member is silent for too long, if nothing is heard until then.
    #[must_use]
    pub fn silent_from(&self) -> Duration {
        let deviation = self.variance.sqrt().max(DEVIATION_MIN);
        let limit = Duration::from_secs_f64(self.mean + DEVIATIONS * deviation);
        self.heard + limit.clamp(self.bounds.silence_min, self.bounds.silence_max)
    }

    /// From when on it has stalled, if nothing is answered until then; `None`: nothing waits.
    #[must_use]
    pub fn stalled_from(&self) -> Option<Duration> {
        (self.waiting > 0).then(|| self.progress + self.bounds.stall_max)
    }

    /// What to think of it now.
    #[must_use]
    pub fn verdict(&self, now: Duration) -> Verdict {
        if now >= self.silent_from() {
            Verdict::Silent
        } else if self.stalled_from().is_some_and(|from| now >= from) {
            Verdict::Stalled
        } else {
            Verdict::Alive
        }
    }
}

/// Watches a connection for the time after which it is given up, in which nothing at all was heard.
///
/// Time in which the observer itself did not run is no silence of the other's: whoever wakes up late listens once more
/// before it judges, as in Lifeguard (Dadgar, Phillips, Currey 2018), since what was said meanwhile lies unread.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    heard: Duration,
    max: Duration,
    late_max: Duration,
}

impl Silence {
    /// Given up after `max`. An observer that looks more than `late_max` after it should have was asleep.
    #[must_use]
    pub fn new(max: Duration, late_max: Duration, now: Duration) -> Self {
        Self { heard: now, max, late_max }
    }

    /// A sign of life.
    pub fn heard(&mut self, now: Duration) {
        self.heard = now;
    }

    /// When to look.
    #[must_use]
    pub fn due(&self) -> Duration {
        self.heard + self.max
    }

    /// Whether it has been silent for too long. If not, look again when it is [`due`](Self::due).
    pub fn is_too_long(&mut self, now: Duration) -> bool {
        let Some(late) = now.checked_sub(self.due()) else { return false };
        if late > self.late_max {
            self.heard = now;
            return false;
        }
        true
    }
}

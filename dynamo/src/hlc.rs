//! Hybrid logical clock: timestamps that are close to the wall clock and never go back.
//!
//! After Kulkarni, Demirbas, Madappa, Avva and Leone, "Logical Physical Clocks and Consistent Snapshots in
//! Globally Distributed Databases" (2014), in the compact form they propose: 48 bits of milliseconds and 16 bits
//! of counter in one `u64`, so that comparing timestamps is comparing integers.
//!
//! Timestamps choose the winner among concurrent values for clients that want one value (last writer wins); which
//! values are concurrent is decided by dots alone, never by a clock. So a wrong clock can make the wrong
//! concurrent write win, but it cannot undo a write that has seen the other one.

use std::fmt;

/// Bits of the counter within a timestamp.
const COUNTER_BITS: u32 = 16;
/// Largest number of milliseconds a timestamp can carry: the year 10889.
const MILLIS_MAX: u64 = (1 << (64 - COUNTER_BITS)) - 1;

/// Timestamp of a hybrid logical clock: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The latest timestamp there is.
    pub const MAX: Self = Self(u64::MAX);

    /// Timestamp of a wall clock in milliseconds since 1970, with the counter at zero. Times beyond 48 bits are
    /// cut to the largest that fits.
    #[must_use]
    pub fn from_wall(wall_ms: u64) -> Self {
        Self(wall_ms.min(MILLIS_MAX) << COUNTER_BITS)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// Position among the timestamps of the same millisecond.
    #[must_use]
    pub fn counter(self) -> u16 {
        // The mask leaves 16 bits.
        (self.0 & 0xffff) as u16
    }

    /// The next timestamp. A full counter carries into the milliseconds; after [`Hlc::MAX`] comes itself.
    #[must_use]
    fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.counter())
    }
}

/// The clock of one node. Wall time is an argument, so whoever holds the clock decides what time it is.
///
/// The timestamps of [`now`](Clock::now) grow strictly, even when the wall clock is set back; they run ahead of the
/// wall clock then until it has caught up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    last: Hlc,
    drift_max_ms: u64,
}

impl Clock {
    /// How far ahead of the wall clock another node's timestamp may be and still move the clock: one minute.
    pub const DRIFT_MAX_MS: u64 = 60_000;

    /// A clock that has issued nothing, with its own bound on drift.
    #[must_use]
    pub fn new(drift_max_ms: u64) -> Self {
        Self { last: Hlc::default(), drift_max_ms }
    }

    /// A timestamp later than every one issued by this method before, and not earlier than the wall clock.
    pub fn now(&mut self, wall_ms: u64) -> Hlc {
        self.last = self.last.next().max(Hlc::from_wall(wall_ms));
        self.last
    }

    /// A timestamp for a value that replaces one with timestamp `at_least`: later than that, and than [`now`].
    ///
    /// When `at_least` is further ahead of the wall clock than the bound on drift, the timestamp is still later (else
    /// the new value could lose against a copy of the one it replaces), but the clock does not follow: a key that a
    /// node with a wrong clock has written does not make the timestamps of other keys wrong.
    ///
    /// The one exception is `at_least` = [`Hlc::MAX`], which is returned again.
    ///
    /// [`now`]: Clock::now
    pub fn next_after(&mut self, wall_ms: u64, at_least: Hlc) -> Hlc {
        self.observe(at_least, wall_ms);
        self.now(wall_ms).max(at_least.next())
    }

    /// Takes note of another node's timestamp, so that what is issued next is later. Returns whether the clock will
    /// be later than it from now on.
    ///
    /// A timestamp that is more than the bound on drift ahead of the wall clock is ignored (`false`): one node whose
    /// clock jumped a day ahead must not take all others with it.
    pub fn observe(&mut self, remote: Hlc, wall_ms: u64) -> bool {
        if remote <= self.last {
            return true;
        }
        let believable = remote.millis() <= wall_ms.saturating_add(self.drift_max_ms);
        if believable {
            self.last = remote;
        }
        believable
    }
}

impl Default for Clock {
    /// A clock that has issued nothing and tolerates [`Clock::DRIFT_MAX_MS`].
    fn default() -> Self {
        Self::new(Self::DRIFT_MAX_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    const NOON_MS: u64 = 1_750_000_000_000;

    #[test]
    fn a_timestamp_is_milliseconds_then_counter() {
        let stamp = Hlc::from_wall(NOON_MS).next().next();
        assert_eq!((stamp.millis(), stamp.counter()), (NOON_MS, 2));
        assert_eq!(stamp.to_string(), "1750000000000.2");
        assert_eq!(Hlc::from_wall(u64::MAX).millis(), MILLIS_MAX);
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let mut clock = Clock::default();
        let mut last = Hlc::default();
        for _ in 0..=u32::from(u16::MAX) + 1 {
            let stamp = clock.now(NOON_MS);
            assert!(stamp > last);
            last = stamp;
        }
        assert_eq!((last.millis(), last.counter()), (NOON_MS + 1, 0));
    }

    #[test]
    fn a_wall_clock_set_back_does_not_turn_time_around() {
        let mut clock = Clock::default();
        let before = clock.now(NOON_MS);
        let after = clock.now(NOON_MS - DAY_MS);
        assert!(after > before);
        assert_eq!(after.millis(), NOON_MS, "it stands still instead");
    }

    #[test]
    fn a_node_a_day_ahead_does_not_take_others_with_it() {
        let mut ahead = Clock::default();
        let mut clock = Clock::default();
        let wrong = ahead.now(NOON_MS + DAY_MS);
        assert!(!clock.observe(wrong, NOON_MS));
        assert_eq!(clock.now(NOON_MS).millis(), NOON_MS);
        // Replacing what that node wrote is later than it, and only this one timestamp is wrong.
        let replacing = clock.next_after(NOON_MS, wrong);
        assert_eq!(replacing, Hlc(wrong.0 + 1));
        assert_eq!(clock.now(NOON_MS + 1).millis(), NOON_MS + 1);
    }

    #[test]
    fn a_node_a_day_behind_still_replaces_what_it_sees() {
        let theirs = Clock::default().now(NOON_MS);
        let mut behind = Clock::default();
        assert!(behind.next_after(NOON_MS - DAY_MS, theirs) > theirs);
    }

    #[test]
    fn a_small_drift_is_followed() {
        let mut clock = Clock::default();
        let theirs = Hlc::from_wall(NOON_MS + Clock::DRIFT_MAX_MS);
        assert!(clock.observe(theirs, NOON_MS));
        assert!(clock.now(NOON_MS) > theirs);
        assert!(!clock.observe(Hlc::from_wall(NOON_MS + Clock::DRIFT_MAX_MS + 1), NOON_MS));
    }

    #[test]
    fn the_end_of_time_is_no_panic() {
        let mut clock = Clock::new(u64::MAX);
        assert_eq!(clock.next_after(NOON_MS, Hlc::MAX), Hlc::MAX);
        assert_eq!(clock.now(u64::MAX), Hlc::MAX);
    }

    proptest! {
        /// Whatever the wall clock and the other nodes do: issued timestamps grow, replacing ones are later than
        /// what they replace, and the clock is never further ahead than the wall clock ever was plus the drift.
        #[test]
        fn it_grows_and_stays_near_the_wall_clock(
            steps in prop::collection::vec((0u8..3, 0..4 * DAY_MS, 0..4 * DAY_MS), 1..200)
        ) {
            let mut clock = Clock::default();
            let mut last = Hlc::default();
            let mut latest_wall = 0;
            for (count, (action, wall, remote)) in (1u64..).zip(steps) {
                latest_wall = latest_wall.max(wall);
                let remote = Hlc::from_wall(remote);
                match action {
                    0 => {
                        clock.observe(remote, wall);
                    }
                    1 => {
                        let stamp = clock.now(wall);
                        prop_assert!(stamp > last && stamp >= Hlc::from_wall(wall));
                        last = stamp;
                    }
                    _ => prop_assert!(clock.next_after(wall, remote) > remote.max(last)),
                }
                let bound = Hlc::from_wall(latest_wall + Clock::DRIFT_MAX_MS).0 + count;
                prop_assert!(clock.last.0 <= bound);
            }
        }
    }
}

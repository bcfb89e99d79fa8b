//! The failure detector: members that pause are found soon, those that do not are left alone.

#![allow(clippy::unwrap_used, reason = "tests may panic, in functions that tests share too")]

use dynamo::detector::{Bounds, Detector, Silence, Verdict};
use proptest::prelude::*;
use std::time::Duration;

const HEARTBEAT: Duration = Duration::from_millis(250);
const BOUNDS: Bounds = Bounds {
    heartbeat: HEARTBEAT,
    silence_min: Duration::from_millis(500),
    silence_max: Duration::from_millis(900),
    stall_max: Duration::from_millis(1000),
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

proptest! {
    /// Heartbeats up to 150 ms late, with frames between them: nobody is suspected at any time before the next one.
    /// When they end the member is suspected, within the bounds, and is alive again as soon as it is heard.
    #[test]
    fn a_pause_is_found_and_jitter_is_not(
        delays in prop::collection::vec(0u64..150, 1..200),
        frames in prop::collection::vec(1u64..250, 0..50),
        pause in 900u64..30_000,
    ) {
        let mut detector = Detector::new(BOUNDS, ms(0));
        let mut arrivals: Vec<u64> = (1u64..).zip(&delays).map(|(beat, delay)| beat * 250 + delay).collect();
        let end = *arrivals.iter().max().unwrap();
        arrivals.extend(frames.iter().scan(0, |at, step| { *at += step; Some(*at) }).filter(|at| *at < end));
        arrivals.sort_unstable();
        for at in arrivals {
            prop_assert_eq!(detector.verdict(ms(at)), Verdict::Alive);
            detector.heard(ms(at));
        }
        let silent_from = detector.silent_from();
        prop_assert!(silent_from >= ms(end) + BOUNDS.silence_min && silent_from <= ms(end) + BOUNDS.silence_max);
        prop_assert_eq!(detector.verdict(silent_from - Duration::from_nanos(1)), Verdict::Alive);
        prop_assert_eq!(detector.verdict(silent_from), Verdict::Silent);
        prop_assert_eq!(detector.verdict(ms(end + pause)), Verdict::Silent);
        detector.heard(ms(end + pause));
        prop_assert_eq!(detector.verdict(ms(end + pause)), Verdict::Alive);
    }

    /// Whoever waits without any answer for longer than the bound has met a member that stalls; against a list of what
    /// happened, looked at as a whole.
    #[test]
    fn stalling_is_no_answer_while_something_waits(
        events in prop::collection::vec((0u64..400, 0u8..3), 0..60),
        then in 0u64..3000,
    ) {
        let mut detector = Detector::new(BOUNDS, ms(0));
        // When the waiting began or was last answered; `None`: nothing waits.
        let (mut now, mut waiting, mut since) = (0, 0u32, None);
        for (step, event) in events {
            now += step;
            detector.heard(ms(now));
            match event {
                0 => {
                    detector.asked(ms(now));
                    waiting += 1;
                    since = since.or(Some(now));
                }
                _ if waiting == 0 => {}
                1 => {
                    detector.answered(ms(now));
                    waiting -= 1;
                    since = (waiting > 0).then_some(now);
                }
                _ => {
                    detector.given_up();
                    waiting -= 1;
                    since = since.filter(|_| waiting > 0);
                }
            }
        }
        let at = now + then;
        for beat in (now..=at).step_by(250).chain([at]) {
            detector.heard(ms(beat));
        }
        let stalled = since.is_some_and(|since| at >= since + 1000);
        prop_assert_eq!(detector.verdict(ms(at)) == Verdict::Stalled, stalled);
    }
}

#[test]
fn a_steady_member_is_suspected_sooner_than_an_unsteady_one() {
    let after = |late: u64| {
        let mut detector = Detector::new(BOUNDS, ms(0));
        for beat in 1..200u64 {
            detector.heard(ms(beat * 250 + if beat % 3 == 0 { late } else { 0 }));
        }
        detector.silent_from() - ms(199 * 250)
    };
    assert!(after(0) < ms(600), "{:?}", after(0));
    assert!(after(200) > after(0) + ms(100), "{:?}", after(200));
    assert!(after(200) <= BOUNDS.silence_max);
}

#[test]
fn who_has_slept_listens_before_it_judges() {
    let mut silence = Silence::new(ms(1000), ms(250), ms(0));
    assert!(!silence.is_too_long(ms(999)));
    assert!(silence.is_too_long(ms(1000)));
    assert!(silence.is_too_long(ms(1250)));
    silence.heard(ms(500));
    assert_eq!(silence.due(), ms(1500));
    assert!(!silence.is_too_long(ms(1400)));
    // The observer was stopped meanwhile: nothing is known of the other.
    assert!(!silence.is_too_long(ms(30_000)));
    assert_eq!(silence.due(), ms(31_000));
    // Awake, it hears nothing either.
    assert!(silence.is_too_long(ms(31_000)));
}

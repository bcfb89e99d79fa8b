//! The rate of copying, beside clients whose latency goes up with it.

use dynamo::tail::{BUCKETS, Tail, bucket};
use dynamo::throttle::{LITTLE, PRESSURE_MAX, Pressure, Throttle, together, under_way_max};
use std::time::Duration;

const MIB: f64 = (1 << 20) as f64;

/// A node whose clients wait 4 ms, and one more for every 20 MiB/s that are copied beyond what the disk has to spare.
fn p99(rate: f64) -> Duration {
    let beyond = (rate / MIB - 80.0).max(0.0);
    Duration::from_secs_f64((4.0 + beyond / 20.0) / 1000.0)
}

#[test]
fn copying_settles_where_clients_feel_little_of_it() {
    let (mut pressure, mut throttle) = (Pressure::default(), Throttle::new(None, false));
    for _ in 0..50 {
        pressure.window(p99(0.0), 1000, false);
    }
    let (mut windows_above, mut sum) = (0, 0.0);
    for window in 0..1200 {
        pressure.window(p99(throttle.rate()), 1000, true);
        throttle.adjust(pressure.get());
        if window >= 300 {
            windows_above += usize::from(p99(throttle.rate()) > p99(0.0).mul_f64(PRESSURE_MAX));
            sum += throttle.rate() / MIB;
        }
    }
    // 6 ms are reached at 120 MiB/s: near that on average, and beyond it in one window of a sawtooth at most.
    assert!((90.0..=120.0).contains(&(sum / 900.0)), "{}", sum / 900.0);
    assert!(windows_above <= 250, "{windows_above}");
}

/// Requests of one node in a window, none of them the slower for what is copied: a long tail, and now and then a hiccup.
fn requests(random: &mut impl FnMut() -> f64) -> [u32; BUCKETS] {
    let mut counts = [0; BUCKETS];
    let hiccup = random() < 0.005;
    for _ in 0..100 {
        let millis = 0.8 / (1.0 - random()).sqrt().max(0.08) + if hiccup && random() < 0.1 { 10.0 } else { 0.0 };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let micros = (millis * 1000.0) as u64;
        counts[bucket(micros)] += 1;
    }
    counts
}

#[test]
fn all_feel_what_most_of_them_do_or_one_does_by_far() {
    assert!(together([]) <= 0.0 && together([0.0, 0.0]) <= 0.0, "nobody is there");
    let close = |pressure: f64, expected: f64| assert!((pressure - expected).abs() < 1e-9, "{pressure}");
    close(together([0.0, 1.2, 0.0, 1.4]), 1.3);
    let bad_moment = [vec![1.6], vec![1.0; 9]].concat();
    assert!(together(bad_moment) < PRESSURE_MAX);
    let suffers = [vec![2.0], vec![1.0; 9]].concat();
    assert!(together(suffers) > PRESSURE_MAX);
}

/// Ten nodes take part in a move, none of which feels anything of it. One always suffers most; it must not hold the move at
/// the lowest rate.
#[test]
fn the_bad_moments_of_many_do_not_hold_a_move_back() {
    let mut state = 1_u64;
    let mut random = move || {
        // Knuth's linear congruential generator.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1 << 24) as f64
    };
    let mut nodes = vec![(Tail::default(), Pressure::default()); 10];
    let mut throttle = Throttle::new(None, false);
    let mut slow_windows = 0;
    for window in 0..1200 {
        let copying = window >= 200;
        for (tail, pressure) in &mut nodes {
            tail.window(requests(&mut random));
            pressure.window(tail.percentile_99(), 1000, copying && throttle.rate() > LITTLE);
        }
        if copying {
            throttle.adjust(together(nodes.iter().map(|(_, pressure)| pressure.get())));
            slow_windows += usize::from(window >= 300 && throttle.rate() < MIB);
        }
    }
    assert!(slow_windows < 300, "slower than at the start in {slow_windows} of 900 windows");
}

/// The pressure after so many windows with this 99th percentile.
fn after(pressure: &mut Pressure, millis: f64, windows: usize, copying: bool) -> f64 {
    (0..windows).for_each(|_| pressure.window(Duration::from_secs_f64(millis / 1000.0), 1000, copying));
    pressure.get()
}

/// Pods that start are felt, and do not tell what is usual.
#[test]
fn what_was_felt_for_a_while_only_is_not_usual() {
    let mut pressure = Pressure::default();
    let mut felt = |millis, windows, copying| after(&mut pressure, millis, windows, copying);
    assert!((felt(4.0, 240, false) - 1.0).abs() < 0.01, "a minute as usual");
    assert!(felt(16.0, 48, false) > 3.0, "twelve seconds of pods that start");
    assert!(felt(6.0, 8, true) > PRESSURE_MAX, "and then copying is felt");
}

/// Writes to two lists, rings, more nodes: with all of that clients feel half more at most, not half more than with that.
#[test]
fn what_a_move_takes_besides_copying_counts_as_copying_does() {
    let mut pressure = Pressure::default();
    let mut felt = |millis, windows, copying| after(&mut pressure, millis, windows, copying);
    assert!((felt(4.0, 480, false) - 1.0).abs() < 0.01, "two minutes as usual");
    assert!(felt(5.4, 80, false) < 1.2, "twenty seconds at a rate that is not taken for copying");
    assert!(felt(6.6, 8, true) > PRESSURE_MAX, "little more than that, and much more than before");
}

/// More clients come while something is copied, and copying is not what they feel: it is not held back by them for ever.
#[test]
fn what_clients_feel_of_each_other_is_usual_after_some_minutes() {
    let (mut pressure, mut throttle) = (Pressure::default(), Throttle::new(None, false));
    for _ in 0..50 {
        pressure.window(p99(0.0), 1000, false);
    }
    let mut slowest = f64::MAX;
    for window in 0..2400 {
        let more = Duration::from_millis(if window < 100 { 0 } else { 20 });
        pressure.window(p99(throttle.rate()) + more, 1000, throttle.rate() > LITTLE);
        throttle.adjust(pressure.get());
        slowest = throttle.rate().min(slowest);
    }
    assert!(slowest <= LITTLE, "first it might have been the cause: {slowest}");
    assert!(throttle.rate() > 50.0 * MIB, "{}", throttle.rate());
}

#[test]
fn with_nobody_there_it_goes_as_fast_as_it_may_and_the_first_client_finds_it_slow() {
    let mut throttle = Throttle::new(None, false);
    assert!(throttle.rate() < 4.0 * MIB && !throttle.is_alone());
    let mut pressure = Pressure::default();
    pressure.window(Duration::ZERO, 0, true);
    throttle.adjust(pressure.get());
    assert!(throttle.rate() > 1000.0 * MIB && throttle.is_alone());
    throttle.heed();
    assert!(throttle.rate() < 4.0 * MIB, "before the window is over");
    // However few clients there are, they are somebody.
    throttle.adjust(0.0);
    pressure.window(Duration::from_secs(1), 3, true);
    throttle.adjust(pressure.get());
    assert!(throttle.rate() < 8.0 * MIB);
    let mut bounded = Throttle::new(Some(10 << 20), true);
    bounded.adjust(0.0);
    assert!(bounded.time_for(10 << 20) >= Duration::from_secs(1));
}

#[test]
fn what_clients_bear_is_remembered_while_nobody_is_there() {
    let mut throttle = Throttle::new(None, true);
    for _ in 0..20 {
        throttle.adjust(1.0);
    }
    let borne = throttle.rate();
    for _ in 0..20 {
        throttle.adjust(0.0);
    }
    throttle.adjust(PRESSURE_MAX - 0.1);
    assert!(
        (throttle.rate() - borne).abs() < 1.0,
        "neither sped up nor slowed down where clients begin to feel it"
    );
}

#[test]
fn it_never_stops() {
    let mut throttle = Throttle::new(None, false);
    for _ in 0..200 {
        throttle.adjust(100.0);
    }
    assert!(throttle.rate() >= MIB / 8.0);
    let mut slow = Throttle::new(Some(1000), false);
    slow.adjust(100.0);
    assert!((slow.rate() - 1000.0).abs() < 1.0);
}

/// A node that begins to copy before it has served anybody finds out what is usual while it copies.
#[test]
fn what_is_usual_is_learned_even_while_copying() {
    let mut pressure = Pressure::default();
    pressure.window(Duration::from_millis(40), 100, true);
    assert!((pressure.get() - 1.0).abs() < 1e-9);
    (0..50).for_each(|_| pressure.window(Duration::from_millis(10), 100, true));
    pressure.window(Duration::from_millis(40), 100, true);
    assert!((pressure.get() - 4.0).abs() < 0.3, "{}", pressure.get());
    // One quick window does not make all others slow.
    pressure.window(Duration::from_millis(2), 100, true);
    pressure.window(Duration::from_millis(10), 100, true);
    assert!(pressure.get() < 1.2, "{}", pressure.get());
    // Latencies that nobody notices are no pressure, however much lower they were before.
    let mut pressure = Pressure::default();
    (0..100).for_each(|_| pressure.window(Duration::from_micros(100), 100, true));
    pressure.window(Duration::from_micros(900), 100, true);
    assert!((pressure.get() - 1.0).abs() < 1e-3, "{}", pressure.get());
}

#[test]
fn less_than_a_hundredth_of_a_move_is_on_its_way_unless_it_is_small() {
    for mebibytes in [64, 225, 1000, 4000, 1_000_000] {
        let bytes = mebibytes << 20;
        assert!(under_way_max(bytes, 1 << 19, false) <= bytes / 100, "{mebibytes}");
        assert!(under_way_max(bytes, 1 << 19, true) <= bytes / 8, "{mebibytes}");
    }
    assert_eq!((under_way_max(0, 1 << 19, true), under_way_max(0, 0, false)), (1 << 19, 1));
    assert_eq!((under_way_max(u64::MAX, 0, true), under_way_max(0, u64::MAX, false)), (32 << 20, 32 << 20));
}

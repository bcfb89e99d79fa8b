//! What clients feel of what is copied: a window of latencies, looked at several times a second.

mod latencies;

use crate::beat::Beat;
use dynamo::tail::{REMEMBERED, Tail};
use dynamo::throttle::{LITTLE, Pressure, SAMPLES_MIN};
use latencies::Latencies;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between two looks.
pub(super) const WINDOW: Duration = Duration::from_millis(250);
/// After so many windows without a request nobody is there any more.
const QUIET_WINDOWS: u32 = 4;
/// What peers wait for is judged by more requests: of all nodes that a move concerns the one that suffers most counts, and
/// the tail of a few requests suffers now and then wherever nothing is wrong.
const PEER_SAMPLES_MIN: u64 = 256;

/// What those who ask something of one node feel: its own clients, and its peers, behind whom are clients of theirs.
#[derive(Debug, Default)]
pub struct Foreground {
    clients: Latencies,
    /// Of requests that other coordinators sent, from their coming to the answer.
    peers: Latencies,
    /// Whether anybody was answered since the last look.
    asked: AtomicBool,
    /// Bytes of pages handed out to members that copy from here, ever.
    handed_out: AtomicU64,
    /// Bytes copied from here, to here or dropped here since the last look.
    worked: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clients: Watched,
    peers: Watched,
    /// Bytes copied or dropped of late, remembered as the tail of the requests is.
    worked: f64,
}

/// For how long those of one kind wait: 99th percentiles, 0 where none is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Waits {
    pub of: &'static str,
    /// In the last two or three seconds.
    pub seconds: f64,
    /// While nothing is copied.
    pub usual_seconds: f64,
    /// What the same was for minutes.
    pub usual_long_seconds: f64,
}

/// One kind of requests.
#[derive(Debug, Default)]
struct Watched {
    pressure: Pressure,
    tail: Tail,
    /// Windows without a request until now.
    quiet: u32,
}

impl Watched {
    /// Ends a window. `copying`: whether more than a little was copied of late.
    fn look(&mut self, latencies: &Latencies, copying: bool, samples_min: u64) {
        let counts = latencies.take();
        self.quiet = if counts.iter().all(|&count| count == 0) { self.quiet + 1 } else { 0 };
        self.tail.window(counts);
        if self.quiet >= QUIET_WINDOWS {
            self.tail.clear();
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of requests")]
        let samples = match self.tail.samples().ceil() as u64 {
            0 => 0,
            // Somebody is there, and it cannot be told yet what they feel.
            some if some < samples_min => 1,
            enough => enough,
        };
        self.pressure.window(self.tail.percentile_99(), samples, copying);
    }
}

impl State {
    fn pressure(&self) -> f64 {
        self.clients.pressure.get().max(self.peers.pressure.get())
    }
}

impl Foreground {
    /// A client's request has taken so long.
    pub fn record(&self, micros: u64) {
        self.clients.record(micros, 1);
        self.is_here();
    }

    /// So many requests of a peer were answered, the last of them after so long.
    pub fn record_of_peer(&self, took: Duration, requests: usize) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.peers.record(micros, u32::try_from(requests).unwrap_or(u32::MAX));
        self.is_here();
    }

    fn is_here(&self) {
        // Read first: the line stays with all processors.
        if !self.asked.load(Relaxed) {
            self.asked.store(true, Relaxed);
        }
    }

    /// Whether anybody was answered since the last look.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Relaxed)
    }

    /// Bytes were handed out to a member that copies from here.
    pub fn hand_out(&self, bytes: u64) {
        self.handed_out.fetch_add(bytes, Relaxed);
        self.work(bytes);
    }

    /// So many bytes were copied or dropped, or something was done that costs as much.
    pub fn work(&self, bytes: u64) {
        self.worked.fetch_add(bytes, Relaxed);
    }

    /// Bytes handed out to members that copy from here since the start.
    #[must_use]
    pub fn handed_out(&self) -> u64 {
        self.handed_out.load(Relaxed)
    }

    /// For how long clients and peers wait, as of the last look.
    #[must_use]
    pub fn waits(&self) -> [Waits; 2] {
        let state = self.state.lock();
        [("clients", &state.clients), ("peers", &state.peers)].map(|(of, watched)| Waits {
            of,
            seconds: watched.tail.percentile_99().as_secs_f64(),
            usual_seconds: watched.pressure.usual().unwrap_or_default(),
            usual_long_seconds: watched.pressure.usual_long().unwrap_or_default(),
        })
    }

    /// How much they feel, as of the last look; nothing only if nobody has come since either.
    #[must_use]
    pub fn pressure(&self) -> f64 {
        let pressure = self.state.lock().pressure();
        if self.is_asked() { pressure.max(1.0) } else { pressure }
    }

    /// Ends a window.
    pub(super) fn look(&self) -> f64 {
        let mut state = self.state.lock();
        self.asked.store(false, Relaxed);
        #[allow(clippy::cast_precision_loss, reason = "what matters is the order of magnitude")]
        let worked = self.worked.swap(0, Relaxed) as f64;
        state.worked = state.worked * REMEMBERED + worked;
        let copying = state.worked * (1.0 - REMEMBERED) > LITTLE * WINDOW.as_secs_f64();
        state.clients.look(&self.clients, copying, SAMPLES_MIN);
        state.peers.look(&self.peers, copying, PEER_SAMPLES_MIN);
        state.pressure()
    }
}

/// Looks again and again, and tells `looked`, until shutdown. `copying`: whether this node copies from others.
pub(super) async fn watch(
    foreground: Arc<Foreground>,
    beat: Beat,
    copying: impl Fn() -> bool,
    looked: impl Fn(f64, bool),
    shutdown: CancellationToken,
) {
    let mut ticks = beat.ticks(WINDOW);
    // A late look makes a window longer, not the next one shorter.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {
                let copying = copying();
                looked(foreground.look(), copying);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(foreground: &Foreground, number: usize, each: impl Fn(&Foreground)) -> f64 {
        (0..number).for_each(|_| {
            each(foreground);
            let _ = foreground.look();
        });
        foreground.pressure()
    }

    fn answered(foreground: &Foreground, micros: u64, times: usize) {
        (0..times).for_each(|_| foreground.record(micros));
    }

    #[test]
    fn slow_requests_are_pressure_while_something_is_copied_or_dropped() {
        for work in [Foreground::hand_out, Foreground::work] {
            let foreground = Foreground::default();
            let _ = looks(&foreground, 20, |foreground| answered(foreground, 3000, 100));
            let pressure = looks(&foreground, 8, |foreground| {
                work(foreground, 4 << 20);
                answered(foreground, 300_000, 2);
                answered(foreground, 3000, 98);
            });
            assert!(pressure > 50.0, "{pressure}");
            let nobody = looks(&foreground, QUIET_WINDOWS as usize, |_| {});
            assert!(nobody < 0.5, "where nobody asks there is none: {nobody}");
        }
    }

    /// Clients talk to some nodes, and those to others: who holds replicas only is not alone.
    #[test]
    fn peers_count_as_clients_do_and_neither_hides_the_other() {
        let foreground = Foreground::default();
        let served = |millis, requests| {
            move |foreground: &Foreground| {
                foreground.record_of_peer(Duration::from_millis(millis), requests);
                answered(foreground, 1000, 1000);
                foreground.hand_out(4 << 20);
            }
        };
        let usual = looks(&foreground, 20, served(2, 100));
        assert!((usual - 1.0).abs() < 0.1, "{usual}");
        let slow = looks(&foreground, 2, served(8, 100));
        assert!(slow > 3.0, "what peers wait for is not lost among what clients wait for: {slow}");
        let few = Foreground::default();
        let too_few = looks(&few, 30, served(2, 10)).max(looks(&few, 30, served(8, 10)));
        assert!((too_few - 1.0).abs() < 0.1, "too few to tell: {too_few}");
    }

    #[test]
    fn what_is_waited_is_told_beside_what_is_usual() {
        let foreground = Foreground::default();
        let _ = looks(&foreground, 20, |foreground| answered(foreground, 3000, 100));
        let _ = looks(&foreground, 20, |foreground| {
            foreground.hand_out(4 << 20);
            answered(foreground, 12_000, 100);
        });
        let [clients, peers] = foreground.waits();
        let about = |seconds: f64, millis: f64| (seconds * 1000.0 / millis - 1.0).abs() < 0.2;
        assert!(about(clients.seconds, 12.0), "{clients:?}");
        assert!(about(clients.usual_seconds, 3.0) && about(clients.usual_long_seconds, 3.0), "{clients:?}");
        let none = Waits { of: "peers", seconds: 0.0, usual_seconds: 0.0, usual_long_seconds: 0.0 };
        assert_eq!(peers, none, "nobody has asked");
    }

    #[test]
    fn the_first_request_is_somebody_at_once_and_few_are_not_yet_a_tail() {
        let foreground = Foreground::default();
        assert!(foreground.look() < 0.5 && foreground.pressure() < 0.5, "nobody is there");
        answered(&foreground, 3000, 1);
        assert!((foreground.pressure() - 1.0).abs() < 0.01, "before the window is over");
        let few = looks(&foreground, 3, |foreground| answered(foreground, 30_000, 1));
        assert!((few - 1.0).abs() < 0.01, "too few to tell: {few}");
        let quiet = looks(&foreground, QUIET_WINDOWS as usize - 1, |_| {});
        assert!((quiet - 1.0).abs() < 0.01, "they may come back: {quiet}");
        let nobody = foreground.look();
        assert!(nobody < 0.5 && foreground.pressure() < 0.5, "nobody is left: {nobody}");
    }
}

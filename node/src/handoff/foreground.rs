//! What clients feel of what is copied: a window of latencies, looked at several times a second.

mod latencies;

use crate::beat::Beat;
use dynamo::throttle::{LITTLE, Pressure, SAMPLES_MIN};
use latencies::Latencies;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between two looks.
pub(super) const WINDOW: Duration = Duration::from_millis(250);
/// Windows with few requests that are taken together: no client waits much longer for its latency to count.
const WINDOWS_TOGETHER_MAX: u32 = 8;
/// What peers wait for is judged by so many requests, or once in two seconds: of all nodes that a move concerns the one
/// that suffers most counts, and the tail of a few requests suffers now and then wherever nothing is wrong.
const PEER_SAMPLES_MIN: u64 = 512;

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
}

/// One kind of requests.
#[derive(Debug, Default)]
struct Watched {
    pressure: Pressure,
    /// Windows whose requests are still in the buckets.
    windows: u32,
    /// Bytes copied or dropped in them.
    worked: u64,
}

impl Watched {
    /// Ends a window in which so many bytes were copied or dropped. Fewer than `samples_min` requests are kept for the next.
    fn look(&mut self, latencies: &Latencies, worked: u64, samples_min: u64) {
        self.windows += 1;
        self.worked += worked;
        let samples = latencies.samples();
        if (1..samples_min).contains(&samples) && self.windows < WINDOWS_TOGETHER_MAX {
            // Somebody is there, and it cannot be told yet what they feel.
            return self.pressure.window(Duration::ZERO, 1, false);
        }
        let (p99, samples) = latencies.take();
        let seconds = WINDOW.as_secs_f64() * f64::from(std::mem::take(&mut self.windows));
        #[allow(clippy::cast_precision_loss, reason = "what matters is the order of magnitude")]
        let copying = std::mem::take(&mut self.worked) as f64 > LITTLE * seconds;
        self.pressure.window(p99, samples, copying);
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
        let worked = self.worked.swap(0, Relaxed);
        state.clients.look(&self.clients, worked, SAMPLES_MIN);
        state.peers.look(&self.peers, worked, PEER_SAMPLES_MIN);
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

    #[test]
    fn one_in_a_hundred_is_beyond_the_percentile() {
        let foreground = Foreground::default();
        (0..990).for_each(|_| foreground.record(3000));
        (0..10).for_each(|_| foreground.record(900_000));
        let _ = foreground.look();
        (0..990).for_each(|_| foreground.record(3000));
        (0..20).for_each(|_| foreground.record(900_000));
        foreground.hand_out(4 << 20);
        assert!(foreground.look() > 100.0, "slow requests while something is copied are pressure");
        (0..100).for_each(|_| foreground.record(900_000));
        foreground.work(4 << 20);
        assert!(foreground.look() > 100.0, "and so they are while leftovers are dropped");
        assert!(foreground.look() < 1.0, "and where nobody asks there is none");
    }

    /// Clients talk to some nodes, and those to others: who holds replicas only is not alone.
    #[test]
    fn peers_count_as_clients_do_and_neither_hides_the_other() {
        let foreground = Foreground::default();
        foreground.record_of_peer(Duration::from_millis(2), 1000);
        assert!((foreground.pressure() - 1.0).abs() < 0.01);
        (0..10_000).for_each(|_| foreground.record(1000));
        let _ = foreground.look();
        foreground.record_of_peer(Duration::from_millis(8), 500);
        (0..10_000).for_each(|_| foreground.record(1000));
        foreground.hand_out(4 << 20);
        assert!((foreground.look() - 1.0).abs() < 0.01, "too few to tell");
        foreground.record_of_peer(Duration::from_millis(8), 500);
        (0..10_000).for_each(|_| foreground.record(1000));
        assert!(foreground.look() > 3.5, "what peers wait for is not lost among what clients wait for");
        assert!(foreground.look() < 0.5 && foreground.pressure() < 0.5, "nobody is left");
    }

    #[test]
    fn few_requests_are_taken_together_and_the_first_is_somebody_at_once() {
        let foreground = Foreground::default();
        assert!(foreground.look() < 0.5 && foreground.pressure() < 0.5, "nobody is there");
        (0..100).for_each(|_| foreground.record(3000));
        assert!((foreground.pressure() - 1.0).abs() < 0.01, "before the window is over");
        let _ = foreground.look();
        foreground.work(4 << 20);
        (0..20).for_each(|_| foreground.record(30_000));
        assert!((foreground.look() - 1.0).abs() < 0.01, "too few to tell");
        (0..20).for_each(|_| foreground.record(30_000));
        assert!(foreground.look() > 5.0, "those of both windows are enough");
        assert!(foreground.look() < 0.5 && foreground.pressure() < 0.5, "nobody is left");
    }
}

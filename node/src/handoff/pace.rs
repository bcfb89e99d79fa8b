//! The pace at which all pulls of this node copy together.

use super::foreground::Foreground;
use super::give_way::Account;
use dynamo::preference::MemberIndex;
use dynamo::throttle::{PRESSURE_MAX, Throttle, together};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// After so long without anything to copy, what clients bore says nothing any more. Until then it is kept: the next
/// partitions may only be waiting for the next ring.
const REMEMBERED: Duration = Duration::from_secs(10);

/// How long what a source has told of its clients counts.
const TOLD_LATELY: Duration = Duration::from_secs(1);

/// Part of a second that a page takes beside clients: short enough that none of them waits long for it.
const PAGE_SECONDS: f64 = 1.0 / 64.0;
/// Bounds of a page beside clients, in bytes.
const PAGE_BYTES: (f64, f64) = ((32 << 10) as f64, (128 << 10) as f64);
/// A page while nobody is there, in bytes.
const BULK_PAGE_BYTES: u32 = 1 << 20;

/// Shared by the pulls of a node.
pub(super) struct Pace {
    foreground: Arc<Foreground>,
    bytes_per_second_max: Option<u64>,
    state: Mutex<State>,
}

struct State {
    account: Account,
    /// When anything was last to be copied; `None`: never.
    copied: Option<Instant>,
    /// How much the clients of sources felt, by what these told last, and when.
    told: BTreeMap<MemberIndex, (f64, Instant)>,
}

impl Pace {
    pub(super) fn new(bytes_per_second_max: Option<u64>, foreground: Arc<Foreground>) -> Self {
        Self {
            foreground,
            bytes_per_second_max,
            state: Mutex::new(State {
                account: Account::new(Throttle::new(bytes_per_second_max, false)),
                copied: None,
                told: BTreeMap::new(),
            }),
        }
    }

    /// A source has told how much its clients feel.
    pub(super) fn told(&self, source: MemberIndex, pressure: f64) {
        let mut state = self.state.lock();
        state.told.insert(source, (pressure, Instant::now()));
        if pressure > 0.0 {
            state.account.throttle.heed();
        }
    }

    /// Whether the clients of a source felt that it was copied from, when that was last told.
    pub(super) fn is_busy(&self, source: MemberIndex) -> bool {
        self.state.lock().told.get(&source).is_some_and(|&(pressure, _)| pressure > PRESSURE_MAX)
    }

    /// A window is over in which this node's own clients felt so much. `copying`: whether it copies; if it has not for a
    /// while, the next time begins anew.
    pub(super) fn adjust(&self, own: f64, copying: bool) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        if !copying {
            if state.copied.is_none_or(|copied| now - copied > REMEMBERED) {
                // Sources tell of their clients with the first page.
                state.account.throttle = Throttle::new(self.bytes_per_second_max, own <= 0.0);
            } else if own <= 0.0 {
                state.account.throttle.adjust(own);
            }
            return;
        }
        state.copied = Some(now);
        let told = state.told.values().filter(|(_, when)| now - *when <= TOLD_LATELY);
        let felt = together(told.map(|&(pressure, _)| pressure).chain([own]));
        state.account.throttle.adjust(felt);
    }

    /// Bytes a second, at present.
    pub(super) fn rate(&self) -> f64 {
        self.state.lock().account.throttle.rate()
    }

    /// The same, while any client is there that copying could hold up.
    pub(super) fn beside_clients(&self) -> Option<f64> {
        let state = self.state.lock();
        (!state.account.throttle.is_alone()).then(|| state.account.throttle.rate())
    }

    /// Whether no client is there, here or at the sources, that copying could hold up.
    pub(super) fn is_alone(&self) -> bool {
        let mut state = self.state.lock();
        if self.foreground.is_asked() {
            state.account.throttle.heed();
        }
        state.account.throttle.is_alone()
    }

    /// How large a page is to be. `bulk`: nobody is there.
    pub(super) fn page_bytes(&self, bulk: bool) -> u32 {
        if bulk {
            return BULK_PAGE_BYTES;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let bytes = (self.rate() * PAGE_SECONDS).clamp(PAGE_BYTES.0, PAGE_BYTES.1) as u32;
        bytes
    }

    /// Waits until these bytes, just received, are paid for.
    pub(super) async fn pay(&self, bytes: u64) {
        let until = self.state.lock().account.charge(bytes, &self.foreground);
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_clients_bore_is_kept_between_two_rings_and_where_nobody_is_it_hurries_at_once() {
        let pace = Pace::new(None, Arc::new(Foreground::default()));
        pace.adjust(0.0, false);
        assert_eq!(pace.beside_clients(), None, "it has just been started, and nobody is there");
        pace.adjust(1.0, false);
        let first = pace.beside_clients().unwrap();
        (0..24).for_each(|_| pace.adjust(1.0, true));
        let borne = pace.beside_clients().unwrap();
        assert!(borne > 1.9 * first, "{borne} after {first}");
        tokio::time::advance(REMEMBERED / 2).await;
        pace.adjust(1.0, false);
        assert_eq!(pace.beside_clients(), Some(borne), "the next ring may be on its way");
        pace.adjust(0.0, false);
        assert_eq!(pace.beside_clients(), None, "they have left");
        tokio::time::advance(REMEMBERED).await;
        pace.adjust(1.0, false);
        assert_eq!(pace.beside_clients(), Some(first), "it begins anew");
    }
}

//! How long a client may keep a connection waiting: to say who it is, to end a request, to take its replies.
//!
//! A connection that does nothing costs next to nothing and may stay. One that is in the middle of something holds
//! memory, and whoever does that on many connections at once must not be able to do so for long.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// Who moves this many bytes is not stalled, and has its time anew.
const PROGRESS_BYTES_MIN: u64 = 16 << 10;

/// What a client is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stall {
    /// To say who it is.
    #[error("the client did not say who it is")]
    Nameless,
    /// To send the rest of the request of this number.
    #[error("the client did not end its request {0}")]
    Request(u64),
    /// To take replies.
    #[error("the client did not take its replies")]
    Replies,
}

/// The clock of one connection.
#[derive(Debug)]
pub(super) struct Patience {
    timeout: Duration,
    since: Option<Since>,
    /// Armed when first needed; what it was armed for may be over when it fires.
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug)]
struct Since {
    stall: Stall,
    at: Instant,
    /// Bytes that had been moved by then.
    moved: u64,
}

impl Patience {
    /// Waits no longer than this.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, since: None, timer: None }
    }

    /// Ready when the client has been waited for too long. `stall` is what it is waited for now, and how many bytes it
    /// has moved there since the connection began.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, stall: Option<(Stall, u64)>) -> Poll<Stall> {
        let Some((stall, moved)) = stall else {
            self.since = None;
            return Poll::Pending;
        };
        let goes_on = |since: &Since| since.stall == stall && moved - since.moved < PROGRESS_BYTES_MIN;
        let at = match self.since.filter(goes_on) {
            Some(since) => since.at,
            None => {
                let at = Instant::now();
                self.since = Some(Since { stall, at, moved });
                at
            }
        };
        let due = at + self.timeout;
        loop {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(stall);
            }
            timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    const TIMEOUT: Duration = Duration::from_secs(60);

    /// Waits a second at a time; after how many seconds it was too long, if it was within 1,000.
    async fn lasts(mut stall: impl FnMut(u64) -> Option<(Stall, u64)>) -> Option<u64> {
        let mut patience = Patience::new(TIMEOUT);
        for second in 0..1000 {
            let waited = stall(second);
            let ended = poll_fn(|cx| Poll::Ready(patience.poll(cx, waited).is_ready())).await;
            if ended {
                return Some(second);
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn who_moves_little_is_ended_and_who_moves_much_is_not() {
        assert_eq!(lasts(|_| None).await, None);
        assert_eq!(lasts(|_| Some((Stall::Nameless, 0))).await, Some(60));
        assert_eq!(lasts(|second| Some((Stall::Request(7), second))).await, Some(60));
        assert_eq!(lasts(|second| Some((Stall::Replies, second << 10))).await, None);
        assert_eq!(lasts(|second| Some((Stall::Request(second / 50), second))).await, None);
        assert_eq!(lasts(|second| (second % 59 != 0).then_some((Stall::Replies, 0))).await, None);
    }
}

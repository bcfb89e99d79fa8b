//! A request that was sent to a peer and waits for its answer.

use super::pending::Answer;
use super::{Peer, PeerError};
use annulus_proto::v1::request::Operation;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What is learned from how long an answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It says how long reads take, and whether the peer answers at all.
    Read,
    /// It says whether the peer answers at all.
    Prompt,
    /// Nothing: it waits for third parties.
    Slow,
}

impl Kind {
    pub(super) fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Read(_) => Self::Read,
            Operation::Coordinate(_) => Self::Slow,
            _ => Self::Prompt,
        }
    }
}

/// A request under way. It resolves to the answer, or to [`PeerError::Lost`] if the stream ends before; dropped earlier,
/// its answer goes nowhere.
pub struct Asking {
    pub(super) peer: Arc<Peer>,
    pub(super) id: u64,
    pub(super) answer: oneshot::Receiver<Answer>,
    pub(super) kind: Kind,
    pub(super) since: Instant,
    pub(super) usual: Duration,
    /// Nothing is expected any more.
    pub(super) ended: bool,
}

impl Asking {
    /// The time in which the peer answers 19 of 20 reads.
    #[must_use]
    pub fn usual(&self) -> Duration {
        self.usual
    }

    /// The request could not be sent.
    pub(super) fn take_back(&mut self, now: Instant) {
        self.ended = true;
        self.peer.pending.forget(self.id);
        if self.kind != Kind::Slow {
            self.peer.observed.given_up(now, None);
        }
    }

    fn read_took(&self, now: Instant) -> Option<Duration> {
        (self.kind == Kind::Read).then(|| now - self.since)
    }
}

impl Future for Asking {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let Poll::Ready(answer) = Pin::new(&mut self.answer).poll(cx) else { return Poll::Pending };
        let answer = answer.unwrap_or(Err(PeerError::Lost));
        self.ended = true;
        if self.kind != Kind::Slow {
            let now = Instant::now();
            match answer.is_ok() {
                true => self.peer.observed.answered(now, self.read_took(now)),
                // How long it took to be told that says nothing of the peer.
                false => self.peer.observed.given_up(now, None),
            }
        }
        Poll::Ready(answer)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.peer.pending.forget(self.id);
        if self.kind != Kind::Slow {
            let now = Instant::now();
            self.peer.observed.given_up(now, self.read_took(now));
        }
    }
}

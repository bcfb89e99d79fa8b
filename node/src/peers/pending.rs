//! Requests sent to a peer and not yet answered.

use super::PeerError;
use annulus_proto::v1::reply;
use dynamo::preference::MemberIndex;
use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What a peer answered, or why it did not.
pub type Answer = Result<reply::Result, PeerError>;

/// Hears of answers without a task that waits for each: several requests may have one listener.
pub trait Listener: Send + Sync {
    /// A member has answered, or the stream to it has ended before. Called once for each request; must be quick.
    fn hear(self: Arc<Self>, member: MemberIndex, answer: Answer);
}

/// Who is to be told.
enum Waiter {
    Asker(oneshot::Sender<Answer>),
    Listener(MemberIndex, Arc<dyn Listener>),
}

impl Waiter {
    fn tell(self, answer: Answer) {
        match self {
            Self::Asker(asker) => drop(asker.send(answer)),
            Self::Listener(member, listener) => listener.hear(member, answer),
        }
    }
}

/// Unanswered requests by their id.
#[derive(Default)]
pub struct PendingRequests {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next_id: u64,
    waiting: HashMap<u64, Waiter, FxBuildHasher>,
}

impl PendingRequests {
    /// Registers a request; `None` if there are `requests_max` already.
    pub fn register(&self, requests_max: usize) -> Option<(u64, oneshot::Receiver<Answer>)> {
        let (sender, receiver) = oneshot::channel();
        Some((self.enter(requests_max, Waiter::Asker(sender))?, receiver))
    }

    /// The same for a request to `member` of whose answer a listener hears.
    pub fn register_listener(
        &self,
        requests_max: usize,
        member: MemberIndex,
        listener: Arc<dyn Listener>,
    ) -> Option<u64> {
        self.enter(requests_max, Waiter::Listener(member, listener))
    }

    fn enter(&self, requests_max: usize, waiter: Waiter) -> Option<u64> {
        let mut inner = self.inner.lock();
        if inner.waiting.len() >= requests_max {
            return None;
        }
        inner.next_id += 1;
        let id = inner.next_id;
        inner.waiting.insert(id, waiter);
        Some(id)
    }

    /// Gives the answers of one frame to those who wait for them. Nobody may wait any more; that is no error. Returns
    /// of how many of them listeners have heard.
    pub fn answer(&self, replies: impl Iterator<Item = (u64, Option<reply::Result>)>) -> usize {
        let mut heard = 0;
        for (id, result) in replies {
            // Told without the lock: a listener may have more to ask.
            let waiter = self.inner.lock().waiting.remove(&id);
            if let Some(waiter) = waiter {
                heard += usize::from(matches!(waiter, Waiter::Listener(..)));
                waiter.tell(result.ok_or(PeerError::Protocol));
            }
        }
        heard
    }

    /// Forgets a request whose sender has given up.
    pub fn forget(&self, id: u64) {
        self.inner.lock().waiting.remove(&id);
    }

    /// Ends every request with this error.
    pub fn fail_all(&self, error: &PeerError) {
        let waiting = std::mem::take(&mut self.inner.lock().waiting);
        for waiter in waiting.into_values() {
            waiter.tell(Err(error.clone()));
        }
    }

    /// How many are unanswered.
    pub fn len(&self) -> usize {
        self.inner.lock().waiting.len()
    }
}

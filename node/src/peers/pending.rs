//! Requests sent to a peer and not yet answered.

use super::PeerError;
use annulus_proto::v1::reply;
use parking_lot::Mutex;
use std::collections::HashMap;
use tokio::sync::oneshot;

/// What a peer answered, or why it did not.
pub type Answer = Result<reply::Result, PeerError>;

/// Unanswered requests by their id.
#[derive(Default)]
pub struct PendingRequests {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next_id: u64,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
}

impl PendingRequests {
    /// Registers a request; `None` if there are `requests_max` already.
    pub fn register(&self, requests_max: usize) -> Option<(u64, oneshot::Receiver<Answer>)> {
        let mut inner = self.inner.lock();
        if inner.waiting.len() >= requests_max {
            return None;
        }
        inner.next_id += 1;
        let id = inner.next_id;
        let (sender, receiver) = oneshot::channel();
        inner.waiting.insert(id, sender);
        Some((id, receiver))
    }

    /// Gives the answers of one frame to those who wait for them. Nobody may wait any more; that is no error.
    pub fn answer(&self, replies: impl Iterator<Item = (u64, Option<reply::Result>)>) {
        let mut inner = self.inner.lock();
        for (id, result) in replies {
            if let Some(waiter) = inner.waiting.remove(&id) {
                let _ = waiter.send(result.ok_or(PeerError::Protocol));
            }
        }
    }

    /// Forgets a request whose sender has given up.
    pub fn forget(&self, id: u64) {
        self.inner.lock().waiting.remove(&id);
    }

    /// Ends every request with this error.
    pub fn fail_all(&self, error: &PeerError) {
        let waiting = std::mem::take(&mut self.inner.lock().waiting);
        for waiter in waiting.into_values() {
            let _ = waiter.send(Err(error.clone()));
        }
    }

    /// How many are unanswered.
    pub fn len(&self) -> usize {
        self.inner.lock().waiting.len()
    }
}

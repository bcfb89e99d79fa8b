//! The outcome of a batch, awaited by all whose changes are in it.
//!
//! One allocation serves a whole batch, where a oneshot channel would cost one for every write.

use crate::storage::error::StorageError;
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

/// Resolves when the changes submitted are durable, or are known not to be.
///
/// Dropping it changes nothing about the changes: they are committed all the same.
#[derive(Debug)]
pub struct Submitted {
    completion: Arc<Completion>,
    place: Option<usize>,
}

#[derive(Debug, Default)]
pub(super) struct Completion {
    outcome: OnceLock<Result<(), StorageError>>,
    waiting: Mutex<Vec<Waker>>,
}

impl Completion {
    pub(super) fn submitted(self: &Arc<Self>) -> Submitted {
        Submitted { completion: self.clone(), place: None }
    }

    /// Tells everyone who waits. Only the first outcome counts.
    pub(super) fn complete(&self, outcome: Result<(), StorageError>) {
        let _ = self.outcome.set(outcome);
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Submitted {
    /// One that is done, whatever becomes of the changes.
    pub(super) fn done() -> Self {
        let completion = Arc::new(Completion::default());
        completion.complete(Ok(()));
        completion.submitted()
    }

    /// One that has failed already.
    pub(super) fn failed(error: StorageError) -> Self {
        let completion = Arc::new(Completion::default());
        completion.complete(Err(error));
        completion.submitted()
    }
}

impl Future for Submitted {
    type Output = Result<(), StorageError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { completion, place } = &mut *self;
        if let Some(outcome) = completion.outcome.get() {
            return Poll::Ready(outcome.clone());
        }
        let mut waiting = completion.waiting.lock();
        // The outcome may have come between the look and the lock; whoever sets it takes the lock afterwards.
        if let Some(outcome) = completion.outcome.get() {
            return Poll::Ready(outcome.clone());
        }
        match place.and_then(|place| waiting.get_mut(place)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                *place = Some(waiting.len());
                waiting.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}

//! Commits batches one after the other, on a thread of its own or as a task of a simulated node.

use super::Shared;
use super::completion::Completion;
use super::queue::Batch;
use crate::storage::engine::{Change, Engine, EngineError};
use crate::storage::error::StorageError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The side of the queue that commits.
pub(super) struct Worker<F> {
    pub(super) shared: Arc<Shared>,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) on_committed: F,
}

impl<F: Fn(&[Change], &Result<(), StorageError>)> Worker<F> {
    /// Commits until the queue ends.
    pub(super) fn run(self) {
        while self.shared.wait_until_filled() {
            // Where processors are scarce, whoever is ready to run may have changes to add, and the more a flush makes
            // durable, the less each costs. Where they are not, this returns at once.
            std::thread::yield_now();
            if let Some(batch) = self.shared.pop_when_ready() {
                self.commit(batch);
            }
        }
    }

    /// The same as a task. Each commit takes `commit_time`, during which the next batch gathers.
    pub(super) async fn run_inline(self, commit_time: Duration) {
        loop {
            let woken = self.shared.woken.notified();
            match self.shared.next_batch() {
                Ok(Some(batch)) => {
                    tokio::time::sleep(commit_time).await;
                    self.commit(batch);
                }
                Ok(None) => woken.await,
                Err(super::Ended) => return,
            }
        }
    }

    fn commit(&self, batch: Batch) {
        if let Some(error) = batch.refused.clone() {
            return self.finish(self.tell(batch, Err(error)));
        }
        match self.try_commit(&batch) {
            Ok(()) => self.finish(self.tell(batch, Ok(()))),
            Err(error) => self.fail(batch, error),
        }
    }

    fn try_commit(&self, batch: &Batch) -> Result<(), StorageError> {
        let shared = &self.shared;
        if let Some(error) = shared.broken.get() {
            return Err(error.clone());
        }
        if batch.is_empty() {
            return Ok(());
        }
        shared.guard.check(batch.purpose, batch.bytes).inspect_err(|_| {
            shared.stats.refused.fetch_add(1, Ordering::Relaxed);
        })?;
        let started = Instant::now();
        // A panic must not leave those who wait without an answer. The engine is not used for writes after one.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.write(batch)));
        let outcome = match outcome {
            Ok(outcome) => outcome.map_err(StorageError::from),
            Err(_) => Err(StorageError::Broken("the storage engine panicked".to_owned())),
        };
        match &outcome {
            Ok(()) => shared.stats.committed(batch.len(), batch.bytes, started.elapsed()),
            Err(error) => {
                shared.stats.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "a commit failed");
                if matches!(error, StorageError::Broken(_)) {
                    shared.break_down(error);
                }
            }
        }
        outcome
    }

    fn write(&self, batch: &Batch) -> Result<(), EngineError> {
        if !batch.run.is_empty() {
            self.engine.load(&batch.run)?;
        }
        // Behind the run: what says that it is there must not be durable when it is not.
        self.engine.commit(&batch.changes)
    }

    /// Fails a batch and all that may have been computed from it.
    ///
    /// A change is computed under its key's lock from what is pending, and queued before the lock is let go. The
    /// callback, which takes that lock, makes the pending changes of the batch forgotten; whoever was computing from
    /// them has queued the result by then. So whatever is in the queue afterwards may build on a change that was not
    /// stored, and fails as well; what comes later is computed from what the engine has. Nobody is told before that,
    /// so whoever tries again after a failure is not taken for one who built on it.
    fn fail(&self, batch: Batch, error: StorageError) {
        let mut failed = vec![self.tell(batch, Err(error.clone()))];
        loop {
            let queued = self.shared.queue.lock().take_all();
            if queued.is_empty() {
                break;
            }
            failed.extend(queued.into_iter().map(|batch| {
                let error = batch.refused.clone().unwrap_or_else(|| error.clone());
                self.tell(batch, Err(error))
            }));
        }
        failed.into_iter().for_each(|told| self.finish(told));
    }

    /// Tells the callback what became of a batch.
    fn tell(&self, batch: Batch, outcome: Result<(), StorageError>) -> Told {
        let Batch { changes, run, bytes_held, upkeep_held, completion, .. } = batch;
        for changes in [run, changes] {
            if !changes.is_empty() {
                (self.on_committed)(&changes, &outcome);
            }
        }
        Told { bytes_held, upkeep_held, completion, outcome }
    }

    /// Tells those who wait.
    fn finish(&self, told: Told) {
        self.shared.release(told.bytes_held, told.upkeep_held);
        told.completion.complete(told.outcome);
    }
}

/// A batch of which the callback has heard.
struct Told {
    bytes_held: usize,
    upkeep_held: usize,
    completion: Arc<Completion>,
    outcome: Result<(), StorageError>,
}

impl<F> Drop for Worker<F> {
    /// However the worker ends, nobody waits for it forever.
    fn drop(&mut self) {
        let left = {
            let mut queue = self.shared.queue.lock();
            queue.ending = true;
            queue.take_all()
        };
        for batch in left {
            self.shared.release(batch.bytes_held, batch.upkeep_held);
            batch.completion.complete(Err(StorageError::Closed));
        }
        self.shared.ended.complete(Ok(()));
    }
}

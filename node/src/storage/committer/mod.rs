//! Group commit: many writes, one flush of the disk.
//!
//! One committer takes whatever is queued as one batch to the engine. While it flushes, the next batch gathers by
//! itself, so batches are as large as the load is high and a lone write waits for nobody. The idea is as old as
//! DeWitt et al., "Implementation Techniques for Main Memory Database Systems" (1984).

mod completion;
mod queue;
mod worker;

pub use completion::Submitted;

use super::disk_guard::DiskGuard;
use super::engine::{Change, Engine};
use super::error::StorageError;
use super::stats::StorageStats;
use crate::config::Limits;
use completion::Completion;
use parking_lot::{Condvar, Mutex};
use queue::{Batch, Held, Queue};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore};
use worker::Worker;

/// Most submits of upkeep in the queue.
const UPKEEP_PLACES: usize = 4096;

/// The queue in front of an engine. Clones are handles of the same queue; when the last is dropped, what is queued is
/// committed and the committer ends.
#[derive(Clone)]
pub struct Committer(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    engine: Arc<dyn Engine>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Wakes the committer's thread.
    filled: Condvar,
    /// Wakes the committer's task.
    woken: Notify,
    bytes_max: usize,
    bytes_left: Semaphore,
    upkeep_left: Semaphore,
    guard: DiskGuard,
    broken: OnceLock<StorageError>,
    stats: Arc<StorageStats>,
    ended: Arc<Completion>,
}

/// The queue is empty and takes no more.
struct Ended;

/// Room in the queue for one submit, to be obtained before any lock is taken. Dropping it gives the room back.
#[must_use = "room that is not used is given back at once"]
pub struct Reservation {
    shared: Arc<Shared>,
    held: Held,
}

impl Committer {
    /// Starts a committer on a thread of its own.
    ///
    /// `on_committed` hears of every change submitted, batch by batch, in order: after the engine has applied the
    /// batch, or has not, and before those who wait are told. It runs on the committer's thread and must be quick. It
    /// may take the locks under which changes are submitted.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        engine: Arc<dyn Engine>,
        limits: &Limits,
        on_committed: impl Fn(&[Change], &Result<(), StorageError>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::new(engine.clone(), limits));
        let worker = Worker { shared: shared.clone(), engine: engine.clone(), on_committed };
        let thread = std::thread::Builder::new().name("committer".to_owned()).spawn(move || worker.run())?;
        Ok(Self(Arc::new(Handle { shared, engine, thread: Mutex::new(Some(thread)) })))
    }

    /// Starts a committer as a task of the current tokio runtime, without a thread, for deterministic simulation.
    ///
    /// Every commit takes `commit_time` of the runtime's clock; the engine should be one that does not block.
    pub fn inline(
        engine: Arc<dyn Engine>,
        limits: &Limits,
        commit_time: Duration,
        on_committed: impl Fn(&[Change], &Result<(), StorageError>) + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared::new(engine.clone(), limits));
        let worker = Worker { shared: shared.clone(), engine: engine.clone(), on_committed };
        tokio::spawn(worker.run_inline(commit_time));
        Self(Arc::new(Handle { shared, engine, thread: Mutex::new(None) }))
    }

    /// Waits for room in the queue for a write of about this many bytes.
    ///
    /// # Errors
    /// [`StorageError::DiskFull`], [`StorageError::Broken`] and [`StorageError::Closed`].
    pub async fn reserve(&self, bytes: usize) -> Result<Reservation, StorageError> {
        let shared = &self.0.shared;
        shared.admit()?;
        let bytes = shared.cap(bytes);
        let permit = shared.bytes_left.acquire_many(bytes).await.map_err(|_| shared.why_closed())?;
        permit.forget();
        Ok(Reservation { shared: shared.clone(), held: Held::Bytes(bytes as usize) })
    }

    /// As [`Self::reserve`], without waiting.
    ///
    /// # Errors
    /// [`StorageError::Overloaded`] when there is no room now, and those of [`Self::reserve`].
    pub fn try_reserve(&self, bytes: usize) -> Result<Reservation, StorageError> {
        let shared = &self.0.shared;
        shared.admit()?;
        let permits = shared.cap(bytes);
        match shared.bytes_left.try_acquire_many(permits) {
            Ok(permit) => permit.forget(),
            Err(tokio::sync::TryAcquireError::NoPermits) => return Err(StorageError::Overloaded { bytes }),
            Err(tokio::sync::TryAcquireError::Closed) => return Err(shared.why_closed()),
        }
        Ok(Reservation { shared: shared.clone(), held: Held::Bytes(permits as usize) })
    }

    /// Waits for a place for upkeep: removals, and small records that the node keeps of itself. They are let through
    /// when clients' writes are not: while the queue is full of those, and when the disk has less than the reserve
    /// left, down to a quarter of it.
    pub async fn reserve_control(&self) -> Reservation {
        let shared = &self.0.shared;
        let held = match shared.upkeep_left.acquire().await {
            Ok(permit) => {
                permit.forget();
                Held::UpkeepPlace
            }
            // Closed or broken: the submit will say so.
            Err(_) => Held::Nothing,
        };
        Reservation { shared: shared.clone(), held }
    }

    /// Queues changes that become durable together, all or none. They have their place in the order of the queue
    /// when this returns, before the future is first polled; it never blocks.
    pub fn submit(&self, changes: impl IntoIterator<Item = Change>, mut reservation: Reservation) -> Submitted {
        let held = std::mem::replace(&mut reservation.held, Held::Nothing);
        let changes = changes.into_iter().collect();
        self.push(held, |queue, held| queue.push(changes, held))
    }

    /// Queues a run of objects that are new, ascending, which the engine may [load](Engine::load), and `changes`, which
    /// are durable only when all of the run is. A crash may leave a part of the run without them.
    pub fn submit_run(&self, run: Vec<Change>, changes: Vec<Change>, mut reservation: Reservation) -> Submitted {
        let held = std::mem::replace(&mut reservation.held, Held::Nothing);
        self.push(held, |queue, held| queue.push_run(run, changes, held))
    }

    /// Resolves when everything submitted before is durable, or has failed.
    ///
    /// # Errors
    /// When a batch that the barrier shares has failed, or the committer has ended.
    #[must_use]
    pub fn barrier(&self) -> Submitted {
        self.push(Held::Nothing, |queue, held| queue.push(Vec::new(), held))
    }

    /// Whether the engine takes no more writes, so that only a new start of the process helps. Reads may go on.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        let shared = &self.0.shared;
        // The engine's background work may have failed while a commit waits for it: then no commit ever says so.
        if shared.broken.get().is_none()
            && let Err(error) = self.0.engine.health()
        {
            shared.break_down(&error.into());
        }
        shared.broken.get().is_some()
    }

    /// Whether writes are refused for want of disk space.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.0.shared.guard.is_full()
    }

    /// Counts since the start.
    #[must_use]
    pub fn stats(&self) -> &Arc<StorageStats> {
        &self.0.shared.stats
    }

    /// Bytes reserved and not yet committed.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        let shared = &self.0.shared;
        shared.bytes_max.saturating_sub(shared.bytes_left.available_permits())
    }

    /// Takes no more changes, commits what is queued and ends the committer. Returns when it has ended.
    pub async fn close(&self) {
        self.0.shared.end();
        let _ = self.0.shared.ended.submitted().await;
        let thread = self.0.thread.lock().take();
        // It has nothing left to do, so this does not block.
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the committer's thread panicked");
        }
    }

    fn push(&self, held: Held, push: impl FnOnce(&mut Queue, Held) -> Submitted) -> Submitted {
        let shared = &self.0.shared;
        let mut queue = shared.queue.lock();
        if queue.ending {
            drop(queue);
            shared.give_back(held);
            return Submitted::failed(shared.why_closed());
        }
        let submitted = push(&mut queue, held);
        let idle = std::mem::replace(&mut queue.idle, false);
        drop(queue);
        if idle {
            shared.filled.notify_one();
            shared.woken.notify_one();
        }
        submitted
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.give_back(self.held);
    }
}

impl Shared {
    fn new(engine: Arc<dyn Engine>, limits: &Limits) -> Self {
        let bytes_max = limits.commit_queue_bytes_max.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self {
            queue: Mutex::default(),
            filled: Condvar::new(),
            woken: Notify::new(),
            bytes_max,
            bytes_left: Semaphore::new(bytes_max),
            upkeep_left: Semaphore::new(UPKEEP_PLACES),
            guard: DiskGuard::new(engine, limits.disk_reserve_bytes),
            broken: OnceLock::new(),
            stats: Arc::default(),
            ended: Arc::default(),
        }
    }

    fn admit(&self) -> Result<(), StorageError> {
        if let Some(error) = self.broken.get() {
            return Err(error.clone());
        }
        self.guard.admit()
    }

    /// A write larger than the whole queue has it for itself.
    fn cap(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.clamp(1, self.bytes_max)).unwrap_or(u32::MAX)
    }

    fn why_closed(&self) -> StorageError {
        self.broken.get().cloned().unwrap_or(StorageError::Closed)
    }

    fn give_back(&self, held: Held) {
        match held {
            Held::Bytes(bytes) => self.release(bytes, 0),
            Held::UpkeepPlace => self.release(0, 1),
            Held::Nothing => {}
        }
    }

    fn release(&self, bytes: usize, upkeep_places: usize) {
        self.bytes_left.add_permits(bytes);
        self.upkeep_left.add_permits(upkeep_places);
    }

    /// Lets nobody wait for an engine that will not write again.
    fn break_down(&self, error: &StorageError) {
        let _ = self.broken.set(error.clone());
        self.bytes_left.close();
        self.upkeep_left.close();
    }

    fn end(&self) {
        self.queue.lock().ending = true;
        self.filled.notify_one();
        self.woken.notify_one();
    }

    /// Waits until something is queued; `false`: the queue is empty and takes no more.
    fn wait_until_filled(&self) -> bool {
        let mut queue = self.queue.lock();
        loop {
            if !queue.is_empty() {
                return true;
            }
            if queue.ending {
                return false;
            }
            queue.idle = true;
            self.filled.wait(&mut queue);
            queue.idle = false;
        }
    }

    /// The batch whose turn it is, once it is not worth waiting for more to join it.
    fn pop_when_ready(&self) -> Option<Batch> {
        let mut queue = self.queue.lock();
        while let Some(left) = queue.may_wait(Instant::now()) {
            queue.idle = true;
            self.filled.wait_for(&mut queue, left);
            queue.idle = false;
        }
        queue.pop()
    }

    fn next_batch(&self) -> Result<Option<Batch>, Ended> {
        let mut queue = self.queue.lock();
        let batch = queue.pop();
        if batch.is_none() && queue.ending {
            return Err(Ended);
        }
        queue.idle = batch.is_none();
        Ok(batch)
    }
}

#[cfg(test)]
mod tests;

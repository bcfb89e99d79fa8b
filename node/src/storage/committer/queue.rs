//! Batches that wait for the committer. Changes join the last batch until it is full, in the order of their coming.

use super::completion::{Completion, Submitted};
use crate::planted;
use crate::storage::disk_guard::Purpose;
use crate::storage::engine::{Change, KEY_BYTES_MAX, Space};
use crate::storage::error::StorageError;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A batch takes no more changes once it has this many.
pub(super) const BATCH_CHANGES_MAX: usize = 1024;
/// A batch takes no more changes once it has this many bytes.
pub(super) const BATCH_BYTES_MAX: usize = 8 << 20;
/// A batch of runs takes no more once it has this many bytes: writes that come now wait for it.
const RUNS_BYTES_MAX: usize = 8 << 20;
/// Runs are loaded once there are so many bytes of them, or something else waits too, or the first has waited for so long:
/// what a table costs besides its bytes would take half of the time if they were small.
const RUNS_BYTES_WANTED: usize = 6 << 20;
const RUN_WAIT_MAX: Duration = Duration::from_millis(25);

/// Changes that are committed together.
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    /// What is to be loaded before them: new objects, ascending.
    pub(super) run: Vec<Change>,
    pub(super) bytes: usize,
    /// Bytes of the queue's bound that its changes hold.
    pub(super) bytes_held: usize,
    /// Submits in it that hold a place for upkeep.
    pub(super) upkeep_held: usize,
    pub(super) purpose: Purpose,
    /// Decided without asking the engine.
    pub(super) refused: Option<StorageError>,
    pub(super) completion: Arc<Completion>,
    /// When it was begun.
    began: Instant,
}

/// What a reservation holds of the queue's bounds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Held {
    Bytes(usize),
    UpkeepPlace,
    Nothing,
}

#[derive(Default)]
pub(super) struct Queue {
    batches: VecDeque<Batch>,
    /// The committer waits to be woken.
    pub(super) idle: bool,
    /// No more changes are taken; the committer ends when the queue is empty.
    pub(super) ending: bool,
}

impl Queue {
    pub(super) fn push(&mut self, changes: Vec<Change>, held: Held) -> Submitted {
        if let Some(error) = unfit(&changes) {
            return self.push_refused(changes, held, error);
        }
        let record = !matches!(held, Held::Bytes(_)) && changes.iter().all(|change| change.space() == Space::Meta);
        let batch = self.last_if(|last| last.has_room(record));
        batch.bytes += changes.iter().map(Change::len_bytes).sum::<usize>();
        batch.changes.extend(changes);
        batch.hold(held);
        if planted::is("ack-before-sync") {
            return Submitted::done();
        }
        batch.completion.submitted()
    }

    /// Queues a run of new objects and the changes that come behind them. What is queued last is joined if it is a run
    /// too, and ends before this one begins.
    pub(super) fn push_run(&mut self, run: Vec<Change>, changes: Vec<Change>, held: Held) -> Submitted {
        let all = || run.iter().chain(&changes);
        if let Some(error) = unfit(all()) {
            return self.push_refused([run, changes].concat(), held, error);
        }
        let bytes = all().map(Change::len_bytes).sum::<usize>();
        let batch = self.last_if(|last| last.is_continued_by(&run, bytes));
        batch.run.extend(run);
        batch.changes.extend(changes);
        batch.bytes += bytes;
        batch.hold(held);
        batch.completion.submitted()
    }

    /// The batch queued last, if it may be joined; else a new one behind it.
    fn last_if(&mut self, joined: impl FnOnce(&Batch) -> bool) -> &mut Batch {
        if !self.batches.back().is_some_and(joined) {
            self.batches.push_back(Batch::new());
        }
        let last = self.batches.len() - 1;
        &mut self.batches[last]
    }

    /// Queues changes that are not to be committed, so that the callback hears of them in their turn.
    fn push_refused(&mut self, changes: Vec<Change>, held: Held, error: StorageError) -> Submitted {
        let mut batch = Batch::new();
        batch.changes = changes;
        batch.hold(held);
        batch.refused = Some(error);
        let submitted = batch.completion.submitted();
        self.batches.push_back(batch);
        submitted
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// How much longer it is worth waiting for more, if nothing else waits than a run that is short.
    pub(super) fn may_wait(&self, now: Instant) -> Option<Duration> {
        let short = |batch: &Batch| !batch.run.is_empty() && batch.bytes < RUNS_BYTES_WANTED;
        let batch =
            self.batches.front().filter(|batch| self.batches.len() == 1 && !self.ending && short(batch))?;
        RUN_WAIT_MAX.checked_sub(now.saturating_duration_since(batch.began)).filter(|left| !left.is_zero())
    }

    pub(super) fn pop(&mut self) -> Option<Batch> {
        self.batches.pop_front()
    }

    pub(super) fn take_all(&mut self) -> VecDeque<Batch> {
        std::mem::take(&mut self.batches)
    }
}

impl Batch {
    fn new() -> Self {
        Self {
            changes: Vec::new(),
            run: Vec::new(),
            bytes: 0,
            bytes_held: 0,
            upkeep_held: 0,
            purpose: Purpose::Upkeep,
            refused: None,
            completion: Arc::default(),
            began: Instant::now(),
        }
    }

    /// Whether it takes more. Records may come behind a run, and what joins the run later is there before them too; other
    /// changes would wait for it.
    fn has_room(&self, record: bool) -> bool {
        let few = self.changes.len() < BATCH_CHANGES_MAX && self.bytes < BATCH_BYTES_MAX;
        self.refused.is_none() && (record || self.run.is_empty()) && few
    }

    /// Whether a run of so many bytes, with what comes behind it, can be part of it.
    fn is_continued_by(&self, run: &[Change], bytes: usize) -> bool {
        let ascends = self.run.last().zip(run.first()).is_some_and(|(last, next)| last.key() < next.key());
        self.refused.is_none() && ascends && self.bytes + bytes <= RUNS_BYTES_MAX
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.run.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len() + self.run.len()
    }

    fn hold(&mut self, held: Held) {
        match held {
            Held::Bytes(bytes) => {
                self.bytes_held += bytes;
                self.purpose = Purpose::Data;
            }
            Held::UpkeepPlace => self.upkeep_held += 1,
            Held::Nothing => {}
        }
    }
}

/// Why these cannot be committed: a key that the engine cannot hold.
fn unfit<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Option<StorageError> {
    let mut lengths = changes.into_iter().map(|change| change.key().len());
    lengths.find(|bytes| !(1..=KEY_BYTES_MAX).contains(bytes)).map(|bytes| StorageError::KeyLength { bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn run(number: u32, bytes: usize) -> Vec<Change> {
        let key = Bytes::copy_from_slice(&number.to_be_bytes());
        vec![Change::Put { space: Space::Data, key, value: Bytes::from(vec![0; bytes]) }]
    }

    #[test]
    fn a_short_run_waits_a_little_for_more_and_for_nothing_else() {
        let waits =
            |queue: &Queue| queue.may_wait(queue.batches.front().map_or_else(Instant::now, |first| first.began));
        let mut queue = Queue::default();
        assert_eq!(waits(&queue), None);
        let _first = queue.push_run(run(1, 1000), Vec::new(), Held::Nothing);
        assert_eq!(waits(&queue), Some(RUN_WAIT_MAX));
        assert_eq!(queue.may_wait(queue.batches[0].began + RUN_WAIT_MAX), None, "long enough");
        let _second = queue.push_run(run(2, 1000), Vec::new(), Held::Nothing);
        assert_eq!((queue.batches.len(), waits(&queue)), (1, Some(RUN_WAIT_MAX)));
        queue.ending = true;
        assert_eq!(waits(&queue), None);
        queue.ending = false;
        let _write = queue.push(run(3, 10), Held::Nothing);
        assert_eq!(waits(&queue), None, "a client waits for what is behind it");
        let _runs = queue.pop();
        assert_eq!(waits(&queue), None, "no run");
        let _write = queue.pop();
        let _long = queue.push_run(run(4, RUNS_BYTES_WANTED), Vec::new(), Held::Nothing);
        assert_eq!(waits(&queue), None);
    }

    fn in_space(space: Space) -> Vec<Change> {
        vec![Change::Put { space, key: Bytes::from_static(b"key"), value: Bytes::new() }]
    }

    #[test]
    fn records_come_behind_a_run_that_goes_on_and_nothing_else_does() {
        let mut queue = Queue::default();
        let _first = queue.push_run(run(1, 1000), Vec::new(), Held::Bytes(1000));
        let _record = queue.push(in_space(Space::Meta), Held::UpkeepPlace);
        let _barrier = queue.push(Vec::new(), Held::Nothing);
        let _second = queue.push_run(run(2, 1000), in_space(Space::Meta), Held::Bytes(1000));
        assert_eq!(queue.batches.len(), 1);
        assert_eq!((queue.batches[0].run.len(), queue.batches[0].changes.len()), (2, 2));
        assert!(queue.may_wait(queue.batches[0].began).is_some());
        for (space, held) in [(Space::Data, Held::UpkeepPlace), (Space::Meta, Held::Bytes(10))] {
            let mut queue = Queue::default();
            let _run = queue.push_run(run(1, 1000), Vec::new(), Held::Bytes(1000));
            let _other = queue.push(in_space(space), held);
            assert_eq!(queue.batches.len(), 2);
        }
    }
}

//! Batches that wait for the committer. Changes join the last batch until it is full, in the order of their coming.

use super::completion::{Completion, Submitted};
use crate::planted;
use crate::storage::disk_guard::Purpose;
use crate::storage::engine::{Change, KEY_BYTES_MAX};
use crate::storage::error::StorageError;
use std::collections::VecDeque;
use std::sync::Arc;

/// A batch takes no more changes once it has this many.
pub(super) const BATCH_CHANGES_MAX: usize = 1024;
/// A batch takes no more changes once it has this many bytes.
pub(super) const BATCH_BYTES_MAX: usize = 8 << 20;
/// A batch of runs takes no more once it has this many bytes: writes that come now wait for it.
const RUNS_BYTES_MAX: usize = 8 << 20;

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
    pub(super) fn push(&mut self, changes: impl IntoIterator<Item = Change>, held: Held) -> Submitted {
        let batch = self.last_if(Batch::has_room);
        let before = batch.changes.len();
        batch.changes.extend(changes);
        let new = &batch.changes[before..];
        if let Some(bytes) = new.iter().map(|change| change.key().len()).find(|bytes| !fits(*bytes)) {
            let changes = batch.changes.split_off(before);
            return self.push_refused(changes, held, StorageError::KeyLength { bytes });
        }
        batch.bytes += new.iter().map(Change::len_bytes).sum::<usize>();
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
        if let Some(bytes) = all().map(|change| change.key().len()).find(|bytes| !fits(*bytes)) {
            return self.push_refused([run, changes].concat(), held, StorageError::KeyLength { bytes });
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
        }
    }

    fn has_room(&self) -> bool {
        let few = self.changes.len() < BATCH_CHANGES_MAX && self.bytes < BATCH_BYTES_MAX;
        self.refused.is_none() && self.run.is_empty() && few
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

fn fits(key_bytes: usize) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key_bytes)
}

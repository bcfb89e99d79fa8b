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

/// Changes that are committed together.
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
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
        let batch = match self.batches.back_mut() {
            Some(batch) if batch.has_room() => batch,
            _ => {
                self.batches.push_back(Batch::new());
                let last = self.batches.len() - 1;
                &mut self.batches[last]
            }
        };
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
            bytes: 0,
            bytes_held: 0,
            upkeep_held: 0,
            purpose: Purpose::Upkeep,
            refused: None,
            completion: Arc::default(),
        }
    }

    fn has_room(&self) -> bool {
        self.refused.is_none() && self.changes.len() < BATCH_CHANGES_MAX && self.bytes < BATCH_BYTES_MAX
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

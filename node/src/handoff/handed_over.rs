//! Which leftovers were handed over, under which lists.

use dynamo::ring::RingView;
use std::collections::BTreeMap;

/// Partitions that were handed over and have got nothing since: as long as no list of theirs changes, nobody may write
/// them here.
#[derive(Debug, Default)]
pub(super) struct HandedOver {
    /// Number of partitions that the numbers mean.
    partitions: usize,
    /// Since when the lists are those that it was handed over under.
    since: BTreeMap<u32, u64>,
}

impl HandedOver {
    /// Whether nothing of this partition is left that its holders have not confirmed.
    pub(super) fn contains(&self, view: &RingView, partition: u32) -> bool {
        self.partitions == view.ring().partitions.len()
            && self.since.get(&partition).is_some_and(|since| *since == view.since_of(partition))
    }

    /// Takes note of one that was handed over under this ring.
    pub(super) fn insert(&mut self, view: &RingView, partition: u32) {
        let partitions = view.ring().partitions.len();
        if std::mem::replace(&mut self.partitions, partitions) != partitions {
            self.since.clear();
        }
        self.since.insert(partition, view.since_of(partition));
    }
}

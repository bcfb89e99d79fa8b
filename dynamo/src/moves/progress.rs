//! How far a rebalance is, read off the document alone.

use super::membership;
use crate::ring::{Phase, Ring, same_set};

/// Counts of a document, for status and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Number of partitions Q.
    pub partitions: usize,
    /// Partitions whose lists are not yet as the target says, the moving ones included.
    pub left: usize,
    /// Partitions that fill.
    pub filling: usize,
    /// Partitions whose old list retires.
    pub retiring: usize,
    /// Replica moves (partition, new holder) still to be made.
    pub replica_moves_left: usize,
}

/// Reads the progress off a document.
#[must_use]
pub fn progress(ring: &Ring) -> Progress {
    let wanted =
        ring.target.as_ref().map(|target| membership::lists(ring, &target.owners, usize::from(ring.quorums.n)));
    let mut progress = Progress { partitions: ring.partitions.len(), ..Progress::default() };
    for (partition, placement) in ring.partitions.iter().enumerate() {
        let phase = placement.also.as_ref().map(|also| also.phase);
        progress.filling += usize::from(phase == Some(Phase::Filling));
        progress.retiring += usize::from(phase == Some(Phase::Retiring));
        let list = wanted.as_ref().and_then(|lists| lists.get(partition));
        let arrived = list.is_none_or(|list| same_set(list, &placement.preference));
        progress.left += usize::from(!arrived || phase.is_some());
        progress.replica_moves_left +=
            list.map_or(0, |list| list.iter().filter(|index| !placement.preference.contains(index)).count());
    }
    progress
}

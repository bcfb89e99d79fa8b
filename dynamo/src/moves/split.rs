//! Splitting partitions: Q becomes 2Q, 4Q and so on, and no key moves.
//!
//! Each half of a partition has the owner and the lists that the whole had, so the walk over the new ring finds the
//! same nodes as before. (Dynamo fixes Q for good, strategy 3 of its §6.2; dynamic splitting of equal arcs is as in
//! linear hashing, Litwin 1980.) The next claim spreads the halves where that improves balance.

use crate::ring::{Placement, Ring};
use crate::token::PartitionCount;

/// The ring with its partitions split into `wanted`, if it has fewer and nothing moves. Its epoch is left alone.
pub(super) fn split(ring: &Ring, wanted: PartitionCount) -> Option<Ring> {
    let now = ring.partitions.len();
    let wanted = wanted.get() as usize;
    let moving = ring.target.is_some() || ring.partitions.iter().any(|placement| placement.also.is_some());
    // Both are powers of two, so the larger is a multiple of the smaller.
    if moving || now == 0 || wanted <= now {
        return None;
    }
    let halves = |placement: &Placement| std::iter::repeat_n(placement.clone(), wanted / now);
    let partitions = ring.partitions.iter().flat_map(halves).collect();
    Some(Ring { partitions, ..ring.clone() })
}

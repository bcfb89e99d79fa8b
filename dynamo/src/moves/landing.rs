//! What a rebalance will bring to whom, read off the document alone.

use super::membership;
use crate::preference::MemberIndex;
use crate::ring::Ring;
use std::collections::BTreeMap;

/// How many replicas of partitions each member has yet to receive until the target is reached. Members that receive
/// none are left out.
#[must_use]
pub fn landing(ring: &Ring) -> BTreeMap<MemberIndex, usize> {
    let mut landing = BTreeMap::new();
    let Some(target) = &ring.target else { return landing };
    let wanted = membership::lists(ring, &target.owners, usize::from(ring.quorums.n));
    for (placement, list) in ring.partitions.iter().zip(&wanted) {
        for index in list.iter().filter(|index| !placement.preference.contains(index)) {
            *landing.entry(*index).or_default() += 1;
        }
    }
    landing
}

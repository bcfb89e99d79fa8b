//! A ring as a node reads it: the document and what is derived from it once per epoch.

use super::{Member, Placement, Ring};
use crate::preference::{self, MemberIndex};
use crate::token::{self, PartitionCount, Token};

/// A ring document made ready for serving: partition of a key, its lists and its fallbacks without further work.
#[derive(Clone, Debug)]
pub struct RingView {
    ring: Ring,
    count: PartitionCount,
    owners: Vec<MemberIndex>,
    /// Members that own a partition, ascending.
    owning: Vec<MemberIndex>,
}

impl RingView {
    /// Derives the view; `None` if the document's number of partitions is not one that a ring can have.
    #[must_use]
    pub fn new(ring: Ring) -> Option<Self> {
        let count = ring.partition_count()?;
        let owners = ring.owners();
        let mut owning = owners.clone();
        owning.sort_unstable();
        owning.dedup();
        (owners.len() == ring.partitions.len()).then_some(Self { ring, count, owners, owning })
    }

    /// The document.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Its epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.ring.epoch
    }

    /// Number of partitions Q.
    #[must_use]
    pub fn count(&self) -> PartitionCount {
        self.count
    }

    /// Token of a key in this cluster.
    #[must_use]
    pub fn token(&self, key: &[u8]) -> Token {
        Token::of(&self.ring.hash_key, key)
    }

    /// Partition of a token.
    #[must_use]
    pub fn partition(&self, token: Token) -> u32 {
        token::partition(token, self.count)
    }

    /// Lists of a partition; `None` if there is no such partition.
    #[must_use]
    pub fn placement(&self, partition: u32) -> Option<&Placement> {
        self.ring.partitions.get(partition as usize)
    }

    /// Epoch since which the lists of a token's partition are what they are: what replicas compare before they act for
    /// one another.
    #[must_use]
    pub fn since(&self, token: Token) -> u64 {
        self.since_of(self.partition(token))
    }

    /// The same of a partition; zero if there is no such partition.
    #[must_use]
    pub fn since_of(&self, partition: u32) -> u64 {
        self.placement(partition).map_or(0, |placement| placement.since)
    }

    /// The member with this index.
    #[must_use]
    pub fn member(&self, index: MemberIndex) -> Option<&Member> {
        self.ring.member(index)
    }

    /// Whether the member owns a partition. Only such members stand in for others.
    #[must_use]
    pub fn owns(&self, index: MemberIndex) -> bool {
        self.owning.binary_search(&index).is_ok()
    }

    /// Members that may stand in for an unreachable replica of the partition, in the order of the walk. None of
    /// them is in either list of the partition.
    #[must_use]
    pub fn fallbacks(&self, partition: u32) -> Vec<MemberIndex> {
        let Some(placement) = self.placement(partition) else { return Vec::new() };
        let listed = placement.preference.iter().filter(|&&index| self.owns(index)).count();
        preference::fallbacks(&self.owners, partition, &placement.preference)
            // Once everybody is met, the rest of the ring need not be walked.
            .take(self.owning.len().saturating_sub(listed))
            .filter(|&index| !placement.names(index))
            .collect()
    }
}

//! The ring document: the only thing that tells nodes about placement.
//!
//! It is small, versioned by its [epoch](Ring::epoch) and complete. The operator publishes it, nodes persist it and
//! hand it to each other; whoever holds the highest epoch is right.

mod document;
mod view;

pub use document::{DocumentError, from_json, to_json};
pub use view::RingView;

use crate::preference::MemberIndex;
use crate::token::{HashKey, PartitionCount};
use uuid::Uuid;

/// One version of the placement of a cluster's partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// UID of the `KeyValueCluster`; a node refuses another cluster's ring.
    pub cluster: Uuid,
    /// Version of this document. Grows by one with each published change; a node refuses an older one.
    pub epoch: u64,
    /// Replication factor and default quorums.
    pub quorums: Quorums,
    /// Key of the `SipHash` that spreads keys inside a hash slot.
    pub hash_key: HashKey,
    /// Every member by ascending [`Member::index`], the leaving ones included.
    pub members: Vec<Member>,
    /// Where each of the Q partitions lives. The length is a power of two, 16 ≤ Q ≤ 16384.
    pub partitions: Vec<Placement>,
    /// Where the partitions shall live, while a rebalance is under way.
    pub target: Option<Target>,
}

/// Replication factor n and the default quorums of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorums {
    /// Replication factor: how many distinct members hold each item.
    pub n: u8,
    /// How many replicas a read asks.
    pub r: u8,
    /// How many replicas must have a write durably before it is acknowledged.
    pub w: u8,
    /// Whether a fallback's durable hint may stand in for an unreachable replica.
    pub sloppy: bool,
}

impl Quorums {
    /// How many members of a list of this length a read asks, and how many a write needs.
    ///
    /// While n changes, some lists have the old length and some the new. Both numbers keep their distance from a
    /// majority, and wherever r + w > n promises that a read meets the last write, they meet in the list too.
    ///
    /// ```
    /// # use dynamo::ring::Quorums;
    /// let quorums = Quorums { n: 5, r: 3, w: 3, sloppy: true };
    /// assert_eq!(quorums.of_list(5), (3, 3));
    /// assert_eq!(quorums.of_list(3), (2, 2));
    /// ```
    #[must_use]
    pub fn of_list(&self, members: usize) -> (usize, usize) {
        let (n, r, w) = (usize::from(self.n), usize::from(self.r), usize::from(self.w));
        let members = members.max(1);
        if members == n {
            return (r, w);
        }
        let majority = |members: usize| members / 2 + 1;
        let scaled = |number: usize| (majority(members) + number).saturating_sub(majority(n)).clamp(1, members);
        let (reading, writing) = (scaled(r), scaled(w));
        let meets = if r + w > n { members + 1 - writing } else { 1 };
        (reading.max(meets), writing)
    }
}

/// A physical node of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Position in this document, never used by two members of one document.
    pub index: MemberIndex,
    /// Identity of the data directory. A lost volume is a new incarnation and thereby another member.
    pub incarnation: Uuid,
    /// Name for people, such as the pod's name.
    pub name: String,
    /// `host:port` of the peer protocol.
    pub peer_address: String,
    /// `host:port` of the RESP port, as told to cluster-aware clients.
    pub client_address: String,
    /// Failure domain, if known.
    pub zone: Option<String>,
    /// Share of the ring relative to the other members; 1 unless nodes are unequal.
    pub weight: u32,
    /// Whether it is on its way in, in, or on its way out.
    pub state: MemberState,
    /// Whether its data is destroyed for certain: nobody waits for it, and nothing can be copied from it.
    pub gone: bool,
}

/// What a member is to the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// Wanted, and not yet in any effective preference list.
    Joining,
    /// Wanted and serving.
    Active,
    /// Not wanted any more; it serves what it still holds until that has moved.
    Leaving,
}

/// Where one partition lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The effective preference list, clockwise; its head owns the virtual node.
    pub preference: Vec<MemberIndex>,
    /// The second list, while the partition moves.
    pub also: Option<Also>,
    /// Epoch of the document in which both became what they are. So two documents of a ring agree about a partition if
    /// and only if they say the same here; and while it moves, this names the very step of the move.
    pub since: u64,
}

/// The other list of a moving partition; writes go to both lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Also {
    /// The list that fills, or the one that retires.
    pub list: Vec<MemberIndex>,
    /// Which of the two.
    pub phase: Phase,
}

/// How far the move of a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The other list is the new one and is still being filled; reads use the old one.
    Filling,
    /// The other list is the old one; reads use the new one.
    Retiring,
}

/// The placement that a rebalance works towards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Wanted owner of each partition.
    pub owners: Vec<MemberIndex>,
    /// Epoch in which this target was set; names the rebalance.
    pub since: u64,
    /// Replica moves (partition, new holder) that stood between the lists and the target when it was set.
    pub replica_moves: u32,
    /// The least number of replica moves that any placement as good as the target would have taken.
    pub replica_moves_min: u32,
}

impl Ring {
    /// Number of partitions Q.
    #[must_use]
    pub fn partition_count(&self) -> Option<PartitionCount> {
        u32::try_from(self.partitions.len()).ok().and_then(|count| PartitionCount::new(count).ok())
    }

    /// The member with this index.
    #[must_use]
    pub fn member(&self, index: MemberIndex) -> Option<&Member> {
        self.members.binary_search_by_key(&index, |member| member.index).ok().map(|at| &self.members[at])
    }

    /// The member with this incarnation.
    #[must_use]
    pub fn member_by_incarnation(&self, incarnation: Uuid) -> Option<&Member> {
        self.members.iter().find(|member| member.incarnation == incarnation)
    }

    /// Owner of each partition: the head of its effective preference list.
    #[must_use]
    pub fn owners(&self) -> Vec<MemberIndex> {
        self.partitions.iter().filter_map(|placement| placement.preference.first().copied()).collect()
    }

    /// How many partitions name this member in either of their lists.
    #[must_use]
    pub fn listed(&self, index: MemberIndex) -> usize {
        self.partitions.iter().filter(|placement| placement.names(index)).count()
    }

    /// Whether a member is on its way out and in no list any more. What it holds serves nobody.
    #[must_use]
    pub fn is_released(&self, index: MemberIndex) -> bool {
        self.member(index).is_some_and(|member| member.state == MemberState::Leaving) && self.listed(index) == 0
    }

    /// The zone of a member as a small number, equal for equal zone names; `None` when it has none.
    #[must_use]
    pub fn zone_of(&self, index: MemberIndex) -> Option<u16> {
        let zone = self.member(index)?.zone.as_deref()?;
        let first = self.members.iter().position(|member| member.zone.as_deref() == Some(zone))?;
        u16::try_from(first).ok()
    }
}

impl Placement {
    /// Whether the member is in either list.
    #[must_use]
    pub fn names(&self, index: MemberIndex) -> bool {
        self.preference.contains(&index) || self.also.as_ref().is_some_and(|also| also.list.contains(&index))
    }

    /// Whether the member has what was written to the partition, or had the chance to: one that is still being filled has not.
    #[must_use]
    pub fn serves(&self, index: MemberIndex) -> bool {
        let retires = |also: &Also| also.phase == Phase::Retiring && also.list.contains(&index);
        self.preference.contains(&index) || self.also.as_ref().is_some_and(retires)
    }

    /// Every member of either list, each once, the effective list first.
    #[must_use]
    pub fn holders(&self) -> Vec<MemberIndex> {
        let mut holders = self.preference.clone();
        if let Some(also) = &self.also {
            holders.extend(also.list.iter().copied().filter(|index| !self.preference.contains(index)));
        }
        holders
    }

    /// Whether the other list may only serve reads once this member has said that it has what it needs: it is new, and
    /// has to copy the partition; or the list gets shorter, so that of the w members that have a write too few may stay.
    /// Then those who stay compare with the others first. (Where as many come as go this is not needed: each newcomer
    /// has met enough of the old list to have the write in the place of one that goes.)
    #[must_use]
    pub fn is_to_sync(&self, index: MemberIndex) -> bool {
        let filling = self.also.as_ref().filter(|also| also.phase == Phase::Filling);
        filling.is_some_and(|also| {
            let shorter = also.list.len() < self.preference.len();
            also.list.contains(&index) && (shorter || !self.preference.contains(&index))
        })
    }
}

/// Whether two lists of distinct members name the same members.
#[must_use]
pub fn same_set(a: &[MemberIndex], b: &[MemberIndex]) -> bool {
    a.len() == b.len() && a.iter().all(|index| b.contains(index))
}

//! Moving partitions: from the lists as they are to the lists as they should be, one published epoch at a time.
//!
//! A partition moves from list A to list B in three steps (DESIGN of the project, after the joint configurations of
//! Raft and the handoff of Riak): *filling* (writes go to both, reads use A, the new nodes of B copy), *retiring*
//! (reads use B, writes still go to both), *done*. [`advance`] looks at the document, the wish and what the nodes
//! report, and returns the next document or the reasons why there is none yet. It keeps no memory of its own, so a
//! change of mind at any moment is only another wish: it starts from the lists as they are.

mod advance;
mod landing;
mod membership;
mod progress;
mod proof;
mod room;
mod split;

pub use advance::advance;
pub use landing::landing;
pub use membership::create;
pub use progress::{Progress, progress};
pub use proof::{Certificate, NotYet, may_go};
pub use room::spacing;

use crate::claim::ClaimError;
use crate::preference::MemberIndex;
use crate::ring::{Quorums, Ring};
use crate::token::PartitionCount;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Who should hold the data, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Number of partitions Q. A ring that exists splits up to it once nothing moves, and never merges down to it.
    pub partitions: PartitionCount,
    /// Replication factor and default quorums.
    pub quorums: Quorums,
    /// The members that should hold data. Anyone else in the document is on its way out.
    pub members: Vec<Wanted>,
    /// Incarnations that exist no more: their pod was removed on proof, or their volume is destroyed. They leave
    /// the document as soon as no list names them.
    pub gone: BTreeSet<Uuid>,
}

/// One member that should hold data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Identity of its data directory, as the node itself reported it.
    pub incarnation: Uuid,
    /// Name for people.
    pub name: String,
    /// `host:port` of the peer protocol.
    pub peer_address: String,
    /// `host:port` of the RESP port.
    pub client_address: String,
    /// Failure domain, if known.
    pub zone: Option<String>,
    /// Share of the ring relative to the others.
    pub weight: u32,
}

/// What one node said of itself just now. A node that did not answer has no report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Epoch that the node has installed.
    pub epoch: u64,
    /// Moves that the node has completed as a new holder: (partition, `since` of the filling entry).
    pub synced: BTreeSet<(u32, u64)>,
    /// Members that the node cannot reach now.
    pub unreachable: BTreeSet<Uuid>,
    /// Why it could not copy a partition when it last tried, if it has not succeeded since.
    pub held_up: Option<String>,
    /// Bytes of the partitions that it serves.
    pub serving_bytes: u64,
    /// Bytes a second that the node copies beside its clients; `None`: it has none to speak of, and copies as fast as it can.
    pub beside_clients: Option<u64>,
}

impl Report {
    /// Whether the node has completed the move of this partition that began in the epoch `since`.
    fn has_synced(&self, partition: usize, since: u64) -> bool {
        u32::try_from(partition).is_ok_and(|partition| self.synced.contains(&(partition, since)))
    }
}

/// Reports by incarnation.
pub type Reports = BTreeMap<Uuid, Report>;

/// What a member of the document has said, if it has answered.
fn report_of<'a>(ring: &Ring, reports: &'a Reports, index: MemberIndex) -> Option<&'a Report> {
    reports.get(&ring.member(index)?.incarnation)
}

/// Bounds on how much happens at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How many partitions may be moving at once (filling or retiring), however little clients feel of it.
    pub parallel_moves: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { parallel_moves: 256 }
    }
}

/// What [`advance`] found to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Publish this document, whose epoch is one above today's.
    Publish(Box<Ring>, Change),
    /// Nothing can be published until something here changes.
    Wait(Vec<Reason>),
    /// The lists are as wished and nothing moves.
    Settled,
}

/// What a published document changes, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Members added to the document.
    pub joined: usize,
    /// Members that began to leave.
    pub leaving: usize,
    /// Members removed from the document.
    pub removed: usize,
    /// Whether a new target was set.
    pub retargeted: bool,
    /// Whether every partition was split.
    pub split: bool,
    /// Moves begun (filling).
    pub begun: usize,
    /// Moves called off or turned to another list.
    pub turned: usize,
    /// Moves whose new list now serves reads (retiring).
    pub flipped: usize,
    /// Moves done.
    pub done: usize,
}

/// Why a move has not gone on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The member is to receive partitions, but not all that answer have met it yet.
    Connecting {
        /// Name of the member.
        member: String,
        /// Partitions that wait for it.
        partitions: usize,
    },
    /// The member still copies this many partitions.
    Copying {
        /// Name of the member.
        member: String,
        /// Partitions it has not reported as synced.
        partitions: usize,
        /// Whether it answered at all.
        answers: bool,
        /// What it says it is held up by, if it is.
        why: Option<String>,
    },
    /// The member has not yet installed the epoch that retires old lists.
    Acknowledging {
        /// Name of the member.
        member: String,
        /// Epoch it has to reach.
        epoch: u64,
    },
    /// Too few members of old lists answer to be sure that no reader still uses them.
    OldListsUnreachable {
        /// Partitions held back by it.
        partitions: usize,
    },
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connecting { member, partitions } => {
                write!(f, "{member} is not yet reached by all nodes; {partitions} partitions wait to move to it")
            }
            Self::Copying { member, partitions, answers: true, why: None } => {
                write!(f, "{member} copies {partitions} partitions")
            }
            Self::Copying { member, partitions, answers: true, why: Some(why) } => {
                write!(f, "{member} copies {partitions} partitions; it is held up: {why}")
            }
            Self::Copying { member, partitions, answers: false, .. } => {
                write!(f, "{member} has {partitions} partitions to copy and does not answer")
            }
            Self::Acknowledging { member, epoch } => write!(f, "{member} has yet to install ring epoch {epoch}"),
            Self::OldListsUnreachable { partitions } => {
                write!(f, "too few old holders of {partitions} partitions answer to retire their lists")
            }
        }
    }
}

/// Why there is no next document. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// Partitions could not be assigned.
    #[error("partitions cannot be assigned: {0}")]
    Claim(#[from] ClaimError),
    /// Fewer members are wished than each item needs.
    #[error("{members} members cannot hold {n} replicas of each item; wish for at least {n} members")]
    TooFewMembers {
        /// Members wished for.
        members: usize,
        /// Replication factor.
        n: u8,
    },
    /// Two wished members have the same incarnation.
    #[error("incarnation {0} is wished for twice")]
    Twice(Uuid),
    /// The document is full: indices are 16 bits wide.
    #[error("the ring has no index left for another member")]
    NoIndex,
    /// The document has a number of partitions that no ring can have.
    #[error("the ring document has an impossible number of partitions")]
    PartitionCount,
}

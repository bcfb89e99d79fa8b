//! Proof that a node may go: its own word, at the current epoch, that nothing depends on it any more.

use crate::ring::Ring;
use uuid::Uuid;

/// What a node says of itself when it is asked whether it may go. Only an answer makes one of these: an error, a
/// timeout or a node that cannot be reached proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Cluster it belongs to.
    pub cluster: Uuid,
    /// Identity of the data directory that speaks.
    pub incarnation: Uuid,
    /// Epoch it has installed.
    pub epoch: u64,
    /// Partitions that name it in either list, at that epoch.
    pub listed_partitions: u32,
    /// Hints it holds for others.
    pub hints: u64,
    /// Partitions that it holds something of and is not listed for: what it has yet to hand over.
    pub leftover_partitions: u32,
}

/// Why a node may not go yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotYet {
    /// The answer came from another cluster's node.
    #[error("it belongs to another cluster")]
    OtherCluster,
    /// The answer came from another data directory.
    #[error("another incarnation answered in its place")]
    OtherIncarnation,
    /// It has not installed the current ring.
    #[error("it has installed ring epoch {installed} and has yet to install {current}")]
    Behind {
        /// What it has.
        installed: u64,
        /// What is in force.
        current: u64,
    },
    /// Lists still name it.
    #[error("{partitions} partitions still name it")]
    Listed {
        /// How many.
        partitions: usize,
    },
    /// It holds writes for others.
    #[error("it still holds {hints} hints for other nodes")]
    Hints {
        /// How many.
        hints: u64,
    },
    /// It holds copies that it has yet to hand over.
    #[error("it has yet to hand over what it has of {partitions} partitions")]
    Leftover {
        /// How many.
        partitions: u32,
    },
}

/// Whether the member of `ring` with this incarnation may be taken away, on the strength of what answered.
///
/// # Errors
/// The first reason why not.
pub fn may_go(ring: &Ring, incarnation: Uuid, says: &Certificate) -> Result<(), NotYet> {
    if says.cluster != ring.cluster {
        return Err(NotYet::OtherCluster);
    }
    if says.incarnation != incarnation {
        return Err(NotYet::OtherIncarnation);
    }
    if says.epoch != ring.epoch {
        return Err(NotYet::Behind { installed: says.epoch, current: ring.epoch });
    }
    let named = ring.member_by_incarnation(incarnation).map_or(0, |member| ring.listed(member.index));
    let partitions = named.max(says.listed_partitions as usize);
    if partitions > 0 {
        return Err(NotYet::Listed { partitions });
    }
    if says.hints > 0 {
        return Err(NotYet::Hints { hints: says.hints });
    }
    if says.leftover_partitions > 0 {
        return Err(NotYet::Leftover { partitions: says.leftover_partitions });
    }
    Ok(())
}

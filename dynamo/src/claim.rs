//! Claim: which member owns which partition, with the best balance that whole partitions allow and the least
//! movement that this balance allows.
//!
//! Consistent hashing (Karger et al., STOC 1997) bounds movement only on average and balance only with many random
//! tokens; jump hash (Lamping and Veach 2014) is exact but can only grow and shrink at one end. With equal partitions
//! and an explicit assignment (Dynamo, `DeCandia` et al., SOSP 2007, §4.2 and strategy 3 of §6.2) both can be exact for
//! any change, and the assignment can also keep the replicas of neighbouring partitions apart, as Riak's claim
//! functions v3 and v4 do. What is promised, for any assignment to begin with:
//!
//! * *Balance.* Every member owns its fair share of partitions, rounded down or up. The fair share follows from the
//!   fair share of *replicas*: weights in proportion, but nobody holds a partition twice and every list spreads over
//!   the zones (see [`crate::preference`]), so a zone with few members gives each of them more. Without zones, or
//!   with zones alike, and with equal weights this is ⌊Q/S⌋ or ⌈Q/S⌉ for S members.
//! * *Movement.* Exactly the least number of partitions change owner that this balance allows: what members are
//!   missing, where the roundings are chosen so that little is missing. A joining member takes its share from the
//!   others and nobody else's partition changes owner; a leaving member's partitions are all that moves.
//! * *Spacing.* Within that, any n consecutive partitions have n distinct owners (and as many zones as possible)
//!   wherever that can be found, so that a preference list is just the next n owners and replicas are as even as
//!   owners. Where it cannot be (as many members as replicas, or one more, after a scale in), the walk skips, and the
//!   claim looks for the assignment with the least movement of replicas and then the most even load.
//! * *Room.* Among equals, arrangements are preferred that leave room for the next change: n + 1 distinct owners in a
//!   row, or in small clusters no two members that are always neighbours.
//!
//! The same input gives the same claim, on every machine: no clock, no hash map, and the only random numbers come
//! from constant seeds.

mod board;
mod crowding;
mod fair;
mod fill;
mod matching;
mod movement;
mod polish;
mod problem;
mod sequence;
mod take;

pub use movement::{list_moves, list_moves_minimum, replica_moves, replica_moves_minimum};

use crate::preference::{MemberIndex, Zone};
use crate::token::PartitionCount;
use board::Board;
use problem::Problem;

/// A member to which partitions may be assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which member.
    pub index: MemberIndex,
    /// Share of the data relative to the others; 1 unless members are unequal.
    pub weight: u32,
    /// Failure domain, if known.
    pub zone: Zone,
}

/// New owners, and how good they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Owner of each partition.
    pub owners: Vec<MemberIndex>,
    /// Partitions that get another owner than today's, those that have none today included.
    pub moved: usize,
    /// The least that `moved` can be with balance this good. Always equal to it.
    pub moved_min: usize,
    /// Partitions whose preference list is not simply the next n owners, because these are not distinct members or
    /// not in zones as different as possible.
    pub spacing_violations: usize,
}

/// Why there is no claim.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// There is nobody to assign partitions to.
    #[error("there are no members to assign partitions to")]
    NoMembers,
    /// The replication factor is zero.
    #[error("the replication factor is zero; it must be at least 1")]
    NoReplicas,
    /// Today's owners are not as many as there are partitions.
    #[error("there are {partitions} partitions, but owners of {owners}")]
    PartitionCount {
        /// Number of partitions Q.
        partitions: usize,
        /// Number of owners given.
        owners: usize,
    },
    /// A member is named twice.
    #[error("member {0} is named twice")]
    Twice(MemberIndex),
    /// A member has weight zero. Leave it out to have its partitions moved away.
    #[error("member {0} has weight zero; leave it out to have its partitions moved away")]
    NoWeight(MemberIndex),
}

/// Claims partitions for `members`, from today's owners.
///
/// `owners` holds today's owner of each of the `count` partitions: `None` where there is none (everywhere for a new
/// ring). Owners that are not among `members` are leaving. Any assignment will do, such as that of a rebalance broken
/// off half way; then [`claim_from_lists`] knows better which replicas are where.
///
/// # Errors
/// [`ClaimError`] when the question makes no sense. Fewer members than n are no error: every list then names all.
pub fn claim(
    owners: &[Option<MemberIndex>],
    count: PartitionCount,
    members: &[Candidate],
    n: usize,
) -> Result<Claim, ClaimError> {
    check(owners.len(), count, members, n)?;
    Ok(solve(&Problem::from_owners(owners, members, n)))
}

/// Claims partitions for `members`, from today's preference lists.
///
/// Like [`claim`], with the head of each list as today's owner; an empty list means that there is none. Where there
/// is a choice, members that a list names already are preferred, so this is the one to use while partitions move.
///
/// # Errors
/// [`ClaimError`] when the question makes no sense.
pub fn claim_from_lists(
    lists: &[Vec<MemberIndex>],
    count: PartitionCount,
    members: &[Candidate],
    n: usize,
) -> Result<Claim, ClaimError> {
    check(lists.len(), count, members, n)?;
    Ok(solve(&Problem::from_lists(lists, members, n)))
}

fn check(owners: usize, count: PartitionCount, members: &[Candidate], n: usize) -> Result<(), ClaimError> {
    let partitions = count.get() as usize;
    if owners != partitions {
        return Err(ClaimError::PartitionCount { partitions, owners });
    }
    if members.is_empty() {
        return Err(ClaimError::NoMembers);
    }
    if n == 0 {
        return Err(ClaimError::NoReplicas);
    }
    if let Some(member) = members.iter().find(|member| member.weight == 0) {
        return Err(ClaimError::NoWeight(member.index));
    }
    let mut indices: Vec<MemberIndex> = members.iter().map(|member| member.index).collect();
    indices.sort_unstable();
    match indices.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(ClaimError::Twice(pair[0])),
        None => Ok(()),
    }
}

/// Seeds of the arrangements that are tried, one after the other until one is perfect or no better than the one
/// before. The best is kept.
const SEEDS: u64 = 4;

fn solve(problem: &Problem) -> Claim {
    let mut best = arrange(problem, 0);
    for seed in 1..SEEDS {
        if best.cost().is_perfect() || problem.moved_min == 0 {
            break;
        }
        let board = arrange(problem, seed);
        if best.cost().total() <= board.cost().total() {
            break;
        }
        best = board;
    }
    let moved = best.owners().iter().zip(&problem.old).filter(|(new, old)| new != old).count();
    Claim {
        owners: best.owners().iter().map(|&id| problem.members[id as usize].index).collect(),
        moved,
        moved_min: problem.moved_min,
        spacing_violations: best.violated().len(),
    }
}

fn arrange(problem: &Problem, seed: u64) -> Board<'_> {
    let mut board = Board::new(problem, fill::fill(problem, seed));
    polish::polish(&mut board, seed);
    board
}

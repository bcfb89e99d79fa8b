//! The proof that a leaving member is dispensable. An unreachable node or a failed request is never proof.

use super::{Answer, NoProof};
use dynamo::ring::{Member, MemberState, Ring};
use uuid::Uuid;

/// That a member is in no list, owes no hints and holds nothing: made by [`prove`] alone, from its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    pod: String,
    incarnation: Uuid,
    epoch: u64,
}

impl Proof {
    /// Pod of the member.
    #[must_use]
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// The member.
    #[must_use]
    pub fn incarnation(&self) -> Uuid {
        self.incarnation
    }

    /// Epoch at which it holds.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// Proves by the node's own answer that the leaving `member` of `ring` is dispensable.
///
/// # Errors
/// [`NoProof`]: what is missing.
pub fn prove(ring: &Ring, member: &Member, answer: Option<&Answer>) -> Result<Proof, NoProof> {
    let answer = answer.ok_or(NoProof::NoAnswer)?;
    let status = &answer.status;
    if answer.incarnation != member.incarnation {
        return Err(NoProof::OtherIncarnation);
    }
    if answer.cluster != Some(ring.cluster) {
        return Err(NoProof::OtherCluster);
    }
    if status.epoch != ring.epoch {
        return Err(NoProof::Epoch { has: status.epoch, wants: ring.epoch });
    }
    let listed = u32::try_from(ring.listed(member.index)).unwrap_or(u32::MAX).max(status.listed_partitions);
    if listed > 0 || member.state != MemberState::Leaving {
        return Err(NoProof::Listed { partitions: listed });
    }
    if status.hints > 0 {
        return Err(NoProof::Hints { hints: status.hints });
    }
    if status.leftover_partitions > 0 {
        return Err(NoProof::Leftover { partitions: status.leftover_partitions });
    }
    Ok(Proof { pod: member.name.clone(), incarnation: member.incarnation, epoch: ring.epoch })
}

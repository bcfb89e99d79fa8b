//! The proof that a leaving member is dispensable. An unreachable node or a failed request is never proof.

use super::{Answer, NoProof};
use dynamo::moves::{self, NotYet};
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
    // A status without identities proves nothing.
    let certificate = annulus_proto::certificate(status).map_err(|_| NoProof::OtherCluster)?;
    moves::may_go(ring, member.incarnation, &certificate).map_err(no_proof)?;
    if member.state != MemberState::Leaving {
        return Err(NoProof::Listed { partitions: 0 });
    }
    Ok(Proof { pod: member.name.clone(), incarnation: member.incarnation, epoch: ring.epoch })
}

fn no_proof(not_yet: NotYet) -> NoProof {
    match not_yet {
        NotYet::OtherCluster => NoProof::OtherCluster,
        NotYet::OtherIncarnation => NoProof::OtherIncarnation,
        NotYet::Behind { installed, current } => NoProof::Epoch { has: installed, wants: current },
        NotYet::Listed { partitions } => NoProof::Listed { partitions },
        NotYet::Hints { hints } => NoProof::Hints { hints },
        NotYet::Leftover { partitions } => NoProof::Leftover { partitions },
    }
}

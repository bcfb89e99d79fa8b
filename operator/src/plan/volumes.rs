//! Volumes: deleted only after a proven scale in and only if asked to; made larger, never smaller.

use super::{Action, Desired, Observed, Reason, Workload};
use dynamo::ring::{MemberState, Ring};

/// Deletes the volume of a member that was let go on proof, whose pod is gone. Also says what is still stopping.
pub(super) fn discard(
    desired: &Desired,
    observed: &Observed,
    workload: &Workload,
    ring: &Ring,
    waiting: &mut Vec<Reason>,
) -> Option<Action> {
    for member in &ring.members {
        let let_go = member.state == MemberState::Leaving && workload.proven.contains(&member.incarnation);
        let ordinal = desired.ordinal(&member.name).filter(|ordinal| *ordinal >= workload.replicas);
        let (true, Some(ordinal)) = (let_go && ring.listed(member.index) == 0, ordinal) else {
            continue;
        };
        if observed.pod(ordinal).is_some() {
            waiting.push(Reason::Stopping { pod: member.name.clone() });
            continue;
        }
        let volume = observed.volume(ordinal).filter(|_| desired.delete_on_scale_in);
        match volume {
            Some(volume) if volume.terminating => {
                waiting.push(Reason::VolumeDeleting { volume: volume.name.clone() });
            }
            Some(volume) => {
                let (name, uid) = (volume.name.clone(), volume.uid.clone());
                return Some(Action::DeleteVolume { name, uid });
            }
            None => {}
        }
    }
    None
}

/// Asks for a larger volume where one is smaller than wanted.
pub(super) fn grow(desired: &Desired, observed: &Observed) -> Option<Action> {
    observed
        .volumes
        .iter()
        .filter(|volume| volume.ordinal < desired.replicas && volume.bound && !volume.terminating)
        .find(|volume| volume.bytes < desired.volume_bytes)
        .map(|volume| Action::GrowVolume { name: volume.name.clone() })
}

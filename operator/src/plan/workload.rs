//! How many pods there are. More at once when more are needed; fewer only on proof.

use super::{Action, Desired, Observed, Pod, Proof, Reason, Scaling, Workload, prove};
use dynamo::ring::Ring;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Pods needed: as many as are wanted, and one for every member that still exists.
pub(super) fn needed(desired: &Desired, ring: Option<&Ring>, dispensable: &BTreeSet<Uuid>) -> u32 {
    let members = ring.into_iter().flat_map(|ring| &ring.members);
    members
        .filter(|member| !dispensable.contains(&member.incarnation))
        .filter_map(|member| desired.ordinal(&member.name))
        .map(|ordinal| ordinal + 1)
        .fold(desired.replicas, u32::max)
}

/// Raises the number of pods to what is needed, and undoes what somebody else did to it.
pub(super) fn grow(
    desired: &Desired,
    workload: &Workload,
    ring: Option<&Ring>,
    gone: &BTreeSet<Uuid>,
) -> Option<Action> {
    // Those let go on proof whose pods are still stopping are dispensable too.
    let dispensable: BTreeSet<Uuid> = gone.union(&workload.proven).copied().collect();
    let needed = needed(desired, ring, &dispensable);
    if workload.replicas >= needed {
        return None;
    }
    let ordinal_of = |incarnation: &Uuid| {
        ring.and_then(|ring| ring.member_by_incarnation(*incarnation)).and_then(|m| desired.ordinal(&m.name))
    };
    // Whoever gets a pod again has to prove anew before that is let go.
    let proven = workload.proven.iter().copied();
    let proven = proven.filter(|incarnation| ordinal_of(incarnation).is_some_and(|o| o >= needed)).collect();
    let why = match workload.replicas_written {
        Some(written) if written != workload.replicas && written >= needed => {
            Scaling::PutBack { found: workload.replicas }
        }
        _ => Scaling::Grow,
    };
    Some(Action::ScaleWorkload { replicas: needed, proven, why })
}

/// Lets the highest ordinals go that are not wanted, as far down as there is proof.
pub(super) fn shrink(
    desired: &Desired,
    observed: &Observed,
    workload: &Workload,
    ring: &Ring,
    gone: &BTreeSet<Uuid>,
    waiting: &mut Vec<Reason>,
) -> Option<Action> {
    let mut replicas = workload.replicas;
    let mut proofs = Vec::new();
    while replicas > desired.replicas {
        match release(desired, observed, ring, gone, replicas - 1) {
            Ok(proof) => proofs.extend(proof),
            Err(reason) => {
                waiting.push(reason);
                break;
            }
        }
        replicas -= 1;
    }
    if replicas == workload.replicas {
        return None;
    }
    if !proofs.is_empty() {
        let uninformed = uninformed(observed, workload, ring, gone);
        if !uninformed.is_empty() {
            waiting.extend(uninformed);
            return None;
        }
    }
    let mut proven = workload.proven.clone();
    proven.retain(|incarnation| ring.member_by_incarnation(*incarnation).is_some());
    proven.extend(proofs.iter().map(Proof::incarnation));
    let by_somebody = workload.replicas_written.is_some_and(|written| written < workload.replicas);
    let why = if by_somebody && proofs.is_empty() {
        Scaling::PutBack { found: workload.replicas }
    } else {
        Scaling::Shrink { proofs, resource_version: workload.resource_version.clone() }
    };
    Some(Action::ScaleWorkload { replicas, proven, why })
}

/// Whether the pod with this ordinal may go: with the proof of its member, or because it is no member's.
fn release(
    desired: &Desired,
    observed: &Observed,
    ring: &Ring,
    gone: &BTreeSet<Uuid>,
    ordinal: u32,
) -> Result<Option<Proof>, Reason> {
    let name = desired.pod(ordinal);
    let answer = observed.pod(ordinal).and_then(Pod::answer);
    let mut proof = None;
    for member in ring.members.iter().filter(|member| member.name == name) {
        if gone.contains(&member.incarnation) && ring.listed(member.index) == 0 {
            continue;
        }
        let proven = prove(ring, member, answer);
        proof = Some(proven.map_err(|why| Reason::NoProof { pod: name.clone(), why })?);
    }
    if proof.is_none()
        && let Some(answer) = answer
    {
        // No member has this name, but the volume may be a member's, and even a former member may owe hints.
        if let Some(member) = ring.member_by_incarnation(answer.incarnation) {
            return Err(Reason::VolumesSwapped { pod: name, member: member.name.clone() });
        }
        let hints = answer.status.hints;
        if hints > 0 && answer.cluster == Some(ring.cluster) {
            return Err(Reason::NoProof { pod: name, why: super::NoProof::Hints { hints } });
        }
    }
    Ok(proof)
}

/// Members that exist and have not said that they know the published ring.
fn uninformed(observed: &Observed, workload: &Workload, ring: &Ring, gone: &BTreeSet<Uuid>) -> Vec<Reason> {
    let informed = |incarnation| observed.answer_of(incarnation).is_some_and(|a| a.status.epoch >= ring.epoch);
    ring.members
        .iter()
        .map(|member| (member.incarnation, &member.name))
        .filter(|(incarnation, _)| !gone.contains(incarnation) && !workload.proven.contains(incarnation))
        .filter(|(incarnation, _)| !informed(*incarnation))
        .map(|(_, name)| Reason::ScaleInNeeds { member: name.clone() })
        .collect()
}

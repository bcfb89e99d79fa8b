//! Replacing a node whose volume can never be reached again: the Node that it is bound to is gone, or the volume is.
//!
//! Only such a volume is given up, never one that merely does not answer; only after `spec.replaceAfter`; and only
//! while every partition on it has another holder that answers. The pod then comes back on another Node with a fresh
//! volume, which makes it a new incarnation that is filled from the other replicas.

use super::{Action, Desired, Observed, Pod, Reason, Volume};
use dynamo::ring::{Member, Ring};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Gives up the first stranded volume whose time has come, and says what the others wait for.
pub(super) fn replace(
    desired: &Desired,
    observed: &Observed,
    ring: &Ring,
    gone: &BTreeSet<Uuid>,
    waiting: &mut Vec<Reason>,
) -> Option<Action> {
    let mut action = None;
    for volume in observed.volumes.iter().filter(|volume| !volume.terminating) {
        let Some(why) = &volume.stranded else { continue };
        let Some(pod) = observed.pod(volume.ordinal).filter(|pod| !pod.terminating && pod.answer().is_none())
        else {
            continue;
        };
        match obstacle(desired, observed, ring, gone, pod, volume, why) {
            Some(reason) => waiting.push(reason),
            None if action.is_none() => action = Some(give_up(volume, pod)),
            None => {}
        }
    }
    action
}

fn give_up(volume: &Volume, pod: &Pod) -> Action {
    Action::ReplaceVolume {
        volume: volume.name.clone(),
        volume_uid: volume.uid.clone(),
        pod: pod.name.clone(),
        pod_uid: pod.uid.clone(),
    }
}

fn obstacle(
    desired: &Desired,
    observed: &Observed,
    ring: &Ring,
    gone: &BTreeSet<Uuid>,
    pod: &Pod,
    volume: &Volume,
    why: &str,
) -> Option<Reason> {
    let stranded = |seconds_left| Reason::VolumeStranded {
        pod: pod.name.clone(),
        volume: volume.name.clone(),
        why: why.to_owned(),
        seconds_left,
    };
    // A pod that still has a Node is not the one that waits for the volume.
    let Some(seconds) = pod.unscheduled_seconds else {
        return Some(stranded(desired.replace_after_seconds));
    };
    if seconds < desired.replace_after_seconds {
        return Some(stranded(desired.replace_after_seconds - seconds));
    }
    let members = ring.members.iter().filter(|m| m.name == pod.name && !gone.contains(&m.incarnation));
    let alone: usize = members.map(|member| only_here(observed, ring, member)).sum();
    (alone > 0).then(|| Reason::LastCopy { pod: pod.name.clone(), partitions: alone })
}

/// Partitions of this member of which no other holder answers.
fn only_here(observed: &Observed, ring: &Ring, member: &Member) -> usize {
    let answers = |index| ring.member(index).is_some_and(|other| observed.answer_of(other.incarnation).is_some());
    ring.partitions
        .iter()
        .filter(|placement| placement.preference.contains(&member.index))
        .filter(|placement| !placement.preference.iter().any(|&index| index != member.index && answers(index)))
        .count()
}

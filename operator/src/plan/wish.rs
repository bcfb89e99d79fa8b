//! Who should hold the data: the wish that the moves work towards.

use super::{Answer, Desired, Observed, Pod, Reason, Workload};
use dynamo::moves::{Reports, Wanted, Wish};
use dynamo::ring::{Member, MemberState, Ring};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Port of the peer protocol and of the operator's requests.
pub const PEER_PORT: u16 = 7400;
/// Port of the Redis protocol.
pub const RESP_PORT: u16 = 6379;

/// What the members that answered say of their moves. Nobody waits for a pod that is no member: it may belong to
/// another cluster, or be on its way out.
pub(super) fn reports(observed: &Observed, ring: &Ring) -> Reports {
    observed
        .pods
        .iter()
        .filter_map(Pod::answer)
        .filter(|answer| ring.member_by_incarnation(answer.incarnation).is_some())
        .map(|answer| (answer.incarnation, annulus_proto::report(&answer.status)))
        .collect()
}

/// A member as the wish describes it. A zone that is not known just now is as it was.
pub(super) fn wanted(desired: &Desired, pod: &Pod, answer: &Answer, before: Option<&Member>) -> Wanted {
    let zone = pod.zone.clone().or_else(|| before.and_then(|member| member.zone.clone()));
    named(desired, &pod.name, answer.incarnation, zone.filter(|_| desired.zones))
}

fn named(desired: &Desired, pod: &str, incarnation: Uuid, zone: Option<String>) -> Wanted {
    let weight = zone.as_ref().and_then(|zone| desired.zone_weights.get(zone)).copied().unwrap_or(1);
    Wanted {
        incarnation,
        name: pod.to_owned(),
        peer_address: desired.address(pod, PEER_PORT),
        client_address: desired.address(pod, RESP_PORT),
        zone,
        weight,
    }
}

/// Incarnations that exist no more: their pods were let go on proof and are gone (and their volumes too, if those
/// are to be deleted), or the pod of their name runs on another volume, which is certain only when it says so itself.
pub(super) fn gone(desired: &Desired, observed: &Observed, workload: &Workload, ring: &Ring) -> BTreeSet<Uuid> {
    ring.members
        .iter()
        .filter(|member| let_go(desired, observed, workload, member) || destroyed(observed, ring, member))
        .map(|member| member.incarnation)
        .collect()
}

fn let_go(desired: &Desired, observed: &Observed, workload: &Workload, member: &Member) -> bool {
    let Some(ordinal) = desired.ordinal(&member.name) else {
        return false;
    };
    member.state == MemberState::Leaving
        && workload.proven.contains(&member.incarnation)
        && ordinal >= workload.replicas
        && observed.pod(ordinal).is_none()
        && !(desired.delete_on_scale_in && observed.volume(ordinal).is_some())
}

/// Whether the pod of this member's name runs on another volume.
fn destroyed(observed: &Observed, ring: &Ring, member: &Member) -> bool {
    let pod = observed.pods.iter().find(|pod| pod.name == member.name && !pod.terminating);
    pod.and_then(Pod::answer).is_some_and(|answer| {
        answer.incarnation != member.incarnation
            && answer.cluster.is_none_or(|cluster| cluster == ring.cluster)
            && ring.member_by_incarnation(answer.incarnation).is_none_or(|other| other.name == member.name)
            // Not there either under another pod's name.
            && observed.answer_of(member.incarnation).is_none()
    })
}

/// The wish for this moment. Members that merely do not answer stay; newcomers join together, once all of them have
/// answered; leaving members that are wanted again are taken back at once.
pub(super) fn wish(
    desired: &Desired,
    observed: &Observed,
    ring: &Ring,
    gone: &BTreeSet<Uuid>,
    waiting: &mut Vec<Reason>,
) -> Wish {
    let mut members = Vec::new();
    let mut joiners = Vec::new();
    let mut all_joiners_ready = true;
    for ordinal in 0..desired.replicas {
        match seat(desired, observed, ring, ordinal, waiting) {
            Seat::Member(wanted) => members.push(wanted),
            Seat::Joiner(wanted) => joiners.push(wanted),
            Seat::Vacant => all_joiners_ready = false,
        }
    }
    if all_joiners_ready {
        members.append(&mut joiners);
    }
    let mut quorums = desired.quorums;
    if members.len() < usize::from(quorums.n) && quorums.n > ring.quorums.n {
        waiting.push(Reason::TooFewForFactor { members: members.len(), n: quorums.n });
        quorums = ring.quorums;
    }
    Wish { partitions: desired.partitions, quorums, members, gone: gone.clone() }
}

/// The same wish, but nobody leaves who has not begun to, and no item gets more replicas: what can be done while what
/// is wanted does not fit.
pub(super) fn without_shrinking(mut wish: Wish, desired: &Desired, ring: &Ring) -> Wish {
    let staying = ring.members.iter().filter(|member| member.state != MemberState::Leaving);
    for member in staying.filter(|member| !wish.gone.contains(&member.incarnation)) {
        let replaced = wish.members.iter().any(|wanted| wanted.name == member.name);
        if !replaced {
            wish.members.push(as_before(desired, member));
        }
    }
    if wish.quorums.n > ring.quorums.n {
        wish.quorums = ring.quorums;
    }
    wish
}

/// Who sits at an ordinal.
enum Seat {
    /// One that is a member already, or replaces one.
    Member(Wanted),
    /// One that shall become a member.
    Joiner(Wanted),
    /// Nobody yet.
    Vacant,
}

fn seat(desired: &Desired, observed: &Observed, ring: &Ring, ordinal: u32, waiting: &mut Vec<Reason>) -> Seat {
    let name = desired.pod(ordinal);
    let staying = ring.members.iter().find(|m| m.name == name && m.state != MemberState::Leaving);
    let pod = observed.pod(ordinal).filter(|pod| !pod.terminating);
    let Some((pod, answer)) = pod.and_then(|pod| Some((pod, pod.answer()?))) else {
        let Some(member) = staying else {
            waiting.push(Reason::JoinerSilent { pod: name });
            return Seat::Vacant;
        };
        waiting.push(silent(observed, ordinal, name));
        return Seat::Member(as_before(desired, member));
    };
    let known = ring.member_by_incarnation(answer.incarnation);
    match (staying, known) {
        (Some(member), Some(known)) if member.index == known.index => {
            Seat::Member(wanted(desired, pod, answer, Some(member)))
        }
        (None, Some(known)) if known.name == name => Seat::Member(wanted(desired, pod, answer, Some(known))),
        (_, Some(known)) => {
            waiting.push(Reason::VolumesSwapped { pod: name, member: known.name.clone() });
            staying.map_or(Seat::Vacant, |member| Seat::Member(as_before(desired, member)))
        }
        (staying, None) => match (admit(desired, ring, pod, answer), staying) {
            (Ok(()), Some(_)) => Seat::Member(wanted(desired, pod, answer, None)),
            (Ok(()), None) => Seat::Joiner(wanted(desired, pod, answer, None)),
            (Err(reason), staying) => {
                waiting.push(reason);
                staying.map_or(Seat::Vacant, |member| Seat::Member(as_before(desired, member)))
            }
        },
    }
}

fn silent(observed: &Observed, ordinal: u32, pod: String) -> Reason {
    let why = match observed.pod(ordinal).map(|pod| (&pod.node, pod.terminating)) {
        Some((_, true)) => "it is being deleted".to_owned(),
        Some((super::Observation::NoAnswer(why), _)) => why.clone(),
        Some(_) | None => "there is no such pod".to_owned(),
    };
    Reason::NoAnswer { pod, why }
}

fn as_before(desired: &Desired, member: &Member) -> Wanted {
    let zone = member.zone.clone().filter(|_| desired.zones);
    named(desired, &member.name, member.incarnation, zone)
}

/// Whether one that is no member may become one: nothing of another cluster, and nothing left of an earlier
/// membership that could bring back what was deleted meanwhile.
fn admit(desired: &Desired, ring: &Ring, pod: &Pod, answer: &Answer) -> Result<(), Reason> {
    if let Some(cluster) = answer.cluster.filter(|cluster| *cluster != desired.cluster) {
        return Err(Reason::ForeignData { pod: pod.name.clone(), cluster });
    }
    if desired.zones && pod.zone.is_none() {
        return Err(Reason::ZoneUnknown { pod: pod.name.clone() });
    }
    let status = &answer.status;
    let knows_the_ring = status.epoch == 0 || status.epoch >= ring.epoch;
    if !knows_the_ring || status.leftover_partitions > 0 {
        let partitions = status.leftover_partitions;
        return Err(Reason::JoinerDrops { pod: pod.name.clone(), partitions });
    }
    Ok(())
}

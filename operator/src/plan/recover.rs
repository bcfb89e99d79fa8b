//! Which ring there is. A ring is made only for a cluster that has none, and that takes the word of everyone who
//! might have one; a lost `ConfigMap` is restored from the highest epoch that the nodes hold.

use super::{Action, Answer, Desired, Observed, Pod, Reason, StoredRing, wish};
use dynamo::moves::{self, Wish};
use dynamo::ring::Ring;
use dynamo::token::HashKey;
use std::collections::BTreeSet;

/// What is known of the ring.
pub(super) enum Recovery<'a> {
    /// This one is published.
    Known(&'a Ring),
    /// It has to be written first.
    Act(Action),
    /// Nothing is certain yet; this is the newest seen so far.
    Wait(Option<&'a Ring>),
}

/// Finds the ring, or the way to one.
pub(super) fn ring<'a>(
    desired: &Desired,
    observed: &'a Observed,
    fresh: HashKey,
    waiting: &mut Vec<Reason>,
) -> Recovery<'a> {
    let newest = newest_held(desired, observed);
    if let StoredRing::Held { ring, .. } = &observed.stored {
        return match newest {
            Some((from, held)) if held.epoch > ring.epoch => {
                Recovery::Act(Action::RestoreRing { ring: Box::new(held.clone()), from: from.to_owned() })
            }
            // An older ring was put in the place of a newer one, as by a restored backup.
            _ if ring.epoch < observed.known_epoch => restore(desired, observed, "its ConfigMap", ring, waiting),
            _ => Recovery::Known(ring),
        };
    }
    match newest {
        Some((from, held)) => restore(desired, observed, from, held, waiting),
        None => first(desired, observed, fresh, waiting),
    }
}

/// The newest document of this cluster that a node handed over.
fn newest_held<'a>(desired: &Desired, observed: &'a Observed) -> Option<(&'a str, &'a Ring)> {
    observed
        .pods
        .iter()
        .filter_map(|pod| Some((pod.name.as_str(), pod.answer()?.held.as_deref()?)))
        .filter(|(_, held)| held.cluster == desired.cluster)
        .max_by_key(|(_, held)| held.epoch)
}

/// Restores the newest document, once nobody is left who could hold a newer one.
fn restore<'a>(
    desired: &Desired,
    observed: &Observed,
    from: &str,
    held: &'a Ring,
    waiting: &mut Vec<Reason>,
) -> Recovery<'a> {
    let mut unheard: BTreeSet<&str> =
        observed.pods.iter().filter(|pod| !has_spoken(pod)).map(|pod| pod.name.as_str()).collect();
    // A pod that answers with another incarnation than its member's proves that the member's volume is gone.
    let answers = |name: &str| observed.pods.iter().any(|pod| pod.name == name && pod.answer().is_some());
    // Whoever was let go on proof can know no more than those who stayed: all of them knew its ring then.
    let let_go = |incarnation| observed.workload.as_ref().is_some_and(|w| w.proven.contains(incarnation));
    let members = held.members.iter().filter(|member| !let_go(&member.incarnation));
    unheard.extend(members.map(|member| member.name.as_str()).filter(|name| !answers(name)));
    // What is out of reach for good will never speak, and nobody acts on what it alone knows.
    unheard.retain(|name| !observed.pods.iter().any(|pod| pod.name == *name && given_up(desired, observed, pod)));
    if !unheard.is_empty() {
        waiting.extend(unheard.into_iter().map(|member| Reason::RestoreNeeds { member: member.to_owned() }));
        return Recovery::Wait(Some(held));
    }
    let mut ring = held.clone();
    if observed.known_epoch > ring.epoch {
        // The newer document reached nobody, so nobody acts on it; its number is not used for another one.
        ring.epoch = observed.known_epoch + 1;
    }
    Recovery::Act(Action::RestoreRing { ring: Box::new(ring), from: from.to_owned() })
}

/// Whether the volume of this pod has been out of reach for good for as long as the spec asks for.
fn given_up(desired: &Desired, observed: &Observed, pod: &Pod) -> bool {
    let stranded = observed.volume(pod.ordinal).is_some_and(|volume| volume.stranded.is_some());
    stranded && pod.unscheduled_seconds.is_some_and(|seconds| seconds >= desired.replace_after_seconds)
}

/// Whether a pod's node answered and handed over the ring it says it has.
fn has_spoken(pod: &Pod) -> bool {
    pod.answer().is_some_and(|answer| answer.status.epoch == 0 || answer.held.is_some())
}

/// Makes the first ring, if it is certain that there has been none.
fn first<'a>(desired: &Desired, observed: &Observed, fresh: HashKey, waiting: &mut Vec<Reason>) -> Recovery<'a> {
    let before = waiting.len();
    let mut members = Vec::new();
    for ordinal in 0..desired.replicas {
        match newcomer(desired, observed, ordinal) {
            Ok((pod, answer)) => members.push(wish::wanted(desired, pod, answer, None)),
            Err(reason) => waiting.push(reason),
        }
    }
    waiting.extend(others_that_may_know(desired, observed));
    if waiting.len() > before {
        return Recovery::Wait(None);
    }
    if observed.known_epoch > 0 {
        waiting.push(Reason::RingLost { epoch: observed.known_epoch });
        return Recovery::Wait(None);
    }
    if let StoredRing::Damaged { why, .. } = &observed.stored {
        waiting.push(Reason::RingDamaged { why: why.clone() });
        return Recovery::Wait(None);
    }
    let (partitions, quorums) = (desired.partitions, desired.quorums);
    let wish = Wish { partitions, quorums, members, gone: BTreeSet::new() };
    match moves::create(desired.cluster, fresh, &wish) {
        Ok(ring) => Recovery::Act(Action::CreateRing(Box::new(ring))),
        Err(error) => {
            waiting.push(Reason::Unplannable { why: error.to_string() });
            Recovery::Wait(None)
        }
    }
}

/// The pod of a member of the first ring, with its answer that it has no ring.
fn newcomer<'a>(desired: &Desired, observed: &'a Observed, ordinal: u32) -> Result<(&'a Pod, &'a Answer), Reason> {
    let name = desired.pod(ordinal);
    // A node refuses to run on another cluster's data, so its claim has to tell.
    let foreign = observed.volume(ordinal).filter(|volume| volume.bound);
    let foreign = foreign.and_then(|volume| volume.cluster).filter(|cluster| *cluster != desired.cluster);
    let Some(pod) = observed.pod(ordinal) else {
        return Err(Reason::NoAnswer { pod: name, why: "there is no such pod yet".to_owned() });
    };
    let answer = match &pod.node {
        super::Observation::Answer(answer) => answer,
        super::Observation::NoAnswer(_) if foreign.is_some() => {
            return Err(Reason::ForeignData { pod: name, cluster: foreign.unwrap_or_default() });
        }
        super::Observation::NoAnswer(why) => {
            return Err(Reason::NoAnswer { pod: name, why: why.clone() });
        }
    };
    if let Some(cluster) = answer.cluster.filter(|cluster| *cluster != desired.cluster) {
        return Err(Reason::ForeignData { pod: name, cluster });
    }
    if answer.status.epoch > 0 {
        return Err(Reason::RestoreNeeds { member: name });
    }
    if desired.zones && pod.zone.is_none() {
        return Err(Reason::ZoneUnknown { pod: name });
    }
    Ok((pod, answer))
}

/// Pods and volumes beyond the wanted ones that may hold a ring of this cluster.
fn others_that_may_know(desired: &Desired, observed: &Observed) -> Vec<Reason> {
    let empty = |ordinal| observed.pod(ordinal).and_then(Pod::answer).is_some_and(|a| a.status.epoch == 0);
    observed
        .volumes
        .iter()
        .filter(|volume| volume.ordinal >= desired.replicas && volume.bound)
        .filter(|volume| volume.cluster.is_none_or(|cluster| cluster == desired.cluster))
        .filter(|volume| !empty(volume.ordinal))
        .map(|volume| Reason::VolumeMayHoldRing { volume: volume.name.clone() })
        .collect()
}

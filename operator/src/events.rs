//! What is worth an Event: not each epoch, but each thing that a person would want to have been told.

use crate::plan::{Action, Observed, Scaling};
use dynamo::ring::{MemberState, Ring};
use kube::runtime::events::{Event, EventType};

/// The Events of an action that was performed.
#[must_use]
pub fn of_action(action: &Action, observed: &Observed, cluster: &str) -> Vec<Event> {
    match action {
        Action::ApplyObjects { replicas, .. } => {
            let found = observed.workload.as_ref().map(|workload| workload.replicas);
            found
                .filter(|found| found < replicas)
                .map(|found| put_back(cluster, found, *replicas))
                .into_iter()
                .collect()
        }
        Action::ScaleWorkload { replicas, why, .. } => vec![match why {
            Scaling::Grow => normal("Scaling", format!("the StatefulSet gets {replicas} pods")),
            Scaling::PutBack { found } => put_back(cluster, *found, *replicas),
            Scaling::Shrink { proofs, .. } => {
                let pods: Vec<&str> = proofs.iter().map(crate::plan::Proof::pod).collect();
                let note = if pods.is_empty() {
                    format!("pods beyond {replicas} are no members of the ring and go")
                } else {
                    format!("{} hold nothing any more, by their own word, and go", pods.join(", "))
                };
                normal("ScaleInProven", note)
            }
        }],
        Action::CreateRing(ring) => {
            let (members, partitions) = (ring.members.len(), ring.partitions.len());
            vec![normal("ClusterCreated", format!("first ring: {partitions} partitions on {members} members"))]
        }
        Action::RestoreRing { ring, from } => {
            vec![warning("RingRestored", format!("ring epoch {} was restored from {from}", ring.epoch))]
        }
        Action::PublishRing { ring, change } => published(ring, change.retargeted, observed),
        Action::DeleteVolume { name, .. } => {
            vec![normal("VolumeDeleted", format!("volume claim {name} of a node scaled in was deleted"))]
        }
        Action::ReplaceVolume { volume, pod, .. } => {
            let note = format!(
                "volume claim {volume} can never be reached again; {pod} is made anew elsewhere and filled from the other replicas"
            );
            vec![warning("NodeReplaced", note)]
        }
        Action::GrowVolume { name } => vec![normal("VolumeGrown", format!("volume claim {name} asks for more"))],
        Action::RestartPod { name, .. } => {
            vec![normal("RolloutStep", format!("{name} restarts as now described"))]
        }
    }
}

/// An Event about a spec that cannot be worked on, or about something that only a person can mend.
#[must_use]
pub fn blocked(reason: &str, note: String) -> Event {
    warning(reason, note)
}

fn published(ring: &Ring, retargeted: bool, observed: &Observed) -> Vec<Event> {
    let meant = |ring: &Ring| ring.members.iter().filter(|m| m.state != MemberState::Leaving).count();
    let before = observed.ring();
    if retargeted && let Some(target) = &ring.target {
        let from = before.map_or(0, meant);
        let note = format!("from {from} to {} members, {} replica moves", meant(ring), target.replica_moves);
        return vec![normal("RebalanceStarted", note)];
    }
    if ring.target.is_none() && before.is_some_and(|before| before.target.is_some()) {
        let note = format!("{} members hold {} partitions", meant(ring), ring.partitions.len());
        return vec![normal("RebalanceFinished", note)];
    }
    Vec::new()
}

fn put_back(cluster: &str, found: u32, replicas: u32) -> Event {
    warning(
        "StatefulSetScaledBack",
        format!(
            "somebody scaled the StatefulSet to {found}; it is back at {replicas}. To scale, use: kubectl scale kvc/{cluster} --replicas=…"
        ),
    )
}

fn normal(reason: &str, note: String) -> Event {
    event(EventType::Normal, reason, note)
}

fn warning(reason: &str, note: String) -> Event {
    event(EventType::Warning, reason, note)
}

/// Notes are cut at the 1024 bytes that the API allows.
fn event(type_: EventType, reason: &str, mut note: String) -> Event {
    while note.len() > 1000 {
        note.pop();
    }
    Event { type_, reason: reason.to_owned(), note: Some(note), action: reason.to_owned(), secondary: None }
}

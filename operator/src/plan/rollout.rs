//! Rolling restarts: one pod at a time, and only while nothing else is the matter.

use super::{Action, Desired, Observed, Pod, Reason, Workload};
use dynamo::ring::Ring;

/// Restarts a pod that was made from an older template and whose node does not even run. Without this, a template
/// that cannot run could not be mended.
pub(super) fn broken(observed: &Observed, workload: &Workload) -> Option<Action> {
    if observed.pods.iter().any(|pod| pod.terminating) {
        return None;
    }
    observed
        .pods
        .iter()
        .rev()
        .find(|pod| outdated(pod, workload) && !pod.running && !pod.ready && pod.answer().is_none())
        .map(restart)
}

/// Restarts the highest pod made from an older template, if every pod serves, no partition moves, every node reaches
/// every other, and nobody holds writes for another.
pub(super) fn next(
    desired: &Desired,
    observed: &Observed,
    workload: &Workload,
    ring: &Ring,
    settled: bool,
    waiting: &mut Vec<Reason>,
) -> Option<Action> {
    let pod = observed.pods.iter().rev().find(|pod| outdated(pod, workload))?;
    match obstacle(desired, observed, workload, ring, settled) {
        None => Some(restart(pod)),
        Some(why) => {
            waiting.push(Reason::RolloutNeeds { why });
            None
        }
    }
}

fn outdated(pod: &Pod, workload: &Workload) -> bool {
    !pod.terminating && !workload.revision.is_empty() && pod.revision != workload.revision
}

fn restart(pod: &Pod) -> Action {
    Action::RestartPod { name: pod.name.clone(), uid: pod.uid.clone() }
}

fn obstacle(
    desired: &Desired,
    observed: &Observed,
    workload: &Workload,
    ring: &Ring,
    settled: bool,
) -> Option<String> {
    let moving = ring.partitions.iter().any(|placement| placement.also.is_some());
    if !settled || moving || ring.target.is_some() {
        return Some("a rebalance is under way".to_owned());
    }
    if workload.replicas != desired.replicas {
        return Some("the number of pods is changing".to_owned());
    }
    for ordinal in 0..workload.replicas {
        let name = desired.pod(ordinal);
        let Some(pod) = observed.pod(ordinal).filter(|pod| pod.ready && !pod.terminating) else {
            return Some(format!("{name} is not ready"));
        };
        let Some(answer) = pod.answer() else {
            return Some(format!("{name} does not answer"));
        };
        let status = &answer.status;
        if status.epoch != ring.epoch {
            return Some(format!("{name} is at ring epoch {}, not {}", status.epoch, ring.epoch));
        }
        if !status.unreachable.is_empty() {
            return Some(format!("{name} cannot reach {} members", status.unreachable.len()));
        }
        if status.hints > 0 {
            return Some(format!("{name} still owes {} hints", status.hints));
        }
    }
    None
}

//! The status: what was observed and applied, and nothing that is merely hoped for. Pure.

mod conditions;
mod rebalance;

use crate::build;
use crate::crd::{KeyValueCluster, KeyValueClusterStatus, RingStatus};
use crate::plan::{Action, Objects, Observed, Plan, Pod};
use crate::validate::Invalid;
use dynamo::ring::{MemberState, Ring};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

/// What came of one round.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// The resource as it was read.
    pub cluster: &'a KeyValueCluster,
    /// What was observed.
    pub observed: &'a Observed,
    /// Why the spec cannot be worked on, if so.
    pub invalid: Option<&'a Invalid>,
    /// What was planned.
    pub plan: &'a Plan,
    /// Why the planned action was not performed, if so.
    pub failed: Option<&'a str>,
    /// The ring that is published now: the one just written, or the one observed.
    pub ring: Option<&'a Ring>,
    /// Now.
    pub now: Timestamp,
}

impl Round<'_> {
    /// Whether the round changes anything. Writing again what is there already does not.
    fn changes(&self) -> bool {
        match &self.plan.action {
            Some(Action::ApplyObjects { .. }) => self.observed.objects != Objects::Due,
            action => action.is_some(),
        }
    }
}

/// The status after this round.
#[must_use]
pub fn status(round: &Round<'_>) -> KeyValueClusterStatus {
    let before = round.cluster.status.clone().unwrap_or_default();
    let name = round.cluster.name_any();
    let observed = round.observed;
    // A ring that is lost for the moment stays in the status: it proves that there has been one.
    let ring = round.ring.map(ring_status).or(before.ring.clone());
    let (rebalance, last_rebalance) = rebalance::rebalance(round, &before);
    let health = health(observed, round.ring);
    KeyValueClusterStatus {
        phase: Some(phase(round, &health).to_owned()),
        conditions: conditions::conditions(round, &health, rebalance.as_ref(), &before.conditions),
        observed_generation: round.cluster.metadata.generation,
        replicas: count(observed.pods.iter().filter(|pod| !pod.terminating).count()),
        selector: Some(build::selector_text(&name)),
        ready_replicas: count(observed.pods.iter().filter(|pod| pod.ready && !pod.terminating).count()),
        ring,
        rebalance,
        last_rebalance,
        waiting: round.plan.waiting.iter().map(ToString::to_string).collect(),
    }
}

/// How the data is doing.
struct Health {
    /// Members that do not answer, those let go excepted.
    silent: Vec<String>,
    /// Partitions of which too few replicas answer for the default quorums.
    without_quorum: usize,
}

fn health(observed: &Observed, ring: Option<&Ring>) -> Health {
    let Some(ring) = ring else {
        return Health { silent: Vec::new(), without_quorum: 0 };
    };
    let answers = |incarnation| observed.answer_of(incarnation).is_some();
    let listed = |index| ring.partitions.iter().any(|placement| placement.names(index));
    let silent = ring
        .members
        .iter()
        .filter(|member| member.state != MemberState::Leaving || listed(member.index))
        .filter(|member| !answers(member.incarnation))
        .map(|member| member.name.clone())
        .collect();
    let answering: std::collections::BTreeSet<_> =
        ring.members.iter().filter(|member| answers(member.incarnation)).map(|member| member.index).collect();
    let short = |list: &[dynamo::preference::MemberIndex]| {
        let (r, w) = ring.quorums.of_list(list.len());
        list.iter().filter(|index| answering.contains(index)).count() < r.max(w).min(list.len())
    };
    let without_quorum = ring.partitions.iter().filter(|placement| short(&placement.preference)).count();
    Health { silent, without_quorum }
}

fn phase(round: &Round<'_>, health: &Health) -> &'static str {
    let rebalancing = round.ring.is_some_and(is_rebalancing);
    match round.ring {
        _ if round.cluster.spec.paused => "Paused",
        None if round.invalid.is_some() || round.observed.workload.is_none() => "Pending",
        None if round.cluster.status.as_ref().is_some_and(|status| status.ring.is_some()) => "Degraded",
        None => "Creating",
        Some(_) if rebalancing => "Rebalancing",
        Some(_) if !health.silent.is_empty() => "Degraded",
        Some(_) if round.changes() || round.failed.is_some() || !round.plan.waiting.is_empty() => "Updating",
        Some(_) => "Running",
    }
}

/// Whether partitions move, or members come or go.
fn is_rebalancing(ring: &Ring) -> bool {
    ring.target.is_some()
        || ring.partitions.iter().any(|placement| placement.also.is_some())
        || ring.members.iter().any(|member| member.state != MemberState::Active)
}

fn ring_status(ring: &Ring) -> RingStatus {
    RingStatus {
        epoch: i64::try_from(ring.epoch).unwrap_or(i64::MAX),
        partitions: count(ring.partitions.len()),
        members: count(ring.members.len()),
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Names of pods that answer, for messages.
fn answering(observed: &Observed) -> usize {
    observed.pods.iter().filter_map(Pod::answer).count()
}

//! The planner: from what is wanted and what was observed to at most one next action, and the reasons for all that
//! waits. Pure: no client, no clock, no memory. Whatever it must remember is in the objects that it observes, so an
//! operator that dies after any write, or is replaced by another, goes on from there.
//!
//! `docs/operator.md` has the table of its decisions; a test compares the two.

mod capacity;
mod facts;
mod proof;
mod reason;
mod recover;
mod replace;
mod rollout;
mod volumes;
pub mod wish;
mod workload;

pub use facts::{Answer, Desired, Objects, Observation, Observed, Pod, Served, StoredRing, Volume, Workload};
pub use proof::{Proof, prove};
pub use reason::{NoProof, Reason};

use dynamo::moves::{self, Change, MoveError, Step};
use dynamo::ring::Ring;
use dynamo::token::HashKey;
use recover::Recovery;
use std::collections::BTreeSet;
use uuid::Uuid;

/// What to do next, and what waits.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The one next action.
    pub action: Option<Action>,
    /// Everything that waits.
    pub waiting: Vec<Reason>,
    /// Pods whose nodes have an older ring than the published one. They are handed it again, which is harmless at
    /// any time and therefore no action of its own.
    pub lagging: Vec<String>,
}

/// One change to the world.
#[derive(Clone, Debug)]
pub enum Action {
    /// Write every object that is built from the spec alone, the `StatefulSet` with these replicas.
    ApplyObjects {
        /// Replicas: as there are, or as many as are needed when there is no `StatefulSet`.
        replicas: u32,
        /// Incarnations already let go on proof, to be kept noted.
        proven: BTreeSet<Uuid>,
    },
    /// Write the `StatefulSet` with another number of replicas.
    ScaleWorkload {
        /// That number.
        replicas: u32,
        /// Incarnations let go on proof, those of this write included.
        proven: BTreeSet<Uuid>,
        /// Why.
        why: Scaling,
    },
    /// Create the ring's `ConfigMap` with the first document.
    CreateRing(Box<Ring>),
    /// Write the document that a node holds to the lost, damaged or outdated `ConfigMap`.
    RestoreRing {
        /// The document.
        ring: Box<Ring>,
        /// Pod whose node holds it.
        from: String,
    },
    /// Replace the document by its successor.
    PublishRing {
        /// The successor.
        ring: Box<Ring>,
        /// What it changes.
        change: Change,
    },
    /// Delete the volume of a member that was let go on proof.
    DeleteVolume {
        /// Name of the claim.
        name: String,
        /// Its UID: a claim made anew under the name is spared.
        uid: String,
    },
    /// Give up a volume that can never be reached again, and its pod, so that both are made anew elsewhere.
    ReplaceVolume {
        /// Name of the claim.
        volume: String,
        /// Its UID: a claim made anew under the name is spared.
        volume_uid: String,
        /// Name of the pod.
        pod: String,
        /// Its UID: a pod made anew under the name is spared.
        pod_uid: String,
    },
    /// Ask for a larger volume.
    GrowVolume {
        /// Name of the claim.
        name: String,
    },
    /// Delete a pod, so that it comes back as the `StatefulSet` now describes it.
    RestartPod {
        /// Its name.
        name: String,
        /// Its UID: a pod made anew under the name is spared.
        uid: String,
    },
}

/// Why the number of replicas changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// More nodes are wanted or needed.
    Grow,
    /// Somebody else has changed the number.
    PutBack {
        /// To this.
        found: u32,
    },
    /// The highest ordinals are dispensable.
    Shrink {
        /// Proofs of those that are members of the ring, to be checked again just before.
        proofs: Vec<Proof>,
        /// Version of the `StatefulSet` that this was decided on.
        resource_version: String,
    },
}

impl Action {
    /// One word for logs, events and the decision table.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ApplyObjects { .. } => "ApplyObjects",
            Self::ScaleWorkload { why: Scaling::Grow, .. } => "ScaleWorkload/Grow",
            Self::ScaleWorkload { why: Scaling::PutBack { .. }, .. } => "ScaleWorkload/PutBack",
            Self::ScaleWorkload { why: Scaling::Shrink { .. }, .. } => "ScaleWorkload/Shrink",
            Self::CreateRing(_) => "CreateRing",
            Self::RestoreRing { .. } => "RestoreRing",
            Self::PublishRing { .. } => "PublishRing",
            Self::DeleteVolume { .. } => "DeleteVolume",
            Self::ReplaceVolume { .. } => "ReplaceVolume",
            Self::GrowVolume { .. } => "GrowVolume",
            Self::RestartPod { .. } => "RestartPod",
        }
    }
}

/// At most one next action, and the reasons for all that waits. `fresh` becomes the hash key if this makes the
/// cluster's first ring; it must come from a good source of randomness.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed, fresh: HashKey) -> Plan {
    if desired.paused {
        return Plan { waiting: vec![Reason::Paused], ..Plan::default() };
    }
    let mut waiting = Vec::new();
    let action = decide(desired, observed, fresh, &mut waiting);
    waiting.sort();
    waiting.dedup();
    Plan { action, waiting, lagging: lagging(desired, observed) }
}

fn decide(desired: &Desired, observed: &Observed, fresh: HashKey, waiting: &mut Vec<Reason>) -> Option<Action> {
    // Raising is always safe, so a number that somebody else lowered is put back in passing.
    let write_again = |workload: &Workload| Action::ApplyObjects {
        replicas: workload.replicas_written.map_or(workload.replicas, |written| written.max(workload.replicas)),
        proven: workload.proven.clone(),
    };
    let workload = match (&observed.workload, observed.objects) {
        (Some(workload), Objects::Current | Objects::Due) => workload,
        (Some(workload), Objects::Differ) => return Some(write_again(workload)),
        (None, _) => {
            let replicas = workload::needed(desired, observed.ring(), &BTreeSet::new());
            return Some(Action::ApplyObjects { replicas, proven: BTreeSet::new() });
        }
    };
    let action = match recover::ring(desired, observed, fresh, waiting) {
        Recovery::Known(ring) => with_ring(desired, observed, workload, ring, waiting),
        Recovery::Act(action) => Some(action),
        Recovery::Wait(best) => workload::grow(desired, workload, best, &BTreeSet::new())
            .or_else(|| rollout::broken(observed, workload)),
    };
    // Last, so that a wish does not wait for it.
    action.or_else(|| (observed.objects == Objects::Due).then(|| write_again(workload)))
}

/// The ring is known: members first, then the pods and volumes that follow from it.
fn with_ring(
    desired: &Desired,
    observed: &Observed,
    workload: &Workload,
    ring: &Ring,
    waiting: &mut Vec<Reason>,
) -> Option<Action> {
    let gone = wish::gone(desired, observed, workload, ring);
    if let Some(action) = workload::grow(desired, workload, Some(ring), &gone) {
        return Some(action);
    }
    if let Some(action) = replace::replace(desired, observed, ring, &gone, waiting) {
        return Some(action);
    }
    let settled = match advance(desired, observed, ring, &gone, waiting) {
        Ok(Step::Publish(..)) if observed.published_just_now => {
            waiting.push(Reason::Pacing);
            return None;
        }
        Ok(Step::Publish(ring, change)) => return Some(Action::PublishRing { ring, change }),
        Ok(Step::Wait(reasons)) => {
            waiting.extend(reasons.into_iter().map(Reason::Move));
            false
        }
        Ok(Step::Settled) => true,
        Err(error) => {
            waiting.push(Reason::Unplannable { why: error.to_string() });
            false
        }
    };
    volumes::discard(desired, observed, workload, ring, waiting)
        .or_else(|| workload::shrink(desired, observed, workload, ring, &gone, waiting))
        .or_else(|| rollout::broken(observed, workload))
        .or_else(|| rollout::next(desired, observed, workload, ring, settled, waiting))
        .or_else(|| volumes::grow(desired, observed))
}

/// The next step towards the wish; towards as much of it as fits on the disks, if not all of it does.
fn advance(
    desired: &Desired,
    observed: &Observed,
    ring: &Ring,
    gone: &BTreeSet<Uuid>,
    waiting: &mut Vec<Reason>,
) -> Result<Step, MoveError> {
    let reports = wish::reports(observed, ring);
    let wish = wish::wish(desired, observed, ring, gone, waiting);
    let step = moves::advance(ring, &wish, &reports, desired.pace)?;
    let Step::Publish(next, change) = &step else { return Ok(step) };
    if !change.retargeted || (change.leaving == 0 && wish.quorums.n <= ring.quorums.n) {
        return Ok(step);
    }
    let too_small = capacity::too_small(desired, observed, next);
    if too_small.is_empty() {
        return Ok(step);
    }
    waiting.extend(too_small);
    moves::advance(ring, &wish::without_shrinking(wish, desired, ring), &reports, desired.pace)
}

/// How many seconds are to pass before a document follows one that is published now.
#[must_use]
pub fn spacing(observed: &Observed) -> u32 {
    moves::spacing(&observed.ring().map(|ring| wish::reports(observed, ring)).unwrap_or_default())
}

/// Pods whose nodes answer with an older epoch than the published one.
fn lagging(desired: &Desired, observed: &Observed) -> Vec<String> {
    let Some(ring) = observed.ring() else {
        return Vec::new();
    };
    let lags = |answer: &Answer| {
        answer.status.epoch < ring.epoch && answer.cluster.is_none_or(|cluster| cluster == desired.cluster)
    };
    observed.pods.iter().filter(|pod| pod.answer().is_some_and(lags)).map(|pod| pod.name.clone()).collect()
}

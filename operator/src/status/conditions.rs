//! The conditions.

use super::{Health, Round, answering};
use crate::crd::RebalanceStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// One condition before its times are filled in.
struct Verdict {
    type_: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

/// All conditions. The time of one changes when its status does.
pub(super) fn conditions(
    round: &Round<'_>,
    health: &Health,
    rebalance: Option<&RebalanceStatus>,
    before: &[Condition],
) -> Vec<Condition> {
    [available(round, health), progressing(round), degraded(round, health), rebalancing(rebalance), valid(round)]
        .into_iter()
        .map(|verdict| {
            let status = if verdict.holds { "True" } else { "False" };
            let earlier = before.iter().find(|c| c.type_ == verdict.type_ && c.status == status);
            Condition {
                type_: verdict.type_.to_owned(),
                status: status.to_owned(),
                reason: verdict.reason.to_owned(),
                message: verdict.message,
                observed_generation: round.cluster.metadata.generation,
                last_transition_time: earlier.map_or(Time(round.now), |c| c.last_transition_time.clone()),
            }
        })
        .collect()
}

fn available(round: &Round<'_>, health: &Health) -> Verdict {
    let (holds, reason, message) = match round.ring {
        None => (false, "NoRing", "there is no published ring".to_owned()),
        Some(ring) if health.without_quorum > 0 => (
            false,
            "PartitionsWithoutQuorum",
            format!(
                "{} of {} partitions have too few answering replicas",
                health.without_quorum,
                ring.partitions.len()
            ),
        ),
        Some(ring) => {
            let message = format!("every one of {} partitions has its quorums", ring.partitions.len());
            (true, "QuorumsUp", message)
        }
    };
    Verdict { type_: "Available", holds, reason, message }
}

fn progressing(round: &Round<'_>) -> Verdict {
    let plan = round.plan;
    let first_help = plan.waiting.iter().find(|reason| reason.needs_help());
    let (holds, reason, message) = match (round.failed, first_help, &plan.action, plan.waiting.first()) {
        (Some(why), ..) => (false, "ActionFailed", why.to_owned()),
        (None, Some(reason), ..) => (false, reason.code(), reason.to_string()),
        (None, None, Some(action), _) if round.changes() => {
            (true, action.code().split('/').next().unwrap_or_default(), format!("did {}", action.code()))
        }
        (None, None, _, Some(reason)) => (true, reason.code(), reason.to_string()),
        (None, None, _, None) => (false, "Settled", "everything is as the spec says".to_owned()),
    };
    Verdict { type_: "Progressing", holds, reason, message }
}

fn degraded(round: &Round<'_>, health: &Health) -> Verdict {
    let (holds, reason, message) = match health.silent.as_slice() {
        [] => (false, "AllAnswer", format!("{} nodes answer", answering(round.observed))),
        silent => (true, "NodesSilent", format!("no answer from {}", silent.join(", "))),
    };
    Verdict { type_: "Degraded", holds, reason, message }
}

fn rebalancing(rebalance: Option<&RebalanceStatus>) -> Verdict {
    let (holds, reason, message) = match rebalance {
        None => (false, "Settled", "no partition moves".to_owned()),
        Some(rebalance) => {
            let RebalanceStatus { from, to, partitions_left, .. } = rebalance;
            (true, "Moving", format!("from {from} to {to} members, {partitions_left} partitions left"))
        }
    };
    Verdict { type_: "Rebalancing", holds, reason, message }
}

fn valid(round: &Round<'_>) -> Verdict {
    let (holds, reason, message) = match round.invalid {
        None => (true, "SpecWorks", "the spec can be worked on".to_owned()),
        Some(invalid) => (false, "SpecRefused", invalid.to_string()),
    };
    Verdict { type_: "Valid", holds, reason, message }
}

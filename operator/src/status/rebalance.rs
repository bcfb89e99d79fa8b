//! How far a rebalance is, in partitions and bytes.
//!
//! Bytes moved are counted by the nodes that receive them. What would have been the least is estimated: the moves of
//! replicas that any plan needs, times the mean size of a replica of a partition when the rebalance began.

use super::{Round, count};
use crate::crd::{KeyValueClusterStatus, LastRebalance, RebalanceStatus};
use crate::plan::{Observed, Pod};
use dynamo::moves;
use dynamo::ring::{MemberState, Ring, Target};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The rebalance under way, and the last one that ended.
pub(super) fn rebalance(
    round: &Round<'_>,
    before: &KeyValueClusterStatus,
) -> (Option<RebalanceStatus>, Option<LastRebalance>) {
    let Some(ring) = round.ring else {
        return (before.rebalance.clone(), before.last_rebalance.clone());
    };
    match (&ring.target, &before.rebalance) {
        (Some(target), running) => {
            let begun = running.as_ref().filter(|running| running.since == signed(target.since));
            let last = match (begun, running) {
                // Another wish took over: what was moved for the earlier one is not forgotten.
                (None, Some(earlier)) => Some(ended(round, earlier)),
                _ => before.last_rebalance.clone(),
            };
            (Some(under_way(round, ring, target, begun)), last)
        }
        (None, Some(finished)) => (None, Some(ended(round, finished))),
        (None, None) => {
            let last = before.last_rebalance.clone().map(|mut last| {
                // A node that answers late still adds what it has copied.
                last.bytes_moved = last.bytes_moved.max(signed(moved(round.observed, unsigned(last.since))));
                last
            });
            (None, last)
        }
    }
}

fn under_way(round: &Round<'_>, ring: &Ring, target: &Target, begun: Option<&RebalanceStatus>) -> RebalanceStatus {
    let progress = moves::progress(ring);
    let bytes_moved = moved(round.observed, target.since);
    let started_at = begun.and_then(|begun| begun.started_at.clone()).unwrap_or(Time(round.now));
    let from = begun.map_or_else(|| members_before(round, ring), |begun| begun.from);
    // Estimated once: while n changes, lists are no longer as long as those that the bytes were counted in.
    let (bytes_before, bytes_total, bytes_minimum) = begun.map_or_else(
        || {
            let lists = ring.partitions.iter().map(|placement| placement.preference.len() as u64);
            // Some may not answer just now.
            let served = round.observed.served(ring);
            let estimate = |replicas| signed(served.bytes_of(replicas));
            (
                estimate(lists.sum()),
                estimate(target.replica_moves.into()),
                estimate(target.replica_moves_min.into()),
            )
        },
        |begun| (begun.bytes_before, begun.bytes_total, begun.bytes_minimum),
    );
    let done = target.replica_moves.saturating_sub(u32::try_from(progress.replica_moves_left).unwrap_or(u32::MAX));
    RebalanceStatus {
        since: signed(target.since),
        from,
        to: count(ring.members.iter().filter(|member| member.state != MemberState::Leaving).count()),
        partitions_left: count(progress.left),
        bytes_moved: signed(bytes_moved),
        bytes_total,
        bytes_minimum,
        eta: eta(round.now.as_second() - started_at.0.as_second(), done, progress.replica_moves_left),
        blocked_by: round.plan.waiting.iter().map(ToString::to_string).collect(),
        bytes_before,
        started_at: Some(started_at),
    }
}

fn ended(round: &Round<'_>, rebalance: &RebalanceStatus) -> LastRebalance {
    let moved = signed(moved(round.observed, unsigned(rebalance.since)));
    LastRebalance {
        since: rebalance.since,
        from: rebalance.from,
        to: rebalance.to,
        bytes_moved: rebalance.bytes_moved.max(moved),
        bytes_minimum: rebalance.bytes_minimum,
        started_at: rebalance.started_at.clone(),
        finished_at: Some(Time(round.now)),
    }
}

/// Members that were meant to hold data before this target was set: by the ring observed before it was published, or,
/// if that was missed, by those that are in.
fn members_before(round: &Round<'_>, ring: &Ring) -> i32 {
    let meant = |ring: &Ring| ring.members.iter().filter(|m| m.state != MemberState::Leaving).count();
    let held = |ring: &Ring| ring.members.iter().filter(|m| m.state != MemberState::Joining).count();
    let observed = round.observed.ring().filter(|observed| observed.epoch < ring.epoch);
    count(observed.map_or_else(|| held(ring), meant))
}

/// Bytes copied for the target set in this epoch.
fn moved(observed: &Observed, since: u64) -> u64 {
    let moved = |pod: &Pod| pod.answer().and_then(|answer| answer.status.moved);
    observed.pods.iter().filter_map(moved).filter(|moved| moved.since == since).map(|moved| moved.bytes).sum()
}

/// Time left at the rate so far.
fn eta(elapsed_seconds: i64, done: u32, left: usize) -> Option<String> {
    let left = i64::try_from(left).ok()?;
    if done == 0 || elapsed_seconds <= 0 {
        return None;
    }
    let seconds = elapsed_seconds.saturating_mul(left) / i64::from(done);
    Some(match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, _) => format!("{h}h{m}m"),
    })
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

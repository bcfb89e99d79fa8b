//! One step of the moves: everything that may be published now, in one document.

use super::room::Room;
use super::{Change, MoveError, Pace, Reason, Reports, Step, Wish, membership, report_of, split};
use crate::preference::MemberIndex;
use crate::ring::{Also, MemberState, Phase, Placement, Ring, same_set};
use std::collections::{BTreeMap, BTreeSet};

/// The next document on the way to the wish, or why there is none yet.
///
/// Safe to call at any moment with any wish: lists already moved stay where they are if the wish allows it, and a
/// move that no longer serves is called off or turned round.
///
/// # Errors
/// [`MoveError`] when the wish cannot be met; today's document stays valid.
pub fn advance(ring: &Ring, wish: &Wish, reports: &Reports, pace: Pace) -> Result<Step, MoveError> {
    membership::check(wish)?;
    let mut next = ring.clone();
    next.epoch = ring.epoch + 1;
    let mut change = Change::default();
    let n_differs = next.quorums.n != wish.quorums.n;
    next.quorums = wish.quorums;
    let members_differ = membership::update(&mut next, wish, &mut change)?;
    if members_differ || n_differs {
        membership::retarget(&mut next, ring.epoch + 1)?;
        change.retargeted = true;
    }
    let mut waiting = Waiting::default();
    if let Some(target) = next.target.clone() {
        let wanted = membership::lists(&next, &target.owners, usize::from(next.quorums.n));
        let mut room = Room::of(&next, reports, pace);
        for (partition, list) in wanted.into_iter().enumerate() {
            let placement = next.partitions[partition].clone();
            let facts = Facts { ring: &next, reports, partition, since: target.since };
            let decided = decide(&facts, &placement, &list, &mut room, &mut waiting);
            let was_moving = placement.also.is_some();
            next.partitions[partition] = apply(placement, decided, list, next.epoch, &mut change);
            if was_moving && next.partitions[partition].also.is_none() {
                room.one_is_done();
            }
        }
        settle(&mut next, &target.owners);
    }
    membership::remove_gone(&mut next, wish, &mut change);
    activate(&mut next);
    if let Some(finer) = split::split(&next, wish.partitions) {
        next = finer;
        change.split = true;
    }
    next.epoch = ring.epoch;
    if next == *ring {
        let reasons = waiting.reasons(ring, reports);
        return Ok(if next.target.is_none() { Step::Settled } else { Step::Wait(reasons) });
    }
    next.epoch = ring.epoch + 1;
    Ok(Step::Publish(Box::new(next), change))
}

/// What happens to one partition in this step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Stay,
    /// Same members in another order: nothing has to move.
    Reorder,
    Begin,
    /// Called off: the lists as they are already serve.
    CallOff,
    /// The list that fills is replaced by the wanted one, which fills from here on.
    Turn,
    /// The list that retires serves again, and the one that serves retires. Every write since has gone to both, so
    /// nothing has to be copied; and neither is forgotten while someone may still read by it.
    Return,
    Flip,
    Done,
}

struct Facts<'a> {
    ring: &'a Ring,
    reports: &'a Reports,
    partition: usize,
    /// Epoch in which the target was set.
    since: u64,
}

fn decide(
    facts: &Facts<'_>,
    placement: &Placement,
    wanted: &[MemberIndex],
    room: &mut Room,
    waiting: &mut Waiting,
) -> Decision {
    let here = same_set(&placement.preference, wanted);
    let Some(also) = &placement.also else {
        return match (here, placement.preference == wanted) {
            (true, true) => Decision::Stay,
            (true, false) => Decision::Reorder,
            (false, _) if connected(facts, placement, wanted, waiting) && room.take(placement, wanted) => {
                Decision::Begin
            }
            (false, _) => Decision::Stay,
        };
    };
    match (also.phase, here, same_set(&also.list, wanted)) {
        (Phase::Filling, true, _) => Decision::CallOff,
        (Phase::Filling, false, false) => Decision::Turn,
        (Phase::Retiring, false, true) => Decision::Return,
        (Phase::Filling, false, true) if filled(facts, placement, also, waiting) => Decision::Flip,
        (Phase::Retiring, _, _) if retired(facts, placement, also, waiting) => Decision::Done,
        _ => Decision::Stay,
    }
}

/// Every new holder, and everyone who answers, knows of the target, and nobody who answers finds a new holder
/// unreachable. So no write is made to wait for a member that others have yet to meet.
fn connected(facts: &Facts<'_>, placement: &Placement, wanted: &[MemberIndex], waiting: &mut Waiting) -> bool {
    let mut complete = true;
    for &index in wanted.iter().filter(|index| !placement.preference.contains(index)) {
        let met = facts.ring.member(index).is_some_and(|member| {
            facts.reports.contains_key(&member.incarnation)
                && facts
                    .reports
                    .values()
                    .all(|report| report.epoch >= facts.since && !report.unreachable.contains(&member.incarnation))
        });
        if !met {
            *waiting.connecting.entry(index).or_default() += 1;
            complete = false;
        }
    }
    complete
}

/// Every new holder has said that it has the partition. Where the list gets shorter, so has everyone who stays: see
/// [`Placement::is_to_sync`](crate::ring::Placement::is_to_sync).
fn filled(facts: &Facts<'_>, placement: &Placement, also: &Also, waiting: &mut Waiting) -> bool {
    let mut complete = true;
    for &index in also.list.iter().filter(|index| placement.is_to_sync(**index)) {
        let report = report_of(facts.ring, facts.reports, index);
        if !report.is_some_and(|report| report.has_synced(facts.partition, placement.since)) {
            *waiting.copying.entry(index).or_default() += 1;
            complete = false;
        }
    }
    complete
}

/// No reader can still be served by the old list alone: every member that answers, and enough of the old list that
/// any r of it include one, have installed the epoch from which reads use the new list.
fn retired(facts: &Facts<'_>, placement: &Placement, also: &Also, waiting: &mut Waiting) -> bool {
    let epoch_of = |index| report_of(facts.ring, facts.reports, index).map(|report| report.epoch);
    let mut complete = true;
    for member in &facts.ring.members {
        if epoch_of(member.index).is_some_and(|epoch| epoch < placement.since) {
            waiting.acknowledging.insert(member.index, placement.since);
            complete = false;
        }
    }
    let gone = |index| facts.ring.member(index).is_some_and(|member| member.gone);
    let knows = |index: MemberIndex| epoch_of(index).is_some_and(|epoch| epoch >= placement.since);
    // One that is no more answers no reader either.
    let informed = also.list.iter().filter(|&&index| knows(index) || gone(index));
    let r = facts.ring.quorums.of_list(also.list.len()).0;
    if informed.count() < also.list.len() - r + 1 {
        waiting.unreachable += usize::from(complete);
        complete = false;
    }
    complete
}

fn apply(
    placement: Placement,
    decision: Decision,
    wanted: Vec<MemberIndex>,
    epoch: u64,
    change: &mut Change,
) -> Placement {
    let Placement { preference, also, since } = placement;
    let filling = |list| Some(Also { list, phase: Phase::Filling });
    let retiring = |list| Some(Also { list, phase: Phase::Retiring });
    let (preference, also, count) = match decision {
        Decision::Stay => return Placement { preference, also, since },
        // Another owner coordinates from here on what needs one coordinator, so this too is a change of the lists.
        Decision::Reorder => (wanted, None, None),
        Decision::CallOff => (wanted, None, Some(&mut change.turned)),
        Decision::Begin => (preference, filling(wanted), Some(&mut change.begun)),
        Decision::Turn => (preference, filling(wanted), Some(&mut change.turned)),
        Decision::Return => (wanted, retiring(preference), Some(&mut change.turned)),
        Decision::Flip => (wanted, retiring(preference), Some(&mut change.flipped)),
        Decision::Done => (preference, None, Some(&mut change.done)),
    };
    if let Some(count) = count {
        *count += 1;
    }
    Placement { preference, also, since: epoch }
}

/// The target is forgotten once every list is as it says and nothing moves.
fn settle(ring: &mut Ring, owners: &[MemberIndex]) {
    let wanted = membership::lists(ring, owners, usize::from(ring.quorums.n));
    let there = ring
        .partitions
        .iter()
        .zip(&wanted)
        .all(|(placement, list)| placement.also.is_none() && placement.preference == *list);
    if there {
        ring.target = None;
    }
}

/// A joining member is active once it is in an effective list, or once there is nothing left to move.
fn activate(ring: &mut Ring) {
    let serving: BTreeSet<MemberIndex> =
        ring.partitions.iter().flat_map(|placement| placement.preference.iter().copied()).collect();
    let settled = ring.target.is_none();
    for member in &mut ring.members {
        if member.state == MemberState::Joining && (settled || serving.contains(&member.index)) {
            member.state = MemberState::Active;
        }
    }
}

/// Who holds the moves back, gathered while deciding.
#[derive(Default)]
struct Waiting {
    connecting: BTreeMap<MemberIndex, usize>,
    copying: BTreeMap<MemberIndex, usize>,
    acknowledging: BTreeMap<MemberIndex, u64>,
    unreachable: usize,
}

impl Waiting {
    fn reasons(self, ring: &Ring, reports: &Reports) -> Vec<Reason> {
        let name = |index: MemberIndex| ring.member(index).map_or_else(|| index.to_string(), |m| m.name.clone());
        let answers = |index| report_of(ring, reports, index).is_some();
        let held_up = |index| report_of(ring, reports, index)?.held_up.clone();
        let connecting = self
            .connecting
            .into_iter()
            .map(|(index, partitions)| Reason::Connecting { member: name(index), partitions });
        let copying = self.copying.into_iter().map(|(index, partitions)| Reason::Copying {
            member: name(index),
            partitions,
            answers: answers(index),
            why: held_up(index),
        });
        let acknowledging = self
            .acknowledging
            .into_iter()
            .map(|(index, epoch)| Reason::Acknowledging { member: name(index), epoch });
        let unreachable =
            (self.unreachable > 0).then_some(Reason::OldListsUnreachable { partitions: self.unreachable });
        connecting.chain(copying).chain(acknowledging).chain(unreachable).collect()
    }
}

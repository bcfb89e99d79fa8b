//! Who is in the document: a new ring, members that join, members that leave, and the target that follows.

use super::{Change, MoveError, Wanted, Wish};
use crate::claim::{self, Candidate};
use crate::preference::{self, MemberIndex};
use crate::ring::{Member, MemberState, Placement, Ring, Target};
use crate::token::HashKey;
use std::collections::BTreeSet;
use uuid::Uuid;

/// The first document of a cluster: every wished member active, nothing moving, epoch 1.
///
/// `hash_key` must come from a good source of randomness and is never changed afterwards.
///
/// # Errors
/// [`MoveError`] when the wish cannot be met, such as fewer members than n.
pub fn create(cluster: Uuid, hash_key: HashKey, wish: &Wish) -> Result<Ring, MoveError> {
    check(wish)?;
    let mut members = Vec::with_capacity(wish.members.len());
    for (index, wanted) in wish.members.iter().enumerate() {
        let index = MemberIndex(u16::try_from(index).map_err(|_| MoveError::NoIndex)?);
        members.push(member(index, wanted, MemberState::Active));
    }
    let mut ring =
        Ring { cluster, epoch: 1, quorums: wish.quorums, hash_key, members, partitions: Vec::new(), target: None };
    let none = vec![None; wish.partitions.get() as usize];
    let n = usize::from(wish.quorums.n);
    let claim = claim::claim(&none, wish.partitions, &candidates(&ring), n)?;
    ring.partitions = lists(&ring, &claim.owners, n)
        .into_iter()
        .map(|preference| Placement { preference, also: None, since: ring.epoch })
        .collect();
    Ok(ring)
}

/// Refuses a wish that no ring can meet.
pub(super) fn check(wish: &Wish) -> Result<(), MoveError> {
    let (members, n) = (wish.members.len(), wish.quorums.n);
    if members < usize::from(n) {
        return Err(MoveError::TooFewMembers { members, n });
    }
    let mut seen = BTreeSet::new();
    match wish.members.iter().find(|wanted| !seen.insert(wanted.incarnation)) {
        Some(wanted) => Err(MoveError::Twice(wanted.incarnation)),
        None => Ok(()),
    }
}

/// Brings members in line with the wish: adds, marks as leaving, takes back, removes. Returns whether the set of
/// members that should hold data, or a property that placement depends on, is another than before.
pub(super) fn update(ring: &mut Ring, wish: &Wish, change: &mut Change) -> Result<bool, MoveError> {
    let mut placement_differs = false;
    for wanted in &wish.members {
        match ring.members.iter_mut().find(|member| member.incarnation == wanted.incarnation) {
            Some(member) => placement_differs |= refresh(member, wanted),
            None => {
                let index = free_index(ring)?;
                let at = ring.members.partition_point(|member| member.index < index);
                ring.members.insert(at, member(index, wanted, MemberState::Joining));
                change.joined += 1;
                placement_differs = true;
            }
        }
    }
    let wished: BTreeSet<Uuid> = wish.members.iter().map(|wanted| wanted.incarnation).collect();
    for member in &mut ring.members {
        if !wished.contains(&member.incarnation) && member.state != MemberState::Leaving {
            member.state = MemberState::Leaving;
            change.leaving += 1;
            placement_differs = true;
        }
        // Once seen, it stays so: whoever says so need not say it again each time.
        member.gone |= !wished.contains(&member.incarnation) && wish.gone.contains(&member.incarnation);
    }
    Ok(placement_differs)
}

/// Removes members that exist no more and that neither a list nor the target names.
pub(super) fn remove_gone(ring: &mut Ring, wish: &Wish, change: &mut Change) {
    let mut named: BTreeSet<MemberIndex> =
        ring.partitions.iter().flat_map(|placement| placement.holders()).collect();
    named.extend(ring.target.iter().flat_map(|target| target.owners.iter().copied()));
    let before = ring.members.len();
    ring.members.retain(|member| {
        member.state != MemberState::Leaving
            || named.contains(&member.index)
            || !wish.gone.contains(&member.incarnation)
    });
    change.removed += before - ring.members.len();
}

/// Claims owners anew for the members that should hold data and makes that the target of epoch `since`.
pub(super) fn retarget(ring: &mut Ring, since: u64) -> Result<(), MoveError> {
    let count = ring.partition_count().ok_or(MoveError::PartitionCount)?;
    let n = usize::from(ring.quorums.n);
    let members = candidates(ring);
    let current: Vec<Vec<MemberIndex>> =
        ring.partitions.iter().map(|placement| placement.preference.clone()).collect();
    let claim = claim::claim_from_lists(&current, count, &members, n)?;
    let wanted = lists(ring, &claim.owners, n);
    ring.target = Some(Target {
        owners: claim.owners,
        since,
        replica_moves: clamp(claim::list_moves(&current, &wanted)),
        replica_moves_min: clamp(claim::list_moves_minimum(&current, &members, n)),
    });
    Ok(())
}

/// The preference lists that follow from these owners.
pub(super) fn lists(ring: &Ring, owners: &[MemberIndex], n: usize) -> Vec<Vec<MemberIndex>> {
    let zones: Vec<(MemberIndex, Option<u16>)> =
        ring.members.iter().map(|member| (member.index, ring.zone_of(member.index))).collect();
    let zone_of = |index: MemberIndex| {
        zones.binary_search_by_key(&index, |(index, _)| *index).ok().and_then(|at| zones[at].1)
    };
    (0..owners.len())
        .filter_map(|partition| u32::try_from(partition).ok())
        .map(|partition| preference::preference_list(owners, partition, n, &zone_of))
        .collect()
}

fn candidates(ring: &Ring) -> Vec<Candidate> {
    ring.members
        .iter()
        .filter(|member| member.state != MemberState::Leaving)
        .map(|member| Candidate { index: member.index, weight: member.weight, zone: ring.zone_of(member.index) })
        .collect()
}

fn clamp(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Takes over what the wish says of a member that is already there; returns whether placement depends on it.
fn refresh(member: &mut Member, wanted: &Wanted) -> bool {
    let differs =
        member.state == MemberState::Leaving || member.zone != wanted.zone || member.weight != wanted.weight;
    if member.state == MemberState::Leaving {
        member.state = MemberState::Joining;
    }
    member.name.clone_from(&wanted.name);
    member.peer_address.clone_from(&wanted.peer_address);
    member.client_address.clone_from(&wanted.client_address);
    member.zone.clone_from(&wanted.zone);
    member.weight = wanted.weight;
    member.gone = false;
    differs
}

fn member(index: MemberIndex, wanted: &Wanted, state: MemberState) -> Member {
    Member {
        index,
        incarnation: wanted.incarnation,
        name: wanted.name.clone(),
        peer_address: wanted.peer_address.clone(),
        client_address: wanted.client_address.clone(),
        zone: wanted.zone.clone(),
        weight: wanted.weight,
        state,
        gone: false,
    }
}

fn free_index(ring: &Ring) -> Result<MemberIndex, MoveError> {
    (0..=u16::MAX).map(MemberIndex).find(|&index| ring.member(index).is_none()).ok_or(MoveError::NoIndex)
}

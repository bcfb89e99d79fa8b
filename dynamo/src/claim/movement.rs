//! How many replicas a change of owners moves, and how many it has to.

use super::Candidate;
use super::fair::Fair;
use crate::preference::{Id, MemberIndex, Zone, preference_lists};

/// Replica moves from one set of lists to another: for each partition the members that are in its wanted list and
/// not in its current one. Each has to receive a copy of the partition; leaving a list costs nothing.
#[must_use]
pub fn list_moves(current: &[Vec<MemberIndex>], wanted: &[Vec<MemberIndex>]) -> usize {
    let added = |(current, wanted): (&Vec<MemberIndex>, &Vec<MemberIndex>)| {
        wanted.iter().filter(|member| !current.contains(member)).count()
    };
    current.iter().zip(wanted).map(added).sum()
}

/// The least number of replica moves from the current lists to any balanced placement over `members`.
///
/// A placement gives every partition n distinct members (all of them if there are fewer), over as many zones as the
/// walk would, and it is balanced if every member is in at least n·⌊f⌋ and at most n·⌈f⌉ lists, f being its fair share
/// of owned partitions: as even as whole partitions allow. Counted are
/// * what members lack: Σ max(0, t − held) over all members, for the loads t within these bounds, also by zone, that
///   make it least; and
/// * what lists lack: n less the current members that are wanted and may stay together, over all partitions;
///
/// and the greater of the two is returned. Nothing can do with fewer, because every addition mends at most one lack
/// of each kind; it is the number that a scale's bytes are measured against. A weight of zero counts as one.
#[must_use]
pub fn list_moves_minimum(current: &[Vec<MemberIndex>], members: &[Candidate], n: usize) -> usize {
    if members.is_empty() || current.is_empty() || n == 0 {
        return 0;
    }
    let heavy_enough = |member: &Candidate| Candidate { weight: member.weight.max(1), ..*member };
    let mut members: Vec<Candidate> = members.iter().map(heavy_enough).collect();
    members.sort_by_key(|member| member.index);
    let id = |index: &MemberIndex| members.binary_search_by_key(index, |member| member.index).ok();
    let wanted = |list: &Vec<MemberIndex>| list.iter().filter_map(id).map(|id| id as Id).collect();
    let lists: Vec<Vec<Id>> = current.iter().map(wanted).collect();
    additions_min(&Fair::new(lists.len(), n, &members), &lists)
}

/// [`list_moves`] between the preference lists that follow from two sets of owners.
#[must_use]
pub fn replica_moves(
    old_owners: &[MemberIndex],
    new_owners: &[MemberIndex],
    n: usize,
    zone_of: &dyn Fn(MemberIndex) -> Zone,
) -> usize {
    list_moves(&preference_lists(old_owners, n, zone_of), &preference_lists(new_owners, n, zone_of))
}

/// [`list_moves_minimum`] from the preference lists that follow from the old owners.
#[must_use]
pub fn replica_moves_minimum(
    old_owners: &[MemberIndex],
    members: &[Candidate],
    n: usize,
    zone_of: &dyn Fn(MemberIndex) -> Zone,
) -> usize {
    list_moves_minimum(&preference_lists(old_owners, n, zone_of), members, n)
}

/// See [`list_moves_minimum`]; the lists name wanted members only.
pub(super) fn additions_min(fair: &Fair, lists: &[Vec<Id>]) -> usize {
    members_lack(fair, lists).max(lists_lack(fair, lists))
}

/// The least Σ max(0, t − held). The bounds of members are nested in those of their zones, and another replica is
/// free for a member until it has what it holds, so taking free ones first is exact.
fn members_lack(fair: &Fair, lists: &[Vec<Id>]) -> usize {
    let mut held = vec![0; fair.load.len()];
    lists.iter().flatten().for_each(|&id| held[id as usize] += 1);
    let base = |member: usize| fair.load_min(member);
    let mut lack: usize = (0..held.len()).map(|member| base(member).saturating_sub(held[member])).sum();
    let (mut missing, mut free_left) = (fair.n * fair.q, 0);
    for (members, &(min, max)) in fair.zones.iter().zip(&fair.zone_bounds) {
        let sum: usize = members.iter().map(|&member| base(member)).sum();
        let free: usize = members
            .iter()
            .map(|&member| fair.load_max(member).min(held[member]).saturating_sub(base(member)))
            .sum();
        // What the zone must take on beyond its members' least loads, paid for where it is not free.
        let must = min.saturating_sub(sum);
        lack += must.saturating_sub(free);
        missing -= sum + must;
        free_left += free.min(max - sum).saturating_sub(must);
    }
    lack + missing.saturating_sub(free_left)
}

/// Σ over partitions of n less the members that may stay in its list.
fn lists_lack(fair: &Fair, lists: &[Vec<Id>]) -> usize {
    let lack = |list: &Vec<Id>| {
        let (mut stay, mut extras) = (0, fair.extras);
        for (at, &id) in list.iter().enumerate() {
            let zone = fair.zone[id as usize];
            let met = list[..at].iter().filter(|&&id| fair.zone[id as usize] == zone).count();
            if met < fair.rounds {
                stay += 1;
            } else if met == fair.rounds && extras > 0 {
                extras -= 1;
                stay += 1;
            }
        }
        fair.n.saturating_sub(stay)
    };
    lists.iter().map(lack).sum()
}

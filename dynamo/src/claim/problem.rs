//! A claim to be made, in dense numbers: members, what they own and hold today, and what they shall own.

use super::Candidate;
use super::fair::Fair;
use super::movement;
use crate::preference::{Id, MemberIndex, Rule, UNOWNED, Zone};
use std::collections::BTreeSet;

/// What to claim from and for. Members are numbered by ascending index.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// The wanted members.
    pub(super) members: Vec<Candidate>,
    /// Owner of each partition today; [`UNOWNED`] if there is none or it is leaving.
    pub(super) old: Vec<Id>,
    /// The wanted members of each partition's list today.
    pub(super) old_lists: Vec<Vec<Id>>,
    /// How the new lists will be read off.
    pub(super) rule: Rule,
    /// Whether every zone is taken once at most, so that zones must be spaced as members must.
    pub(super) zones_once: bool,
    /// Whether n + 1 distinct owners in a row are worth having: where that leaves room for members that leave.
    pub(super) near_matters: bool,
    /// Fair shares.
    pub(super) fair: Fair,
    /// How many partitions each member shall own.
    pub(super) quotas: Vec<usize>,
    /// Sum of what members are missing today.
    pub(super) moved_min: usize,
    /// The least number of additions to lists that balance allows.
    pub(super) additions_min: usize,
    /// The least number of violations that there can be, as far as is known.
    pub(super) violations_min: usize,
}

impl Problem {
    pub(super) fn from_owners(owners: &[Option<MemberIndex>], members: &[Candidate], n: usize) -> Self {
        let members = sorted(members);
        let lists = lists_of(owners, &members, n);
        Self::new(members, owners.iter().copied(), &lists, n)
    }

    pub(super) fn from_lists(lists: &[Vec<MemberIndex>], members: &[Candidate], n: usize) -> Self {
        let owners = lists.iter().map(|list| list.first().copied());
        Self::new(sorted(members), owners, lists, n)
    }

    fn new(
        members: Vec<Candidate>,
        owners: impl Iterator<Item = Option<MemberIndex>>,
        lists: &[Vec<MemberIndex>],
        n: usize,
    ) -> Self {
        let id = |index: MemberIndex| {
            members.binary_search_by_key(&index, |member| member.index).map_or(UNOWNED, |at| at as Id)
        };
        let old: Vec<Id> = owners.map(|owner| owner.map_or(UNOWNED, id)).collect();
        let wanted =
            |list: &Vec<MemberIndex>| list.iter().map(|&index| id(index)).filter(|&id| id != UNOWNED).collect();
        let old_lists: Vec<Vec<Id>> = lists.iter().map(wanted).collect();
        let mut have = vec![0; members.len()];
        old.iter().filter(|&&owner| owner != UNOWNED).for_each(|&owner| have[owner as usize] += 1);
        let fair = Fair::new(old.len(), n, &members);
        let quotas = fair.quotas(&have);
        let moved_min = quotas.iter().zip(&have).map(|(quota, have)| quota.saturating_sub(*have)).sum();
        let zones: Vec<Zone> = members.iter().map(|member| member.zone).collect();
        let rule = Rule::new(&zones, &|member| quotas[member] > 0, n);
        let zones_once = rule.rounds == 0 || (rule.rounds == 1 && rule.extras == 0);
        let additions_min = movement::additions_min(&fair, &old_lists);
        let violations_min = violations_min(old.len(), &rule);
        let near_matters = !zones_once || (rule.rounds == 0 && fair.zones.len() > 2 * rule.n);
        Self {
            members,
            old,
            old_lists,
            rule,
            zones_once,
            near_matters,
            fair,
            quotas,
            moved_min,
            additions_min,
            violations_min,
        }
    }

    /// Number of partitions Q.
    pub(super) fn q(&self) -> usize {
        self.old.len()
    }

    /// Whether `member` at partition `p` keeps `distance` clear on both sides: nobody within it is the same member
    /// or, if zones count, in the same zone.
    pub(super) fn fits(&self, owners: &[Id], p: usize, member: Id, distance: usize) -> bool {
        let q = self.q();
        let clash = |other: Id| {
            other == member
                || (self.zones_once
                    && other != UNOWNED
                    && self.rule.zone[other as usize] == self.rule.zone[member as usize])
        };
        (1..=distance.min(q - 1)).all(|step| {
            let (after, before) = ((p + step) % q, (p + q - step) % q);
            !clash(owners[after]) && !clash(owners[before])
        })
    }
}

/// If lists take the same zones always, and one member of each, then owners' zones must repeat with period n. That
/// cannot close to a circle unless n divides Q, and one window alone cannot mend it: if all others are in order, so
/// is that one.
fn violations_min(q: usize, rule: &Rule) -> usize {
    let periodic = rule.rounds == 1 && rule.extras == 0;
    if periodic && !q.is_multiple_of(rule.n) { 2.min(rule.n - 1) } else { 0 }
}

fn sorted(members: &[Candidate]) -> Vec<Candidate> {
    let mut members = members.to_vec();
    members.sort_by_key(|member| member.index);
    members
}

/// Today's lists by the walk over today's owners. The zones of leaving members are not known here.
fn lists_of(owners: &[Option<MemberIndex>], members: &[Candidate], n: usize) -> Vec<Vec<MemberIndex>> {
    let present: Vec<MemberIndex> =
        owners.iter().copied().flatten().collect::<BTreeSet<_>>().into_iter().collect();
    let zone_of = |index: &MemberIndex| {
        members.binary_search_by_key(index, |member| member.index).ok().and_then(|at| members[at].zone)
    };
    let zones: Vec<Zone> = present.iter().map(zone_of).collect();
    let id = |owner: MemberIndex| present.binary_search(&owner).map_or(UNOWNED, |at| at as Id);
    let owners: Vec<Id> = owners.iter().map(|owner| owner.map_or(UNOWNED, id)).collect();
    let rule = Rule::new(&zones, &|_| true, n);
    let mut list = Vec::new();
    (0..owners.len())
        .map(|p| {
            if rule.n > 0 {
                rule.walk(&owners, p, &mut list);
            }
            list.iter().map(|&id| present[id as usize]).collect()
        })
        .collect()
}

//! Preference lists: which members hold a partition, read off the owners by walking clockwise.
//!
//! From a partition the walk goes clockwise and takes the owner of each partition it meets, skipping members already
//! taken (Dynamo, `DeCandia` et al., SOSP 2007, §4.3: the list "skips positions in the ring" so that it names distinct
//! physical nodes) and, while there are others, zones already met (as Cassandra's `NetworkTopologyStrategy` does with
//! racks). After the n come the fallbacks, found by going on with the same walk (Dynamo §4.6).
//!
//! Zones are used evenly, not only once: with n = 3 and two zones a list has two members of one zone and one of the
//! other; with n = 5 three and two. In general every zone gives `rounds` members (or all it has), and what is then
//! missing comes from the zones whose next member is nearest, at most one each. A member whose zone is unknown
//! counts as a zone of its own, since nothing says that it would fail together with another.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Index of a member in its ring document; stable for as long as the member is in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberIndex(pub u16);

impl fmt::Display for MemberIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Failure domain of a member as a small number; `None` when it is unknown.
pub type Zone = Option<u16>;

/// The preference list of partition `p`: n distinct members clockwise from it, or all members if there are fewer.
///
/// `owners` holds the owner of each partition; `p` counts round the ring. The list is in clockwise order and begins
/// with the owner of `p` itself. For the lists of all partitions, [`preference_lists`] is cheaper.
#[must_use]
pub fn preference_list(
    owners: &[MemberIndex],
    p: u32,
    n: usize,
    zone_of: &dyn Fn(MemberIndex) -> Zone,
) -> Vec<MemberIndex> {
    // The usual case needs to look no further than a few partitions: n zones, each met for the first time.
    zones_once(owners, p, n, zone_of).unwrap_or_else(|| Walk::new(owners, n, zone_of).list(p))
}

/// The preference lists of all partitions, by partition; see [`preference_list`].
#[must_use]
pub fn preference_lists(
    owners: &[MemberIndex],
    n: usize,
    zone_of: &dyn Fn(MemberIndex) -> Zone,
) -> Vec<Vec<MemberIndex>> {
    let walk = Walk::new(owners, n, zone_of);
    (0..owners.len()).map(|p| walk.list(p as u32)).collect()
}

/// The members that may stand in for an unreachable replica of partition `p`, nearest first: every member of the
/// walk that is not in `preference`, once.
pub fn fallbacks(owners: &[MemberIndex], p: u32, preference: &[MemberIndex]) -> impl Iterator<Item = MemberIndex> {
    let mut met: BTreeSet<MemberIndex> = preference.iter().copied().collect();
    clockwise(owners, p).filter(move |&owner| met.insert(owner))
}

/// Number of a member among those at hand, dense from 0, for tables instead of maps.
pub(crate) type Id = u32;

/// In a list of owners by [`Id`]: a partition without an owner. The walk passes over it.
pub(crate) const UNOWNED: Id = Id::MAX;

/// How many members of which zone a list takes.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Length of a list: n, or the number of members if there are fewer.
    pub(crate) n: usize,
    /// Zone of each member by [`Id`], dense from 0.
    pub(crate) zone: Vec<usize>,
    /// Every zone gives this many members, or all it has.
    pub(crate) rounds: usize,
    /// Members still missing after these rounds, from different zones.
    pub(crate) extras: usize,
}

impl Rule {
    /// The rule for members with these zones, of which only the `present` ones own anything.
    pub(crate) fn new(zones: &[Zone], present: &dyn Fn(usize) -> bool, n: usize) -> Self {
        let (zone, zone_count) = number_zones(zones);
        let mut sizes = vec![0; zone_count];
        for (id, &zone) in zone.iter().enumerate() {
            sizes[zone] += usize::from(present(id));
        }
        let n = n.min(sizes.iter().sum());
        let taken = |rounds: usize| sizes.iter().map(|&size| rounds.min(size)).sum::<usize>();
        let mut rounds = 0;
        while taken(rounds) < n && taken(rounds + 1) <= n {
            rounds += 1;
        }
        let extras = n - taken(rounds);
        Self { n, zone, rounds, extras }
    }

    /// Walks from `p` and puts the list into `list`. Returns how many partitions the walk had to look at.
    ///
    /// One pass suffices, and keeps clockwise order: whether a member is taken depends only on how many of its zone
    /// were taken before it and on how many extras are left.
    pub(crate) fn walk(&self, owners: &[Id], p: usize, list: &mut Vec<Id>) -> usize {
        list.clear();
        let mut extras = self.extras;
        let mut at = p;
        for step in 1..=owners.len() {
            let owner = owners[at];
            at = if at + 1 == owners.len() { 0 } else { at + 1 };
            if owner == UNOWNED || list.contains(&owner) {
                continue;
            }
            let zone = self.zone[owner as usize];
            let met = list.iter().filter(|&&id| self.zone[id as usize] == zone).count();
            if met > self.rounds || (met == self.rounds && extras == 0) {
                continue;
            }
            extras -= usize::from(met == self.rounds);
            list.push(owner);
            if list.len() == self.n {
                return step;
            }
        }
        owners.len()
    }
}

/// Numbers zones densely, known ones in ascending order and then each unknown one for itself. Returns the zone of
/// each member and the number of zones.
pub(crate) fn number_zones(zones: &[Zone]) -> (Vec<usize>, usize) {
    let known: BTreeSet<u16> = zones.iter().copied().flatten().collect();
    let numbers: BTreeMap<u16, usize> = known.iter().enumerate().map(|(number, &zone)| (zone, number)).collect();
    let mut next = numbers.len();
    let mut number = |zone: &Zone| match zone {
        Some(zone) => numbers[zone],
        None => {
            next += 1;
            next - 1
        }
    };
    let zone = zones.iter().map(&mut number).collect();
    (zone, next)
}

/// Owners, members and zones of a ring, numbered for walking.
struct Walk {
    members: Vec<MemberIndex>,
    owners: Vec<Id>,
    rule: Rule,
}

impl Walk {
    fn new(owners: &[MemberIndex], n: usize, zone_of: &dyn Fn(MemberIndex) -> Zone) -> Self {
        let members: Vec<MemberIndex> = owners.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let zones: Vec<Zone> = members.iter().map(|&member| zone_of(member)).collect();
        let id = |owner: &MemberIndex| members.binary_search(owner).map_or(UNOWNED, |id| id as Id);
        let owners = owners.iter().map(id).collect();
        Self { rule: Rule::new(&zones, &|_| true, n), members, owners }
    }

    fn list(&self, p: u32) -> Vec<MemberIndex> {
        let mut list = Vec::with_capacity(self.rule.n);
        if self.rule.n > 0 {
            self.rule.walk(&self.owners, p as usize % self.owners.len(), &mut list);
        }
        list.into_iter().map(|id| self.members[id as usize]).collect()
    }
}

/// The list if n zones can be met once each, otherwise `None`.
fn zones_once(
    owners: &[MemberIndex],
    p: u32,
    n: usize,
    zone_of: &dyn Fn(MemberIndex) -> Zone,
) -> Option<Vec<MemberIndex>> {
    let mut list = Vec::with_capacity(n);
    let mut zones: Vec<Zone> = Vec::with_capacity(n);
    for owner in clockwise(owners, p) {
        if list.len() == n {
            break;
        }
        let zone = zone_of(owner);
        if !list.contains(&owner) && (zone.is_none() || !zones.contains(&zone)) {
            list.push(owner);
            zones.push(zone);
        }
    }
    (list.len() == n).then_some(list)
}

/// Owners in the order of the walk from partition `p`, each partition once.
fn clockwise(owners: &[MemberIndex], p: u32) -> impl Iterator<Item = MemberIndex> {
    let start = p as usize % owners.len().max(1);
    owners[start..].iter().chain(&owners[..start]).copied()
}

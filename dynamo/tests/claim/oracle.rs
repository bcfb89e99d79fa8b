//! Oracles: the same quantities as the claim's, computed another way, slowly and without cleverness.

use dynamo::claim::Candidate;
use dynamo::preference::{MemberIndex, Zone};
use std::collections::{BTreeMap, BTreeSet};

/// Members by zone; one of unknown zone is alone.
pub fn zones_of(members: &[Candidate]) -> Vec<Vec<usize>> {
    let mut known: BTreeMap<Zone, Vec<usize>> = BTreeMap::new();
    let mut zones = Vec::new();
    for (at, member) in members.iter().enumerate() {
        match member.zone {
            Some(_) => known.entry(member.zone).or_default().push(at),
            None => zones.push(vec![at]),
        }
    }
    zones.extend(known.into_values());
    zones
}

/// Fewest and most members that a list of n can take from each zone: hand out places one by one to the zones that
/// have the fewest so far and still a member left; those that could get the last ones may or may not.
fn places(n: usize, zones: &[Vec<usize>]) -> Vec<(usize, usize)> {
    let mut given = vec![0; zones.len()];
    let mut left = n.min(zones.iter().map(Vec::len).sum());
    while left > 0 {
        let open = |zone: &usize| given[*zone] < zones[*zone].len();
        let fewest = (0..zones.len()).filter(open).map(|zone| given[zone]).min().unwrap();
        let next: Vec<usize> = (0..zones.len()).filter(|zone| open(zone) && given[*zone] == fewest).collect();
        if next.len() > left {
            return (0..zones.len())
                .map(|zone| (given[zone], given[zone] + usize::from(next.contains(&zone))))
                .collect();
        }
        left -= next.len();
        next.into_iter().for_each(|zone| given[zone] += 1);
    }
    given.into_iter().map(|given| (given, given)).collect()
}

/// Fair share of owned partitions of each member: replicas in proportion to weight by bisection for the level at
/// which they sum up, first over zones and then in each; divided by n.
pub fn fair_shares(q: usize, n: usize, members: &[Candidate]) -> Vec<f64> {
    let zones = zones_of(members);
    let n_lists = n.min(members.len());
    let weight = |zone: &Vec<usize>| zone.iter().map(|&at| f64::from(members[at].weight)).sum::<f64>();
    let bounds = places(n, &zones);
    let items: Vec<(f64, f64, f64)> = zones
        .iter()
        .zip(bounds)
        .map(|(zone, (min, max))| (weight(zone), (q * min) as f64, (q * max) as f64))
        .collect();
    let mut shares = vec![0.0; members.len()];
    for (zone, total) in zones.iter().zip(level((n_lists * q) as f64, &items)) {
        let items: Vec<(f64, f64, f64)> =
            zone.iter().map(|&at| (f64::from(members[at].weight), 0.0, q as f64)).collect();
        for (&at, load) in zone.iter().zip(level(total, &items)) {
            shares[at] = load / n_lists as f64;
        }
    }
    shares
}

/// Shares λ·weight within (min, max) that sum up to `total`.
fn level(total: f64, items: &[(f64, f64, f64)]) -> Vec<f64> {
    let at = |level: f64| items.iter().map(move |&(weight, min, max)| (level * weight).clamp(min, max));
    let (mut low, mut high) = (0.0, 1e9);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if at(middle).sum::<f64>() < total { low = middle } else { high = middle }
    }
    at(high).collect()
}

/// Rounds a share down and up, whole numbers that bisection missed by a hair included.
fn roundings(share: f64) -> (usize, usize) {
    let near = share.round();
    if (share - near).abs() < 1e-6 { (near as usize, near as usize) } else { (share as usize, share as usize + 1) }
}

/// The least Σ max(0, quota − have) over all quotas that round every member's and every zone's share down or up:
/// a table over zones, in each zone a table over members, of the least cost for each total.
pub fn least_moved(q: usize, n: usize, members: &[Candidate], have: &[usize]) -> usize {
    let shares = fair_shares(q, n, members);
    let mut ring: BTreeMap<usize, usize> = BTreeMap::from([(0, 0)]);
    for zone in zones_of(members) {
        let mut sums: BTreeMap<usize, usize> = BTreeMap::from([(0, 0)]);
        for &at in &zone {
            let (down, up) = roundings(shares[at]);
            let choices = BTreeSet::from([down, up]);
            sums = add(&sums, choices.into_iter().map(|quota| (quota, quota.saturating_sub(have[at]))));
        }
        let (down, up) = roundings(zone.iter().map(|&at| shares[at]).sum());
        ring = add(&ring, sums.into_iter().filter(|(sum, _)| (down..=up).contains(sum)));
    }
    ring[&q]
}

fn add(table: &BTreeMap<usize, usize>, choices: impl Iterator<Item = (usize, usize)>) -> BTreeMap<usize, usize> {
    let mut sums = BTreeMap::new();
    for (amount, cost) in choices {
        for (sum, paid) in table {
            let least = sums.entry(sum + amount).or_insert(usize::MAX);
            *least = (*least).min(paid + cost);
        }
    }
    sums
}

/// The exact least number of additions to lists of members without zones, such that every list has n distinct
/// members and every member between its `bounds` of lists: successive cheapest paths through a flow network.
pub fn least_additions(
    lists: &[Vec<MemberIndex>],
    members: &[Candidate],
    n: usize,
    bounds: &[(usize, usize)],
) -> usize {
    let (q, s) = (lists.len(), members.len());
    let mut flow = Flow::new(q + s + 3);
    let (source, sink, spare) = (q + s, q + s + 1, q + s + 2);
    for (p, list) in lists.iter().enumerate() {
        flow.edge(source, p, n, 0);
        for (at, member) in members.iter().enumerate() {
            flow.edge(p, q + at, 1, i64::from(!list.contains(&member.index)));
        }
    }
    let mut least = 0;
    for (at, &(min, max)) in bounds.iter().enumerate() {
        least += min;
        // What a member must hold goes to the sink at a price that nothing else can beat.
        flow.edge(q + at, sink, min, -1_000_000);
        flow.edge(q + at, spare, max - min, 0);
    }
    flow.edge(spare, sink, n * q - least, 0);
    let (amount, cost) = flow.cheapest(source, sink);
    assert_eq!(amount, n * q, "no balanced placement");
    usize::try_from(cost + 1_000_000 * least as i64).expect("someone holds less than it must")
}

/// Edges in pairs, each with its reverse: (to, room, cost).
struct Flow {
    edges: Vec<(usize, usize, i64)>,
    out: Vec<Vec<usize>>,
}

impl Flow {
    fn new(nodes: usize) -> Self {
        Self { edges: Vec::new(), out: vec![Vec::new(); nodes] }
    }

    fn edge(&mut self, from: usize, to: usize, room: usize, cost: i64) {
        for (from, to, room, cost) in [(from, to, room, cost), (to, from, 0, -cost)] {
            self.out[from].push(self.edges.len());
            self.edges.push((to, room, cost));
        }
    }

    /// Bellman and Ford, again and again. Returns the greatest flow and its least cost.
    fn cheapest(&mut self, source: usize, sink: usize) -> (usize, i64) {
        let (mut amount, mut total) = (0, 0);
        loop {
            let mut cost = vec![i64::MAX; self.out.len()];
            let mut through = vec![usize::MAX; self.out.len()];
            cost[source] = 0;
            let mut changed = true;
            while changed {
                changed = false;
                for from in 0..self.out.len() {
                    for &edge in &self.out[from] {
                        let (to, room, price) = self.edges[edge];
                        if cost[from] < i64::MAX && room > 0 && cost[from] + price < cost[to] {
                            (cost[to], through[to], changed) = (cost[from] + price, edge, true);
                        }
                    }
                }
            }
            if cost[sink] == i64::MAX {
                return (amount, total);
            }
            amount += 1;
            total += cost[sink];
            let mut at = sink;
            while at != source {
                let edge = through[at];
                self.edges[edge].1 -= 1;
                self.edges[edge ^ 1].1 += 1;
                at = self.edges[edge ^ 1].0;
            }
        }
    }
}

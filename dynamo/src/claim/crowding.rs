//! Crowding: which zones (or members, where zones are unknown) are so often near each other that one could not take
//! over its share of the other's partitions.
//!
//! When a member leaves, its partitions go to others that have none within n − 1. With more than 2n members there is
//! always someone; with fewer, everyone must be absent from the neighbourhood of everyone else's partitions often
//! enough. A ring in a fixed order is the worst case: the neighbours are always the same.

use super::problem::Problem;
use crate::preference::Id;

/// Counts of pairs of zones that are near each other, and by how much they are above what a leave can bear.
#[derive(Clone)]
pub(super) struct Crowding {
    n: usize,
    /// Zone of each member.
    zone: Vec<usize>,
    zones: usize,
    /// By pair (a, b): at how many partitions of a there is one of b within n − 1.
    near: Vec<usize>,
    /// By pair: the most that may be. Empty if crowding does not matter.
    near_max: Vec<usize>,
    excess: usize,
}

impl Crowding {
    pub(super) fn new(problem: &Problem) -> Self {
        let fair = &problem.fair;
        let (n, zones) = (problem.rule.n, fair.zones.len());
        let mut near_max = Vec::new();
        // Zones are a bit set below, and more than 2n of them always leave room.
        if problem.rule.rounds == 0 && (n + 2..=2 * n).contains(&zones) && zones <= 64 {
            let owned = |zone: usize| fair.zones[zone].iter().map(|&member| problem.quotas[member]).sum::<usize>();
            for a in 0..zones {
                // If one of a leaves, b's share of its partitions is b's share of all the others. Some margin.
                let rest = problem.q() - owned(a) / fair.zones[a].len();
                let max = |b: usize| owned(a) - owned(a) * owned(b) / rest.max(1) - owned(a) / 50;
                near_max.extend((0..zones).map(max));
            }
        }
        Self { n, zone: fair.zone.clone(), zones, near: vec![0; near_max.len()], near_max, excess: 0 }
    }

    /// Sum of what pairs are above what they may be.
    pub(super) fn excess(&self) -> usize {
        self.excess
    }

    /// Takes partition `p` into account.
    pub(super) fn enter(&mut self, owners: &[Id], p: usize) {
        self.each_pair(owners, p, |near, max, excess| {
            *near += 1;
            *excess += usize::from(*near > max);
        });
    }

    /// Takes partition `p` out of the account. Nothing around it may have changed since it was entered.
    pub(super) fn leave(&mut self, owners: &[Id], p: usize) {
        self.each_pair(owners, p, |near, max, excess| {
            *excess -= usize::from(*near > max);
            *near -= 1;
        });
    }

    fn each_pair(&mut self, owners: &[Id], p: usize, apply: impl Fn(&mut usize, usize, &mut usize)) {
        if self.near_max.is_empty() {
            return;
        }
        let q = owners.len();
        let zone = self.zone[owners[p] as usize];
        let mut met = 1_u64 << zone;
        for step in (1..self.n.min(q)).flat_map(|step| [step, q - step]) {
            let other = self.zone[owners[(p + step) % q] as usize];
            if met & 1 << other == 0 {
                met |= 1 << other;
                let pair = zone * self.zones + other;
                apply(&mut self.near[pair], self.near_max[pair], &mut self.excess);
            }
        }
    }
}

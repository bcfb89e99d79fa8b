//! A first arrangement with every member at its quota: partitions without an owner are given away, then members that
//! still miss some take them from those that have too many. Nothing else changes owner.

use super::matching::Matching;
use super::polish::Random;
use super::problem::Problem;
use super::sequence::{sequence, shuffled};
use super::take::take;
use crate::preference::{Id, UNOWNED};

/// Owners at quota. The seed turns the places at which the work begins.
pub(super) fn fill(problem: &Problem, seed: u64) -> Vec<Id> {
    if problem.old.iter().all(|&owner| owner == UNOWNED) {
        return from_nothing(problem, seed);
    }
    let mut fill = Fill::new(problem, seed);
    fill.give_away();
    fill.give_rest();
    let Fill { mut owners, missing, surplus, start, .. } = fill;
    take(problem, &mut owners, missing, surplus, start, &mut Random::new(seed));
    owners
}

/// A new ring: zones take turns, and in each zone its members do.
fn from_nothing(problem: &Problem, seed: u64) -> Vec<Id> {
    let mut random = Random::new(seed);
    let n = problem.rule.n;
    let quotas = |zone: &Vec<usize>| zone.iter().map(|&member| problem.quotas[member]).collect::<Vec<_>>();
    let counts: Vec<usize> = problem.fair.zones.iter().map(|zone| quotas(zone).iter().sum()).collect();
    let order = if problem.zones_once {
        shuffled(&counts, n.min(counts.len() - 1), &mut random)
    } else {
        sequence(&counts)
    };
    let mut turns: Vec<Vec<usize>> = Vec::with_capacity(counts.len());
    for zone in &problem.fair.zones {
        let share = zone.len() * n / problem.members.len() + 1;
        turns.push(shuffled(&quotas(zone), share.min(zone.len() - 1), &mut random));
    }
    let mut next = vec![0; counts.len()];
    let mut owner = |zone: usize| {
        let turn = turns[zone][next[zone]];
        next[zone] += 1;
        problem.fair.zones[zone][turn] as Id
    };
    order.into_iter().map(&mut owner).collect()
}

struct Fill<'a> {
    problem: &'a Problem,
    owners: Vec<Id>,
    /// How many partitions each member still has to get.
    missing: Vec<usize>,
    /// How many partitions each member has to give.
    surplus: Vec<usize>,
    /// Where on the ring to begin.
    start: usize,
}

impl<'a> Fill<'a> {
    fn new(problem: &'a Problem, seed: u64) -> Self {
        let owners = problem.old.clone();
        let mut have = vec![0; problem.members.len()];
        owners.iter().filter(|&&owner| owner != UNOWNED).for_each(|&owner| have[owner as usize] += 1);
        let pairs = || problem.quotas.iter().zip(&have);
        Self {
            missing: pairs().map(|(quota, have): (&usize, &usize)| quota.saturating_sub(*have)).collect(),
            surplus: pairs().map(|(quota, have)| have.saturating_sub(*quota)).collect(),
            start: (seed as usize).wrapping_mul(7) % problem.q(),
            problem,
            owners,
        }
    }

    /// Gives partitions without an owner to members that fit, in rounds of partitions that are n apart, so that each
    /// round is a matching of its own. Those come first whose surroundings say most about who fits. Everyone gets an
    /// even part of each round if that works out.
    fn give_away(&mut self) {
        let n = self.problem.rule.n;
        let mut left: Vec<usize> = (0..self.problem.q())
            .map(|step| (self.start + step) % self.problem.q())
            .filter(|&p| self.owners[p] == UNOWNED)
            .collect();
        while !left.is_empty() {
            let (round, later) = self.next_round(&left);
            let even: Vec<usize> =
                self.missing.iter().map(|missing| (missing * round.len()).div_ceil(left.len())).collect();
            let mut matching = Matching::new(self.problem, &round);
            matching.extend(&self.owners, &even, n);
            matching.extend(&self.owners, &even, n - 1);
            matching.extend(&self.owners, &self.missing, n - 1);
            for (member, missing) in self.missing.iter_mut().enumerate() {
                *missing -= matching.given(member);
            }
            for (p, owner) in matching.result() {
                self.owners[p] = owner;
            }
            left = later;
        }
    }

    /// The partitions with the fewest neighbours without an owner, unless they are so few that this would take long.
    fn next_round(&self, left: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let (q, n) = (self.problem.q(), self.problem.rule.n);
        let unowned = |p: usize| {
            let steps = (1..n.min(q)).flat_map(|step| [step, q - step]);
            steps.filter(|step| self.owners[(p + step) % q] == UNOWNED).count()
        };
        let unowned: Vec<usize> = left.iter().map(|&p| unowned(p)).collect();
        let fewest = unowned.iter().copied().min().unwrap_or_default();
        let (first, rest): (Vec<_>, Vec<_>) =
            left.iter().zip(&unowned).partition(|(_, unowned)| **unowned == fewest);
        if first.len() * 8 * n < left.len() {
            return self.split_apart(left, n);
        }
        let [first, rest] = [first, rest].map(|side| side.into_iter().map(|(&p, _)| p).collect::<Vec<usize>>());
        let (round, mut later) = self.split_apart(&first, n);
        later.extend(rest);
        later.sort_by_key(|&p| (p + q - self.start) % q);
        (round, later)
    }

    /// Those of the partitions that are at least `distance` from the one before, and the others.
    fn split_apart(&self, partitions: &[usize], distance: usize) -> (Vec<usize>, Vec<usize>) {
        let q = self.problem.q();
        let (mut round, mut later) = (Vec::new(), Vec::new());
        let mut last: Option<usize> = None;
        for &p in partitions {
            let from_last = last.map_or(q, |last| (p + q - last) % q);
            let to_first = round.first().map_or(q, |&first| (first + q - p) % q);
            if from_last >= distance && to_first >= distance {
                last = Some(p);
                round.push(p);
            } else {
                later.push(p);
            }
        }
        (round, later)
    }

    /// Gives partitions that nobody fits to whoever of those that miss some is farthest away.
    fn give_rest(&mut self) {
        for p in 0..self.owners.len() {
            if self.owners[p] != UNOWNED {
                continue;
            }
            let clear = |member: usize| {
                let fits = |&distance: &usize| self.problem.fits(&self.owners, p, member as Id, distance);
                (1..=self.problem.rule.n).take_while(fits).count()
            };
            let best = (0..self.missing.len())
                .filter(|&member| self.missing[member] > 0)
                .max_by_key(|&member| (clear(member), self.missing[member], std::cmp::Reverse(member)));
            if let Some(member) = best {
                self.missing[member] -= 1;
                self.owners[p] = member as Id;
            }
        }
    }
}

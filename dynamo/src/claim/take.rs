//! Members that miss partitions take them from those that have too many, at places spread evenly over the ring.
//!
//! Taking never hurts the spacing of those taken from; the taker's own spacing is what places are chosen for.

use super::polish::Random;
use super::problem::Problem;
use super::sequence::shuffled;
use crate::preference::Id;

/// Moves `missing` partitions to each member from members with `surplus`. The sums must be equal.
pub(super) fn take(
    problem: &Problem,
    owners: &mut [Id],
    missing: Vec<usize>,
    surplus: Vec<usize>,
    start: usize,
    random: &mut Random,
) {
    let q = problem.q();
    let total: usize = missing.iter().sum();
    let takers = missing.iter().filter(|&&missing| missing > 0).count();
    let apart = ((problem.rule.n + 1) * total).div_ceil(q);
    let turns = shuffled(&missing, apart.min(takers.saturating_sub(1)), random);
    let donors = surplus.iter().filter(|&&surplus| surplus > 0).count();
    let mut take = Take { problem, owners, given: vec![0; surplus.len()], surplus, donors, total };
    for (turn, member) in turns.into_iter().enumerate() {
        let ideal = (start + turn * q / total) % q;
        if let Some(p) = take.best_place(member as Id, ideal, turn) {
            take.given[take.owners[p] as usize] += 1;
            take.owners[p] = member as Id;
        }
    }
}

/// How far around an ideal place a better one is looked for at first, in partitions.
const RADIUS: usize = 32;

// Prices are in thousandths of a turn; these are beyond anything that distance and fairness can add up to.
const NOT_SPACED: i64 = 100_000_000;
const NEARLY_SPACED: i64 = 100_000;
const MENDS: i64 = 200_000;

struct Take<'a> {
    problem: &'a Problem,
    owners: &'a mut [Id],
    /// How many partitions each member has to give.
    surplus: Vec<usize>,
    /// How many it has given.
    given: Vec<usize>,
    /// How many members have to give any.
    donors: usize,
    /// How many turns there are.
    total: usize,
}

impl Take<'_> {
    /// The cheapest place near the ideal one, in ever wider surroundings until the member fits somewhere.
    fn best_place(&self, member: Id, ideal: usize, turn: usize) -> Option<usize> {
        let q = self.problem.q();
        let mut radius = self.donors.min(RADIUS) + self.problem.rule.n;
        loop {
            let steps = (2 * radius + 1).min(q);
            let mut best: Option<(i64, usize)> = None;
            for step in 0..steps {
                // 0, 1, −1, 2, −2 …
                let away = step.div_ceil(2);
                let p = if step % 2 == 1 { (ideal + away) % q } else { (ideal + q - away) % q };
                let Some(price) = self.price(member, p, away, turn) else { continue };
                if best.is_none_or(|(least, _)| price < least) {
                    best = Some((price, p));
                }
            }
            match best {
                Some((price, p)) if price < NOT_SPACED / 2 || steps == q => return Some(p),
                None if steps == q => return None,
                _ => radius *= 2,
            }
        }
    }

    /// What it costs to take partition `p`; `None` if its owner has none to give.
    fn price(&self, member: Id, p: usize, away: usize, turn: usize) -> Option<i64> {
        let donor = self.owners[p] as usize;
        if self.given[donor] >= self.surplus[donor] {
            return None;
        }
        // By how many turns the donor is ahead of giving evenly over all turns.
        let even = ((2 * self.given[donor] + 1) * self.total) as i64 * 500 / self.surplus[donor] as i64;
        let ahead = even - turn as i64 * 1000;
        let distance = (away * self.donors * self.total) as i64 * 1000 / self.problem.q() as i64;
        let n = self.problem.rule.n;
        let fits = |member: Id, distance: usize| self.problem.fits(self.owners, p, member, distance);
        let spacing = match (fits(member, n - 1), fits(member, n)) {
            (false, _) => NOT_SPACED,
            (true, false) => NEARLY_SPACED,
            (true, true) => 0,
        };
        let mends = if fits(donor as Id, n - 1) { 0 } else { MENDS };
        Some(ahead + distance + spacing - mends)
    }
}

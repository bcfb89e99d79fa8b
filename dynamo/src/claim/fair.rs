//! Fair shares, exactly: how many replicas and how many partitions each member should have.
//!
//! Replicas come first, since they are the load. A list takes n members, so n·Q replicas are shared out in
//! proportion to weight, within what the walk can give: a zone of c members gives every list min(c, rounds) of them
//! and at most one more, and a member is in a list once at most. Owned partitions follow as a share of 1/n of that,
//! because in a ring with clean spacing a member is in n lists for each partition that it owns.

use super::Candidate;
use crate::preference::{Rule, Zone};

/// A non-negative rational number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ratio {
    num: u128,
    den: u128,
}

impl Ratio {
    fn whole(number: u128) -> Self {
        Self { num: number, den: 1 }
    }

    /// A divisor-th of it, rounded down.
    pub(super) fn floor(self, divisor: usize) -> usize {
        (self.num / (self.den * divisor as u128)) as usize
    }

    /// A divisor-th of it, rounded up.
    pub(super) fn ceil(self, divisor: usize) -> usize {
        self.num.div_ceil(self.den * divisor as u128) as usize
    }
}

/// Fair shares of all members.
#[derive(Clone, Debug)]
pub(super) struct Fair {
    /// Number of partitions Q.
    pub(super) q: usize,
    /// Length of a list.
    pub(super) n: usize,
    /// Zone of each member, dense from 0.
    pub(super) zone: Vec<usize>,
    /// Members of each zone, by position among the candidates.
    pub(super) zones: Vec<Vec<usize>>,
    /// Fair number of replicas of each member.
    pub(super) load: Vec<Ratio>,
    /// Fair number of replicas of each zone.
    pub(super) zone_load: Vec<Ratio>,
    /// Least and greatest number of replicas that the walk gives a zone.
    pub(super) zone_bounds: Vec<(usize, usize)>,
    /// Members that each zone gives a list, if it has as many.
    pub(super) rounds: usize,
    /// Members that a list takes from different zones beyond these.
    pub(super) extras: usize,
}

impl Fair {
    pub(super) fn new(q: usize, n: usize, members: &[Candidate]) -> Self {
        let zones: Vec<Zone> = members.iter().map(|member| member.zone).collect();
        let rule = Rule::new(&zones, &|_| true, n);
        let mut zones = vec![Vec::new(); rule.zone.iter().max().map_or(0, |last| last + 1)];
        for (member, &zone) in rule.zone.iter().enumerate() {
            zones[zone].push(member);
        }
        let bound = |members: &Vec<usize>, rounds: usize| q * members.len().min(rounds);
        let extra = usize::from(rule.extras > 0);
        let zone_bounds: Vec<(usize, usize)> =
            zones.iter().map(|zone| (bound(zone, rule.rounds), bound(zone, rule.rounds + extra))).collect();
        let weight = |zone: &Vec<usize>| zone.iter().map(|&member| u128::from(members[member].weight)).sum();
        let items: Vec<Item> = zones
            .iter()
            .zip(&zone_bounds)
            .map(|(zone, &(min, max))| Item { weight: weight(zone), min: min as u128, max: max as u128 })
            .collect();
        let zone_load = share_out(Ratio::whole((rule.n * q) as u128), &items);
        let mut load = vec![Ratio::whole(0); members.len()];
        for (zone, &total) in zones.iter().zip(&zone_load) {
            let item = |&member: &usize| Item { weight: members[member].weight.into(), min: 0, max: q as u128 };
            let items: Vec<Item> = zone.iter().map(item).collect();
            for (&member, share) in zone.iter().zip(share_out(total, &items)) {
                load[member] = share;
            }
        }
        let Rule { n, zone, rounds, extras } = rule;
        Self { q, n, zone, zones, load, zone_load, zone_bounds, rounds, extras }
    }

    /// Fewest replicas that a member may hold and still be balanced as well as whole partitions allow.
    pub(super) fn load_min(&self, member: usize) -> usize {
        self.n * self.load[member].floor(self.n)
    }

    /// Most replicas that a member may hold and still be balanced as well as whole partitions allow.
    pub(super) fn load_max(&self, member: usize) -> usize {
        self.q.min(self.n * self.load[member].ceil(self.n))
    }

    /// How many partitions each member shall own, given how many it owns today: its share rounded down or up, such
    /// that also each zone has its share rounded down or up, and that as little as possible is missing.
    ///
    /// Each rounding up is free for a member that has that much and costs one partition otherwise. Zones that may
    /// round either way are therefore chosen by what one more partition costs them, which is exact because that
    /// cost only grows.
    pub(super) fn quotas(&self, have: &[usize]) -> Vec<usize> {
        let mut quotas: Vec<usize> = self.load.iter().map(|load| load.floor(self.n)).collect();
        let may_round_up = |member: usize| self.load[member].ceil(self.n) > self.load[member].floor(self.n);
        let is_free = |member: usize| have[member] > self.load[member].floor(self.n);
        let mut upward: Vec<Vec<usize>> = Vec::with_capacity(self.zones.len());
        for zone in &self.zones {
            let mut members: Vec<usize> = zone.iter().copied().filter(|&member| may_round_up(member)).collect();
            members.sort_by_key(|&member| (!is_free(member), std::cmp::Reverse(have[member]), member));
            upward.push(members);
        }
        let floor = |zone: usize| self.zone_load[zone].floor(self.n);
        let rounded_up = |zone: usize, quotas: &[usize]| {
            floor(zone) - self.zones[zone].iter().map(|&member| quotas[member]).sum::<usize>()
        };
        let mut ups: Vec<usize> = (0..self.zones.len()).map(|zone| rounded_up(zone, &quotas)).collect();
        let mut choice: Vec<usize> =
            (0..self.zones.len()).filter(|&zone| self.zone_load[zone].ceil(self.n) > floor(zone)).collect();
        let has = |zone: usize| self.zones[zone].iter().map(|&member| have[member]).sum::<usize>();
        choice.sort_by_key(|&zone| {
            let free = upward[zone].get(ups[zone]).is_some_and(|&member| is_free(member));
            (!free, std::cmp::Reverse(has(zone)), zone)
        });
        let missing = self.q - (0..self.zones.len()).map(floor).sum::<usize>();
        for &zone in choice.iter().take(missing) {
            ups[zone] += 1;
        }
        for (members, &up) in upward.iter().zip(&ups) {
            members.iter().take(up).for_each(|&member| quotas[member] += 1);
        }
        quotas
    }
}

/// Something that takes part in sharing out: in proportion to `weight`, within `min` and `max`.
struct Item {
    weight: u128,
    min: u128,
    max: u128,
}

/// Shares `total` out in proportion to weight within everyone's bounds, which must leave room for it.
///
/// Proportional shares that break a bound are set to it, those at the side that breaks more first, and the rest is
/// shared out again (the way CSS lays out flexible boxes). No sum overflows: weights have 32 bits and there are at
/// most 2^16 of them, totals have at most 2^22 above the denominators that weights bring in.
fn share_out(total: Ratio, items: &[Item]) -> Vec<Ratio> {
    let mut shares: Vec<Option<u128>> = vec![None; items.len()];
    let mut rest = total;
    loop {
        let open: Vec<usize> = (0..items.len()).filter(|&item| shares[item].is_none()).collect();
        let weight: u128 = open.iter().map(|&item| items[item].weight).sum();
        // Everything below is scaled by this denominator, so that it stays in whole numbers.
        let den = rest.den * weight;
        let over = |item: usize| (rest.num * items[item].weight).saturating_sub(items[item].max * den);
        let under = |item: usize| (items[item].min * den).saturating_sub(rest.num * items[item].weight);
        let over_sum: u128 = open.iter().map(|&item| over(item)).sum();
        let under_sum: u128 = open.iter().map(|&item| under(item)).sum();
        if over_sum == 0 && under_sum == 0 {
            let share = |item: usize| match shares[item] {
                Some(share) => Ratio::whole(share),
                None => Ratio { num: rest.num * items[item].weight, den },
            };
            return (0..items.len()).map(share).collect();
        }
        let bound = |&item: &usize| match (over(item) > 0, under(item) > 0) {
            (true, _) if over_sum >= under_sum => Some((item, items[item].max)),
            (_, true) if under_sum >= over_sum => Some((item, items[item].min)),
            _ => None,
        };
        let bound: Vec<(usize, u128)> = open.iter().filter_map(bound).collect();
        for (item, share) in bound {
            shares[item] = Some(share);
            rest.num -= share * rest.den;
        }
    }
}

//! A cluster whose members come and go; every claim on the way is checked for all that is always promised.

use crate::oracle;
use dynamo::claim::{Candidate, Claim, claim, replica_moves, replica_moves_minimum};
use dynamo::preference::{MemberIndex, Zone, preference_lists};
use dynamo::token::PartitionCount;
use std::collections::BTreeMap;

#[derive(Clone)]
pub struct Cluster {
    pub q: u32,
    pub n: usize,
    pub owners: Vec<Option<MemberIndex>>,
    pub members: Vec<Candidate>,
    pub zones: BTreeMap<MemberIndex, Zone>,
    next: u16,
}

/// One change, measured.
#[derive(Debug)]
pub struct Step {
    pub claim: Claim,
    /// Replica moves from the lists before to the lists after; zero for a new ring.
    pub replicas: usize,
    pub replicas_min: usize,
    /// Number of lists that each member is in.
    pub loads: Vec<usize>,
}

impl Step {
    pub fn ratio(&self) -> f64 {
        self.replicas as f64 / self.replicas_min.max(1) as f64
    }

    pub fn max_to_mean(&self) -> f64 {
        let sum: usize = self.loads.iter().sum();
        (*self.loads.iter().max().unwrap() * self.loads.len()) as f64 / sum as f64
    }
}

impl Cluster {
    pub fn new(q: u32, n: usize) -> Self {
        let owners = vec![None; q as usize];
        Self { q, n, owners, members: Vec::new(), zones: BTreeMap::new(), next: 0 }
    }

    /// A new ring of `size` members without zones.
    pub fn of(size: usize, q: u32, n: usize) -> Self {
        let mut cluster = Self::new(q, n);
        cluster.join(size);
        cluster.step();
        cluster
    }

    /// A new ring of `size` members in `zones` zones in turns.
    pub fn zoned(size: usize, zones: u16, q: u32, n: usize) -> Self {
        let mut cluster = Self::new(q, n);
        cluster.join_zones(size, zones);
        cluster.step();
        cluster
    }

    pub fn join(&mut self, count: usize) {
        (0..count).for_each(|_| self.join_as(1, None));
    }

    /// Each into the zone with the fewest members.
    pub fn join_zones(&mut self, count: usize, zones: u16) {
        for _ in 0..count {
            let size = |zone: &u16| self.members.iter().filter(|member| member.zone == Some(*zone)).count();
            let zone = (0..zones).min_by_key(size);
            self.join_as(1, zone);
        }
    }

    pub fn join_as(&mut self, weight: u32, zone: Zone) {
        let index = MemberIndex(self.next);
        self.next += 1;
        self.members.push(Candidate { index, weight, zone });
        self.zones.insert(index, zone);
    }

    /// The last to come go first, as in a `StatefulSet`.
    pub fn leave(&mut self, count: usize) {
        self.members.truncate(self.members.len() - count);
    }

    pub fn leave_at(&mut self, at: usize) {
        self.members.remove(at);
    }

    pub fn count(&self) -> PartitionCount {
        PartitionCount::new(self.q).unwrap()
    }

    pub fn lists(&self, owners: &[MemberIndex]) -> Vec<Vec<MemberIndex>> {
        preference_lists(owners, self.n, &|index| self.zones[&index])
    }

    /// Claims, checks, and takes over the new owners.
    pub fn step(&mut self) -> Step {
        let claim = claim(&self.owners, self.count(), &self.members, self.n).unwrap();
        self.check_owners(&claim);
        self.check_lists(&claim);
        let zone_of = |index: MemberIndex| self.zones[&index];
        let old: Option<Vec<MemberIndex>> = self.owners.iter().copied().collect();
        let (replicas, replicas_min) = old.map_or((0, 0), |old| {
            let moves = replica_moves(&old, &claim.owners, self.n, &zone_of);
            (moves, replica_moves_minimum(&old, &self.members, self.n, &zone_of))
        });
        let lists = self.lists(&claim.owners);
        let load = |member: &Candidate| lists.iter().filter(|list| list.contains(&member.index)).count();
        let loads = self.members.iter().map(load).collect();
        self.owners = claim.owners.iter().copied().map(Some).collect();
        Step { claim, replicas, replicas_min, loads }
    }

    /// Balance is as good as whole partitions allow, movement is what the oracle says is the least, and partitions
    /// only move from those that have too many to those that have too few.
    fn check_owners(&self, claim: &Claim) {
        assert_eq!(claim.owners.len(), self.owners.len());
        let owned = |index: MemberIndex| claim.owners.iter().filter(|&&owner| owner == index).count();
        let held = |index: MemberIndex| self.owners.iter().filter(|&&owner| owner == Some(index)).count();
        let shares = oracle::fair_shares(self.q as usize, self.n, &self.members);
        for (member, share) in self.members.iter().zip(&shares) {
            let owned = owned(member.index) as f64;
            assert!((owned - share).abs() < 1.0 + 1e-6, "{member:?} owns {owned}, its share is {share}");
        }
        let plain = self.members.iter().all(|member| member.zone.is_none() && member.weight == 1);
        if plain {
            let counts: Vec<usize> = self.members.iter().map(|member| owned(member.index)).collect();
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        }
        let differs = |(old, new): &(&Option<MemberIndex>, &MemberIndex)| **old != Some(**new);
        let moved: Vec<_> = self.owners.iter().zip(&claim.owners).filter(differs).collect();
        assert_eq!(claim.moved, moved.len());
        assert_eq!(claim.moved, claim.moved_min);
        let have: Vec<usize> = self.members.iter().map(|member| held(member.index)).collect();
        assert_eq!(claim.moved, oracle::least_moved(self.q as usize, self.n, &self.members, &have));
        for (old, new) in moved {
            assert!(owned(*new) > held(*new), "{new} had enough and got another partition");
            if let Some(old) = old {
                assert!(owned(*old) < held(*old), "{old} had not too many and lost a partition");
            }
        }
    }

    /// Every list names distinct wanted members, n of them if there are as many that own anything, over as many
    /// zones as it can; violations are those lists that are not simply the next n owners.
    fn check_lists(&self, claim: &Claim) {
        let owners: std::collections::BTreeSet<MemberIndex> = claim.owners.iter().copied().collect();
        assert!(owners.iter().all(|owner| self.members.iter().any(|member| member.index == *owner)));
        let zones = |list: &mut dyn Iterator<Item = &MemberIndex>| {
            let known: Vec<Zone> = list.map(|index| self.zones[index]).collect();
            let unknown = known.iter().filter(|zone| zone.is_none()).count();
            known.into_iter().flatten().collect::<std::collections::BTreeSet<_>>().len() + unknown
        };
        let zones_max = zones(&mut owners.iter()).min(self.n);
        let mut violations = 0;
        for (p, list) in self.lists(&claim.owners).iter().enumerate() {
            assert_eq!(list.len(), self.n.min(owners.len()));
            assert!((1..list.len()).all(|at| !list[..at].contains(&list[at])), "{list:?}");
            assert_eq!(zones(&mut list.iter()), zones_max, "{list:?}");
            let next: Vec<MemberIndex> =
                (0..list.len()).map(|step| claim.owners[(p + step) % claim.owners.len()]).collect();
            violations += usize::from(*list != next);
        }
        assert_eq!(claim.spacing_violations, violations);
    }
}

/// Random numbers from a seed: SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % bound
    }
}

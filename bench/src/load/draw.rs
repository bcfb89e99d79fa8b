//! Which key is next, and what is written to it.

use super::{Distribution, Mix, Workload};
use crate::systems::RespTarget;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::sync::Arc;

/// Exponent of the zipfian distribution, as in YCSB.
const ZIPF_EXPONENT: f64 = 0.99;
/// Different bytes that values are cut from, so that nothing is won by writing the same one again.
const BLOCK_BYTES: usize = 1 << 20;

/// The keys of a run and how often each is wanted.
pub struct KeySpace {
    count: usize,
    value_bytes: usize,
    /// Share of the keys up to each rank.
    cumulative: Vec<f64>,
    /// Key of each rank, so that the most wanted ones are not neighbours.
    ranked: Vec<u32>,
    block: Vec<u8>,
}

impl KeySpace {
    /// Keys `key:000000000000` and on, with values of this many bytes.
    #[must_use]
    pub fn new(count: usize, value_bytes: usize) -> Arc<Self> {
        let mut random = SmallRng::seed_from_u64(1);
        let mut ranked: Vec<u32> = (0..count as u32).collect();
        ranked.shuffle(&mut random);
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=count)
            .map(|rank| {
                sum += (rank as f64).powf(-ZIPF_EXPONENT);
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|share| *share /= sum);
        let mut block = vec![0; BLOCK_BYTES + value_bytes];
        random.fill(block.as_mut_slice());
        Arc::new(Self { count, value_bytes, cumulative, ranked, block })
    }

    /// Number of keys.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of a value.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// A value, another one for almost every number.
    #[must_use]
    pub fn value(&self, number: u64) -> &[u8] {
        let at = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44) as usize % BLOCK_BYTES;
        &self.block[at..at + self.value_bytes]
    }

    /// Name of a key.
    #[must_use]
    pub fn key(number: u32) -> String {
        format!("key:{number:012}")
    }
}

/// One client's choices.
pub struct Draw {
    keys: Arc<KeySpace>,
    workload: Workload,
    random: SmallRng,
    /// Which node is the first to be asked for a key; empty where that plays no part.
    nodes: Arc<[u8]>,
}

impl Draw {
    /// Choices that differ from client to client and are the same for every system.
    #[must_use]
    pub fn new(keys: Arc<KeySpace>, workload: Workload, client: usize, target: Option<&RespTarget>) -> Self {
        let nodes = target.map(|target| target.nodes_of_keys.clone()).unwrap_or_default();
        Self { keys, workload, random: SmallRng::seed_from_u64(1000 + client as u64), nodes }
    }

    /// Whether the next operation writes.
    pub fn writes(&mut self) -> bool {
        match self.workload.mix {
            Mix::Put => true,
            Mix::Get => false,
            Mix::Half => self.random.random(),
        }
    }

    /// Keys of the next batch: all at one node, as a client that knows the cluster sorts what it pipelines.
    pub fn batch(&mut self, batch: &mut Vec<u32>) {
        batch.clear();
        let first = self.key();
        batch.push(first);
        while batch.len() < self.workload.pipelined {
            let key = self.key();
            let node = |key: u32| self.nodes.get(key as usize);
            if node(key) == node(first) {
                batch.push(key);
            }
        }
    }

    /// A new value.
    pub fn value(&mut self) -> &[u8] {
        let number = self.random.random();
        self.keys.value(number)
    }

    fn key(&mut self) -> u32 {
        match self.workload.distribution {
            Distribution::Uniform => self.random.random_range(0..self.keys.count as u32),
            Distribution::Zipfian => {
                let share: f64 = self.random.random();
                let rank = self.keys.cumulative.partition_point(|&up_to| up_to < share);
                self.keys.ranked[rank.min(self.keys.count - 1)]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(distribution: Distribution) -> Vec<usize> {
        let keys = KeySpace::new(1000, 10);
        let workload = Workload { mix: Mix::Get, distribution, pipelined: 1 };
        let mut draw = Draw::new(keys, workload, 0, None);
        let (mut counts, mut batch) = (vec![0; 1000], Vec::new());
        for _ in 0..100_000 {
            draw.batch(&mut batch);
            counts[batch[0] as usize] += 1;
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts
    }

    #[test]
    fn uniform_keys_are_all_wanted_alike_and_zipfian_ones_are_not() {
        let uniform = drawn(Distribution::Uniform);
        assert!(uniform[0] < 200 && uniform[999] > 30, "{} {}", uniform[0], uniform[999]);
        let zipfian = drawn(Distribution::Zipfian);
        // 1 / Σ k^-0.99 over 1000 keys is 0.13.
        assert!((11_000..15_000).contains(&zipfian[0]), "{}", zipfian[0]);
        let ratio = zipfian[0] as f64 / zipfian[1] as f64;
        assert!((1.8..2.2).contains(&ratio), "2^0.99, not {ratio}");
    }
}

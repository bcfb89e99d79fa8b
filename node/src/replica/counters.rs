//! How many keys and bytes each partition has here, kept as they change.

use dynamo::object::Object;
use std::sync::atomic::{AtomicI64, Ordering};

/// Counts of one partition.
#[derive(Debug, Default)]
struct Count {
    live: AtomicI64,
    items: AtomicI64,
    bytes: AtomicI64,
}

/// Counts of all partitions of a ring.
#[derive(Debug)]
pub struct Counters {
    partitions: Vec<Count>,
}

/// A sum over partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Keys that hold something; expired ones are counted until they are swept.
    pub live: u64,
    /// Keys, those of tombstones included.
    pub items: u64,
    /// Bytes of keys and encoded objects.
    pub bytes: u64,
}

/// What one stored object adds to its partition's counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    live: i64,
    items: i64,
    bytes: i64,
}

impl Weight {
    /// Weight of a key with an object that takes `encoded_bytes`.
    #[must_use]
    pub fn of(key: &[u8], object: &Object, encoded_bytes: usize) -> Self {
        let live = i64::from(object.visible(0).is_some());
        Self { live, items: 1, bytes: i64::try_from(key.len() + encoded_bytes).unwrap_or(i64::MAX) }
    }
}

impl Counters {
    /// Zero everywhere.
    #[must_use]
    pub fn new(partitions: usize) -> Self {
        Self { partitions: (0..partitions).map(|_| Count::default()).collect() }
    }

    /// Replaces what was counted as `before` by `after`.
    pub fn replace(&self, partition: u32, before: Weight, after: Weight) {
        let Some(count) = self.partitions.get(partition as usize) else { return };
        count.live.fetch_add(after.live - before.live, Ordering::Relaxed);
        count.items.fetch_add(after.items - before.items, Ordering::Relaxed);
        count.bytes.fetch_add(after.bytes - before.bytes, Ordering::Relaxed);
    }

    /// Counts of one partition.
    #[must_use]
    pub fn of(&self, partition: u32) -> Sum {
        self.partitions.get(partition as usize).map_or_else(Sum::default, Count::sum)
    }

    /// Sum over the partitions that `select` names.
    #[must_use]
    pub fn sum(&self, select: impl Fn(u32) -> bool) -> Sum {
        let mut total = Sum::default();
        for (partition, count) in (0u32..).zip(&self.partitions).filter(|(partition, _)| select(*partition)) {
            let sum = count.sum();
            debug_assert!(partition < u32::MAX);
            total.live += sum.live;
            total.items += sum.items;
            total.bytes += sum.bytes;
        }
        total
    }
}

impl Count {
    fn sum(&self) -> Sum {
        let read = |value: &AtomicI64| u64::try_from(value.load(Ordering::Relaxed)).unwrap_or(0);
        Sum { live: read(&self.live), items: read(&self.items), bytes: read(&self.bytes) }
    }
}

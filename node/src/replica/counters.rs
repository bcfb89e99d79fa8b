//! How many keys and bytes are here, kept as they change.
//!
//! Counted by hash slot, of which no partition is a part: so the counts stay right when the partitions split.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dynamo::object::Object;
use dynamo::token::{PartitionCount, SLOTS, Token, slots};
use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// No slot has as many keys or bytes; and those of all slots together can be counted too.
const COUNT_END: i64 = 1 << 48;

/// Counts of one hash slot.
#[derive(Debug)]
struct Count {
    live: AtomicI64,
    items: AtomicI64,
    bytes: AtomicI64,
    /// Objects that hold nothing and never will again.
    dead: AtomicI64,
    /// No object here that counts as live expires before this time.
    due_ms: AtomicU64,
}

/// Counts of everything that is here.
#[derive(Debug)]
pub struct Counters {
    slots: Vec<Count>,
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
    /// As the object says it; `None` for no object, too.
    dead_from_ms: Option<u64>,
}

impl Weight {
    /// Weight of a key with an object that takes `encoded_bytes`.
    #[must_use]
    pub fn of(key: &[u8], object: &Object, encoded_bytes: usize) -> Self {
        let live = i64::from(object.visible(0).is_some());
        let bytes = i64::try_from(key.len() + encoded_bytes).unwrap_or(i64::MAX);
        Self { live, items: 1, bytes, dead_from_ms: object.dead_from_ms() }
    }

    fn dead(self) -> i64 {
        i64::from(self.dead_from_ms == Some(0))
    }
}

impl Default for Counters {
    /// Zero everywhere.
    fn default() -> Self {
        let nothing = |_| Count {
            live: AtomicI64::new(0),
            items: AtomicI64::new(0),
            bytes: AtomicI64::new(0),
            dead: AtomicI64::new(0),
            due_ms: AtomicU64::new(u64::MAX),
        };
        Self { slots: (0..SLOTS).map(nothing).collect() }
    }
}

impl Counters {
    /// Replaces what was counted as `before` by `after`, at the place of `token`.
    pub fn replace(&self, token: Token, before: Weight, after: Weight) {
        let Some(count) = self.slots.get(usize::from(token.slot())) else { return };
        count.live.fetch_add(after.live - before.live, Ordering::Relaxed);
        count.items.fetch_add(after.items - before.items, Ordering::Relaxed);
        count.bytes.fetch_add(after.bytes - before.bytes, Ordering::Relaxed);
        count.dead.fetch_add(after.dead() - before.dead(), Ordering::Relaxed);
        if let Some(due_ms) = after.dead_from_ms.filter(|&due_ms| due_ms > 0) {
            count.due_ms.fetch_min(due_ms, Ordering::Relaxed);
        }
    }

    /// How many objects of these hash slots hold nothing, expired ones left out.
    #[must_use]
    pub fn dead(&self, slots: Range<usize>) -> u64 {
        let counts = self.slots.get(slots).unwrap_or_default();
        u64::try_from(counts.iter().map(|count| count.dead.load(Ordering::Relaxed)).sum::<i64>()).unwrap_or(0)
    }

    /// Whether a hash slot has objects that hold nothing, or may have ones that have expired by now.
    #[must_use]
    pub fn has_dead(&self, slot: usize, now_ms: u64) -> bool {
        let expired = self.slots.get(slot).is_some_and(|count| count.due_ms.load(Ordering::Relaxed) <= now_ms);
        expired || self.dead(slot..slot + 1) > 0
    }

    /// Forgets when objects of a hash slot expire. Whoever calls this looks at all of them then, and says of each that
    /// will expire that it is [`due`](Counters::due). A look that is not [ended](Look::end) has to be taken again.
    #[must_use]
    pub fn look(&self, slot: usize) -> Look<'_> {
        if let Some(count) = self.slots.get(slot) {
            count.due_ms.store(u64::MAX, Ordering::Relaxed);
        }
        Look { counters: self, slot: Some(slot) }
    }

    /// An object of a hash slot expires at this time.
    pub fn due(&self, slot: usize, at_ms: u64) {
        if let Some(count) = self.slots.get(slot) {
            count.due_ms.fetch_min(at_ms, Ordering::Relaxed);
        }
    }

    /// Writes all counts down.
    pub(super) fn encode(&self, bytes: &mut BytesMut) {
        for Count { live, items, bytes: size, dead, due_ms } in &self.slots {
            [live, items, size, dead].iter().for_each(|count| bytes.put_i64_le(count.load(Ordering::Relaxed)));
            bytes.put_u64_le(due_ms.load(Ordering::Relaxed));
        }
    }

    /// Reads what [`encode`](Counters::encode) has written; `None`: it ends too early, or nobody has counted this.
    pub(super) fn decode(bytes: &mut Bytes) -> Option<Self> {
        let mut slot = || {
            let possible = |count: &i64| (0..COUNT_END).contains(count);
            let mut count = || bytes.try_get_i64_le().ok().filter(possible).map(AtomicI64::new);
            let (live, items, size, dead) = (count()?, count()?, count()?, count()?);
            let due_ms = AtomicU64::new(bytes.try_get_u64_le().ok()?);
            Some(Count { live, items, bytes: size, dead, due_ms })
        };
        Some(Self { slots: (0..SLOTS).map(|_| slot()).collect::<Option<_>>()? })
    }

    /// Counts of one of `count` partitions.
    #[must_use]
    pub fn of(&self, partition: u32, count: PartitionCount) -> Sum {
        Sum::over(self.slots.get(slots(partition, count)).unwrap_or_default())
    }

    /// Counts of some hash slots.
    #[must_use]
    pub fn of_slots(&self, slots: std::ops::RangeInclusive<usize>) -> Sum {
        Sum::over(self.slots.get(slots).unwrap_or_default())
    }

    /// Counts of everything.
    #[must_use]
    pub fn total(&self) -> Sum {
        Sum::over(&self.slots)
    }

    /// Sum over those of `count` partitions that `select` names.
    #[must_use]
    pub fn sum(&self, count: PartitionCount, select: impl Fn(u32) -> bool) -> Sum {
        (0..count.get()).filter(|partition| select(*partition)).map(|partition| self.of(partition, count)).fold(
            Sum::default(),
            |total, sum| Sum {
                live: total.live + sum.live,
                items: total.items + sum.items,
                bytes: total.bytes + sum.bytes,
            },
        )
    }
}

/// A look at all objects of a hash slot.
#[derive(Debug)]
pub struct Look<'a> {
    counters: &'a Counters,
    slot: Option<usize>,
}

impl Look<'_> {
    /// All were looked at.
    pub fn end(mut self) {
        self.slot = None;
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.counters.due(slot, 0);
        }
    }
}

impl Sum {
    fn over(counts: &[Count]) -> Self {
        let total = |value: fn(&Count) -> &AtomicI64| {
            let sum: i64 = counts.iter().map(|count| value(count).load(Ordering::Relaxed)).sum();
            u64::try_from(sum).unwrap_or(0)
        };
        Self {
            live: total(|count| &count.live),
            items: total(|count| &count.items),
            bytes: total(|count| &count.bytes),
        }
    }
}

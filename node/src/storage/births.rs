//! Numbers that set each beginning of an actor apart from all others of the same data directory.

use super::engine::{Change, Engine, EngineError, Space};
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Low bits of a birth: its number within its series.
const COUNTER_BITS: u32 = 31;

const SERIES_KEY: &[u8] = b"births";

/// Source of births: 64-bit numbers that grow while the process runs and are never handed out twice.
///
/// A birth is a series (33 bits) and a counter (31 bits). Every start takes a series that no start before it has
/// taken: the first free one from a random 32-bit number on, recorded durably before its first birth is handed out.
/// So births do not repeat across restarts and crashes; and when a volume is put back to an older copy, which has
/// forgotten the series taken since, a start repeats one of them only with a probability of 2⁻³² for each.
/// A series that is used up is followed by the next free one, recorded while it is half used.
pub struct Births {
    engine: Arc<dyn Engine>,
    counter_bits: u32,
    next: AtomicU64,
    series_now: AtomicU64,
    /// Series of this start in the order of their use. The last may be yet to come.
    series: Mutex<Vec<u64>>,
}

impl Births {
    /// Takes a series for this start.
    ///
    /// # Errors
    /// When the engine fails. At most, a series is taken that nobody uses.
    pub fn open(engine: Arc<dyn Engine>, random: u32) -> Result<Self, EngineError> {
        Self::open_with(engine, random, COUNTER_BITS)
    }

    fn open_with(engine: Arc<dyn Engine>, random: u32, counter_bits: u32) -> Result<Self, EngineError> {
        // One and up: zero is nobody's birth, so it can stand for "none".
        let series = take_series(engine.as_ref(), u64::from(random) + 1)?;
        Ok(Self {
            engine,
            counter_bits,
            next: AtomicU64::new(series << counter_bits),
            series_now: AtomicU64::new(series),
            series: Mutex::new(vec![series]),
        })
    }

    /// A birth greater than all before it of this start.
    ///
    /// Blocks for a commit once in a billion calls.
    pub fn next(&self) -> u64 {
        let birth = self.next.fetch_add(1, Ordering::Relaxed);
        if birth >> self.counter_bits != self.series_now.load(Ordering::Acquire) {
            return self.next_of_new_series();
        }
        if birth.trailing_zeros() == self.counter_bits - 1 {
            // Exactly one caller meets the middle of the series.
            self.prepare(birth >> self.counter_bits);
        }
        birth
    }

    /// Whether a birth was handed out since this process started.
    #[must_use]
    pub fn is_of_this_start(&self, birth: u64) -> bool {
        let series = birth >> self.counter_bits;
        let handed_out = birth < self.next.load(Ordering::Acquire);
        handed_out && (series == self.series_now.load(Ordering::Acquire) || self.series.lock().contains(&series))
    }

    /// The first birth of this start: none of this start is less, though births of other starts may be greater.
    #[must_use]
    pub fn first_of_this_start(&self) -> u64 {
        self.series.lock().first().map_or(0, |series| series << self.counter_bits)
    }

    /// Takes the series that follows on `now`, unless that is done already.
    fn prepare(&self, now: u64) {
        let mut series = self.series.lock();
        if series.last() != Some(&now) {
            return;
        }
        match take_series(self.engine.as_ref(), now + 1) {
            Ok(taken) => series.push(taken),
            Err(error) => tracing::warn!(%error, "the next series of births could not be recorded yet"),
        }
    }

    fn next_of_new_series(&self) -> u64 {
        loop {
            let now = self.series_now.load(Ordering::Acquire);
            let birth = self.next.fetch_add(1, Ordering::Relaxed);
            if birth >> self.counter_bits == now {
                return birth;
            }
            self.prepare(now);
            let mut series = self.series.lock();
            if self.series_now.load(Ordering::Acquire) != now {
                continue;
            }
            let following = series.iter().copied().find(|&other| other > now).unwrap_or_else(|| {
                // The engine takes no commits, so no object with this birth will be stored either.
                series.push(now + 1);
                now + 1
            });
            // Numbers drawn meanwhile stay drawn: this only ever grows.
            self.next.fetch_max(following << self.counter_bits, Ordering::AcqRel);
            self.series_now.store(following, Ordering::Release);
        }
    }
}

/// Records the first series from `from` on that no start has taken.
fn take_series(engine: &dyn Engine, from: u64) -> Result<u64, EngineError> {
    let mut series = from;
    while engine.get(Space::Meta, &series_key(series))?.is_some() {
        series += 1;
    }
    let key = series_key(series);
    engine.commit(&[Change::Put { space: Space::Meta, key, value: Bytes::new() }])?;
    Ok(series)
}

fn series_key(series: u64) -> Bytes {
    let mut key = SERIES_KEY.to_vec();
    key.extend_from_slice(&series.to_be_bytes());
    Bytes::from(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryEngine;
    use std::collections::BTreeSet;

    #[test]
    fn births_are_of_their_start_alone_even_when_the_random_number_repeats() {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
        let first = Births::open(engine.clone(), 7).unwrap();
        let old: Vec<u64> = (0..100).map(|_| first.next()).collect();
        let second = Births::open(engine, 7).unwrap();
        let new: Vec<u64> = (0..100).map(|_| second.next()).collect();
        assert!(new.iter().all(|birth| !old.contains(birth)));
        assert!(old.iter().all(|&birth| first.is_of_this_start(birth) && !second.is_of_this_start(birth)));
        assert!(new.iter().all(|&birth| second.is_of_this_start(birth) && !first.is_of_this_start(birth)));
        assert!(!second.is_of_this_start(second.next() + 1), "not handed out yet");
        assert!(!Births::open(Arc::new(MemoryEngine::new()), 0).unwrap().is_of_this_start(0));
    }

    #[test]
    fn a_series_used_up_is_followed_by_one_that_no_start_has_taken() {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
        let other = Births::open_with(engine.clone(), 10, 4).unwrap();
        let births = Births::open_with(engine.clone(), 9, 4).unwrap();
        let mut last = 0;
        for _ in 0..100 {
            let birth = births.next();
            assert!(birth > last, "{birth} after {last}");
            assert!(births.is_of_this_start(birth) && !other.is_of_this_start(birth));
            assert_ne!(birth >> 4, 11, "series of the other start");
            last = birth;
        }
        assert!(!births.is_of_this_start(11 << 4));
        let later = Births::open_with(engine, 9, 4).unwrap();
        assert!(later.next() > last, "every series used is recorded");
    }

    #[test]
    fn threads_never_draw_the_same_birth_across_series() {
        let births = Births::open_with(Arc::new(MemoryEngine::new()), 3, 6).unwrap();
        let drawn: Vec<u64> = std::thread::scope(|scope| {
            let draw = || (0..5_000).map(|_| births.next()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), drawn.len());
        assert!(drawn.iter().all(|&birth| births.is_of_this_start(birth)));
    }

    #[test]
    fn births_survive_anything_among_the_records() {
        annulus_fuzz::fuzz("births", |noise| {
            let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
            let random = noise.number() as u32;
            for _ in 0..noise.below(6) {
                let near = series_key(u64::from(random) + noise.below(3) as u64);
                let key = Bytes::from(annulus_fuzz::damaged(noise, &near, b"births"));
                let value = noise.bytes(3).into();
                if !key.is_empty() {
                    engine.commit(&[Change::Put { space: Space::Meta, key, value }]).unwrap();
                }
            }
            let (first, second) =
                (Births::open(engine.clone(), random).unwrap(), Births::open(engine, random).unwrap());
            assert_ne!(first.next(), second.next());
        });
    }
}

//! What the fuzz tests of all crates share. Only tests depend on this crate.
//!
//! A fuzz test makes good bytes, damages them, and sees what a decoder does. Each round has a seed of its own, which a
//! failing test prints: `FUZZ_SEED` begins with that round. `FUZZ_SECONDS` says for how long (one, unless told otherwise).

use std::time::{Duration, Instant};

/// A small generator, so that a seed is all there is to a round (xorshift64*).
#[derive(Debug)]
pub struct Noise(u64);

impl Noise {
    /// The noise of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Spread first, since rounds that follow each other have seeds that do.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number of any size: as likely to be small as large.
    pub fn number(&mut self) -> u64 {
        let bits = self.below(64);
        self.any() >> bits
    }

    /// A number below `end`; zero if there is none.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.any() >> 1).unwrap_or(0) % end.max(1)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of several.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Any bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.any().to_le_bytes()[3]).collect()
    }
}

/// Does `round` again and again, each time with other noise, until time is up.
pub fn fuzz(name: &str, mut round: impl FnMut(&mut Noise)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut seed = number("FUZZ_SEED")
        .unwrap_or_else(|| clock.map_or(1, |since| u64::try_from(since.as_nanos()).unwrap_or(1)));
    let end = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(1));
    let mut rounds = 0u64;
    while rounds == 0 || Instant::now() < end {
        let told = TellSeed(seed);
        round(&mut Noise::new(seed));
        std::mem::forget(told);
        seed = seed.wrapping_add(1);
        rounds += 1;
    }
    println!("{name}: {rounds} rounds");
}

/// Says which round it was when a test fails.
struct TellSeed(u64);

impl Drop for TellSeed {
    fn drop(&mut self) {
        eprintln!("replay with FUZZ_SEED={}", self.0);
    }
}

/// Good bytes with some changed, cut out, put in, doubled, or with the end of others behind them. At times nothing.
pub fn damaged(noise: &mut Noise, good: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..noise.below(5) {
        let at = noise.below(bytes.len());
        let end = (at + 1 + noise.below(6)).min(bytes.len());
        match noise.below(8) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] = noise.any().to_le_bytes()[0],
            2 if !bytes.is_empty() => bytes[at] ^= 1 << noise.below(8),
            // Bounds are where counts and lengths go wrong.
            3 if !bytes.is_empty() => bytes[at..end].fill(*noise.pick(&[0, 1, 0x7f, 0x80, 0xff])),
            4 => {
                let new = noise.number().to_le_bytes();
                drop(bytes.splice(at..at, new[..1 + noise.below(8)].iter().copied()));
            }
            5 => drop(bytes.drain(at..end)),
            6 => bytes.extend_from_within(at..end),
            _ => bytes.extend_from_slice(&other[noise.below(other.len())..]),
        }
    }
    bytes
}

/// The same for text: digits become other digits, words move, and what comes out is text again.
pub fn damaged_text(noise: &mut Noise, good: &str, other: &str) -> String {
    let mut bytes = damaged(noise, good.as_bytes(), other.as_bytes());
    for _ in 0..noise.below(3) {
        let digits: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at].is_ascii_digit()).collect();
        if !digits.is_empty() {
            bytes[*noise.pick(&digits)] = *noise.pick(b"0123456789-+.eE \"");
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What `work` makes of its input, having allocated no more than this many bytes at a time.
///
/// # Panics
/// If it has allocated more.
pub fn within<T>(bytes_max: usize, work: impl FnOnce() -> T) -> T {
    let mut done = None;
    let used = allocation_counter::measure(|| done = Some(work()));
    assert!(used.bytes_max <= bytes_max as u64, "{} bytes allocated, {bytes_max} allowed", used.bytes_max);
    match done {
        Some(done) => done,
        None => unreachable!("measuring runs what is measured"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_allocates_too_much_is_caught() {
        assert_eq!(within(1100, || vec![7u8; 1000]).len(), 1000);
        assert!(std::panic::catch_unwind(|| within(900, || vec![7u8; 1000])).is_err());
    }

    #[test]
    fn a_seed_is_a_round() {
        let round = |seed| {
            let mut noise = Noise::new(seed);
            damaged(&mut noise, b"something good", b"or other")
        };
        assert!((0..100).all(|seed| round(seed) == round(seed)));
        assert!((0..100).any(|seed| round(seed) != b"something good"));
    }
}

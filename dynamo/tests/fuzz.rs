//! Bytes from anyone to every decoder of this crate: nothing panics, and what decodes is written the same way again.
//!
//! Inputs are good encodings with bytes changed, cut out, doubled or put together from two. `FUZZ_SEED` (printed) and
//! `FUZZ_SECONDS` (one, unless told otherwise) replay and prolong a run.

use bytes::Bytes;
use dynamo::hlc::Hlc;
use dynamo::object::{
    Actor, By, Change, Condition, Context, Expiry, ExpiryCondition, Object, Outcome, Payload, Value,
};
use std::time::{Duration, Instant};

/// A small generator, so that a seed is all there is to a run (xorshift64*).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Bytes {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

fn change(noise: &mut Noise) -> Change {
    let name = |noise: &mut Noise| Bytes::from(vec![b'a' + noise.below(4) as u8; 1 + noise.below(3)]);
    let by = noise.next().cast_signed() >> noise.below(64);
    match noise.below(12) {
        0 => Change::Increment { by },
        1 => Change::AddMembers(vec![name(noise), name(noise)]),
        2 => Change::RemoveMembers(vec![name(noise)]),
        3 => Change::SetFields(vec![(name(noise), name(noise)), (name(noise), name(noise))]),
        4 => Change::RemoveFields(vec![name(noise)]),
        5 => Change::IncrementField { field: name(noise), by },
        6 => Change::ReplaceField { field: name(noise), expected: None, value: name(noise) },
        7 => {
            let only = ExpiryCondition::Present { later: noise.below(2) == 0, earlier: false };
            let only = if noise.below(2) == 0 { ExpiryCondition::Always } else { only };
            Change::Expire { at_ms: Some(noise.next() >> noise.below(64)), only, read: noise.below(2) == 0 }
        }
        8 => Change::Replace {
            bytes: (noise.below(4) > 0).then(|| name(noise)),
            expiry: if noise.below(2) == 0 { Expiry::Keep } else { Expiry::At(Some(noise.next() >> 20)) },
            only: if noise.below(2) == 0 { Condition::Always } else { Condition::Equal(name(noise)) },
            read: noise.below(2) == 0,
        },
        9 => Change::Append(name(noise)),
        10 => Change::TakeMembers(vec![name(noise)]),
        _ => Change::SetRange { offset: noise.below(20) as u64, bytes: name(noise) },
    }
}

/// An object that has been through some changes and merges.
fn object(noise: &mut Noise) -> Object {
    let mut objects = [Object::default(), Object::default(), Object::default()];
    for _ in 0..noise.below(12) {
        let at = noise.below(3);
        let actor = Actor { incarnation: at as u64, birth: noise.below(3) as u64 };
        let newest = objects[at].max_timestamp().unwrap_or_default();
        let timestamp = Hlc(newest.0 + 1 + noise.next() % 1000);
        match noise.below(4) {
            0 => objects[at] = objects[at].merge(&objects[(at + 1) % 3]),
            1 => {
                let value = Value { timestamp, expires_at_ms: None, payload: Payload::Bytes(noise.bytes(3)) };
                objects[at] = objects[at].put(actor, &Context::default(), value);
            }
            _ => {
                let by = By { actor, timestamp, now_ms: 1 << noise.below(40) };
                if let (Some(changed), _) = objects[at].change(&change(noise), by) {
                    objects[at] = changed;
                }
            }
        }
    }
    objects[0].merge(&objects[1]).merge(&objects[2])
}

fn damaged(noise: &mut Noise, good: &[u8], other: &[u8]) -> Bytes {
    let mut bytes = good.to_vec();
    for _ in 0..noise.below(4) {
        let at = noise.below(bytes.len());
        match noise.below(6) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] = noise.next() as u8,
            2 if !bytes.is_empty() => bytes[at] ^= 1 << noise.below(8),
            3 => bytes.splice(at..at, noise.bytes(1 + at % 9)).for_each(drop),
            4 if !bytes.is_empty() => bytes.drain(at..(at + 1 + at % 5).min(bytes.len())).for_each(drop),
            _ => bytes.extend_from_slice(&other[noise.below(other.len())..]),
        }
    }
    Bytes::from(bytes)
}

fn check(bytes: &Bytes, mate: &Object) {
    if let Ok(object) = Object::decode(bytes.clone()) {
        assert_eq!(object.encode(), *bytes, "an object is written in one way");
        let merged = object.merge(mate);
        assert_eq!(merged, mate.merge(&object));
        assert_eq!(merged.merge(mate), merged);
        assert!(merged.includes(&object));
        assert_eq!(Object::decode(merged.encode()).as_ref(), Ok(&merged));
        let _ = (object.visible(1000).map(|visible| visible.string()), object.only_tombstones());
    }
    if let Ok(context) = Context::decode(bytes) {
        assert_eq!(context.encode(), *bytes, "a context is written in one way");
    }
    if let Ok(change) = Change::decode(bytes.clone()) {
        assert_eq!(Change::decode(change.encode()).as_ref(), Ok(&change));
    }
    if let Ok(outcome) = Outcome::decode(bytes.clone()) {
        assert_eq!(Outcome::decode(outcome.encode()).as_ref(), Ok(&outcome));
    }
}

#[test]
fn decoders_survive_anything() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = number("FUZZ_SEED").unwrap_or_else(|| clock.map_or(1, |since| since.as_nanos() as u64)).max(1);
    let end = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(1));
    println!("FUZZ_SEED={seed}");
    let mut noise = Noise(seed);
    let mut inputs = 0u64;
    while Instant::now() < end {
        let (first, second) = (object(&mut noise), object(&mut noise));
        let asked = change(&mut noise);
        assert_eq!(Change::decode(asked.encode()).as_ref(), Ok(&asked));
        let encodings = [first.encode(), first.context().encode(), asked.encode(), second.encode()];
        for good in &encodings {
            check(good, &second);
            for _ in 0..16 {
                check(&damaged(&mut noise, good, &encodings[3]), &second);
                inputs += 1;
            }
        }
    }
    println!("{inputs} inputs");
}

//! Counts and sums kept across a clean stop, so that the next start need not look at everything that is here.
//!
//! They are written as the last thing before the engine is closed, and taken away durably before the next start writes
//! anything. So they are there only if they are those of what is in the engine: after a crash nothing is kept, and
//! everything is counted anew.

use super::{Counters, Leaves, Overlay};
use crate::storage::{Change, Engine, EngineError, Space};
use bytes::{Buf, BufMut, Bytes, BytesMut};

const KEY: &[u8] = b"sums";
const VERSION: u8 = 1;

/// Takes up what a clean stop has kept. `None`: there is nothing, or nothing of use. Nothing is kept any more after this.
///
/// # Errors
/// When the engine fails.
pub(super) fn take(engine: &dyn Engine) -> Result<Option<(Counters, Leaves)>, EngineError> {
    let Some(kept) = engine.get(Space::Meta, KEY)? else { return Ok(None) };
    engine.commit(&[Change::Remove { space: Space::Meta, key: Bytes::from_static(KEY) }])?;
    let taken = decode(kept);
    if taken.is_none() {
        tracing::warn!("what was kept of the counts cannot be read; everything is counted anew");
    }
    Ok(taken)
}

/// Keeps the counts, once no commit can follow. Returns whether they were kept: not if something was counted that was
/// never committed.
///
/// # Errors
/// When the engine fails; then nothing is kept.
pub(super) fn keep(
    engine: &dyn Engine,
    overlay: &Overlay,
    counters: &Counters,
    leaves: &Leaves,
) -> Result<bool, EngineError> {
    // What is counted is pending until it is committed; both change under one lock. So if nothing is pending before
    // nor after the look at the counts, they are those of what was committed.
    if overlay.failed_commits() > 0 || overlay.has_pending() {
        return Ok(false);
    }
    let value = encode(counters, leaves);
    if overlay.has_pending() {
        return Ok(false);
    }
    engine.commit(&[Change::Put { space: Space::Meta, key: Bytes::from_static(KEY), value }])?;
    Ok(true)
}

pub(super) fn encode(counters: &Counters, leaves: &Leaves) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(VERSION);
    leaves.encode(&mut bytes);
    counters.encode(&mut bytes);
    let checksum = crc32fast::hash(&bytes);
    bytes.put_u32_le(checksum);
    bytes.freeze()
}

pub(super) fn decode(mut bytes: Bytes) -> Option<(Counters, Leaves)> {
    let checksum = bytes.split_off(bytes.len().checked_sub(4)?).get_u32_le();
    if checksum != crc32fast::hash(&bytes) || bytes.try_get_u8().ok()? != VERSION {
        return None;
    }
    let leaves = Leaves::decode(&mut bytes)?;
    let counters = Counters::decode(&mut bytes)?;
    bytes.is_empty().then_some((counters, leaves))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{Weight, storage_key};
    use dynamo::hlc::Hlc;
    use dynamo::object::{Actor, Object, Payload, Value};
    use dynamo::token::Token;

    fn counted() -> (Counters, Leaves) {
        let (counters, leaves) = (Counters::default(), Leaves::default());
        for number in 0..1000u64 {
            let token = Token(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let expires_at_ms = (number % 3 == 0).then_some(1_000_000 + number);
            let payload =
                if number % 5 == 0 { Payload::Tombstone } else { Payload::Bytes(Bytes::from_static(b"v")) };
            let value = Value { timestamp: Hlc::from_wall(number), expires_at_ms, payload };
            let object = Object::default().overwrite(Actor { incarnation: 1, birth: 1 }, value);
            counters.replace(token, Weight::default(), Weight::of(b"key", &object, 100));
            leaves.replace(&storage_key(token, b"key"), None, Some(&object.encode()));
        }
        (counters, leaves)
    }

    #[test]
    fn what_was_counted_comes_back_and_what_was_damaged_does_not() {
        let (counters, leaves) = counted();
        let encoded = encode(&counters, &leaves);
        let (again, sums) = decode(encoded.clone()).unwrap();
        assert_eq!(encode(&again, &sums), encoded);
        assert_eq!(again.total(), counters.total());
        assert!(again.total().items == 1000 && again.dead(0..16384) == counters.dead(0..16384));
        for cut in [0, 3, 4, 5, encoded.len() / 2, encoded.len() - 1] {
            assert!(decode(encoded.slice(..cut)).is_none(), "{cut}");
        }
        for at in [0, 1, 77_777, encoded.len() - 1] {
            let mut damaged = encoded.to_vec();
            damaged[at] ^= 1;
            assert!(decode(Bytes::from(damaged)).is_none(), "{at}");
        }
    }
}

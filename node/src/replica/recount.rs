//! Counting what is here from the engine: at the start, and what a failed commit has left uncertain.

use super::{Counters, Leaves, Overlay, Weight, split_storage_key};
use crate::storage::{Engine, EngineError, ScanRange, Space};
use bytes::Bytes;
use dynamo::object::Object;
use std::sync::Arc;

const PAGE_ITEMS_MAX: usize = 4096;
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Counts everything that is here, and sums its hashes up, in one pass over the disk, with as many threads as the engine
/// reads faster with.
///
/// # Errors
/// When the engine cannot be read.
pub(super) fn count(engine: &dyn Engine) -> Result<(Counters, Leaves), EngineError> {
    let (counters, leaves) = (Counters::default(), Leaves::default());
    let parts = parts(engine.scans_at_once());
    let count_part = |(first, last)| count_range(engine, ScanRange::tokens(first, last), &counters, &leaves);
    let (&mine, others) = parts.split_first().unwrap_or((&(0, u64::MAX), &[]));
    std::thread::scope(|threads| {
        let others: Vec<_> = others.iter().map(|&part| threads.spawn(move || count_part(part))).collect();
        let mut outcome = count_part(mine);
        for other in others {
            let counted = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome = outcome.and(counted);
        }
        outcome
    })?;
    Ok((counters, leaves))
}

/// All tokens, cut into so many ranges, both ends included.
fn parts(count: usize) -> Vec<(u64, u64)> {
    let count = count.max(1) as u64;
    let first = |part: u64| part * (u64::MAX / count);
    (0..count).map(|part| (first(part), if part + 1 == count { u64::MAX } else { first(part + 1) - 1 })).collect()
}

fn count_range(
    engine: &dyn Engine,
    mut range: ScanRange,
    counters: &Counters,
    leaves: &Leaves,
) -> Result<(), EngineError> {
    loop {
        let page = engine.scan(Space::Data, &range, PAGE_ITEMS_MAX, PAGE_BYTES_MAX)?;
        for (storage_key, value) in &page.items {
            let Some((token, key)) = split_storage_key(storage_key) else { continue };
            counters.replace(token, Weight::default(), weight(&key, Some(value)));
            leaves.replace(storage_key, None, Some(value));
        }
        match page.items.last() {
            Some((last, _)) if page.more => range.after = Some(last.clone()),
            _ => return Ok(()),
        }
    }
}

/// Has a key counted anew whose newest value a failed commit has taken back.
pub(super) fn correct_after_failures(
    overlay: &Overlay,
    engine: &Arc<dyn Engine>,
    counters: &Arc<Counters>,
    leaves: &Arc<Leaves>,
) {
    let (engine, counters, leaves) = (engine.clone(), counters.clone(), leaves.clone());
    overlay.tell_of_taken_back(Box::new(move |storage_key, counted| {
        let Some((token, key)) = split_storage_key(storage_key) else { return };
        // An engine that cannot be read is opened anew, and everything is counted then.
        let Ok(actual) = engine.get(Space::Data, storage_key) else { return };
        leaves.replace(storage_key, counted, actual.as_ref());
        counters.replace(token, weight(&key, counted), weight(&key, actual.as_ref()));
    }));
}

fn weight(key: &[u8], encoded: Option<&Bytes>) -> Weight {
    let object = encoded.and_then(|encoded| Some((Object::decode(encoded.clone()).ok()?, encoded.len())));
    object.map(|(object, bytes)| Weight::of(key, &object, bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::kept;
    use crate::storage::{FjallEngine, FjallOptions, MemoryEngine};
    use dynamo::hlc::Hlc;
    use dynamo::object::{Actor, Payload, Value};

    #[test]
    fn the_parts_are_all_tokens_once() {
        for count in [0, 1, 2, 3, 7, 64] {
            let parts = parts(count);
            assert_eq!(parts.len(), count.max(1));
            assert_eq!((parts[0].0, parts[parts.len() - 1].1), (0, u64::MAX));
            assert!(parts.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0));
        }
    }

    #[test]
    fn several_threads_count_what_one_counts() {
        let place = tempfile::tempdir().unwrap();
        let disk = FjallEngine::open(place.path(), &FjallOptions::default()).unwrap();
        let memory = MemoryEngine::new();
        let actor = Actor { incarnation: 1, birth: 1 };
        let changes: Vec<crate::storage::Change> = (0..10_000u64)
            .map(|number| {
                let token = dynamo::token::Token(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let payload = Payload::Bytes(Bytes::from(vec![7; usize::try_from(number % 50).unwrap()]));
                let value = Value { timestamp: Hlc::from_wall(number), expires_at_ms: None, payload };
                crate::storage::Change::Put {
                    space: Space::Data,
                    key: crate::replica::storage_key(token, b"key"),
                    value: Object::default().overwrite(actor, value).encode(),
                }
            })
            .collect();
        disk.commit(&changes).unwrap();
        memory.commit(&changes).unwrap();
        assert!(disk.scans_at_once() >= 1);
        let ((many, many_leaves), (one, one_leaves)) = (count(&disk).unwrap(), count(&memory).unwrap());
        assert_eq!(one.total().items, 10_000);
        assert_eq!(kept::encode(&many, &many_leaves), kept::encode(&one, &one_leaves));
    }
}

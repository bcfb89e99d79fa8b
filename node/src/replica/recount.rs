//! Counting what is here from the engine: at the start, and what a failed commit has left uncertain.

use super::{Counters, Leaves, Overlay, Weight, split_storage_key};
use crate::storage::{Engine, EngineError, ScanRange, Space};
use bytes::Bytes;
use dynamo::object::Object;
use std::sync::Arc;

const PAGE_ITEMS_MAX: usize = 4096;
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Counts everything that is here, and sums its hashes up, in one pass over the disk.
///
/// # Errors
/// When the engine cannot be read.
pub(super) fn count(engine: &dyn Engine) -> Result<(Counters, Leaves), EngineError> {
    let (counters, leaves) = (Counters::default(), Leaves::default());
    let mut range = ScanRange::tokens(0, u64::MAX);
    loop {
        let page = engine.scan(Space::Data, &range, PAGE_ITEMS_MAX, PAGE_BYTES_MAX)?;
        for (storage_key, value) in &page.items {
            let Some((token, key)) = split_storage_key(storage_key) else { continue };
            counters.replace(token, Weight::default(), weight(&key, Some(value)));
            leaves.replace(storage_key, None, Some(value));
        }
        match page.items.last() {
            Some((last, _)) if page.more => range.after = Some(last.clone()),
            _ => return Ok((counters, leaves)),
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

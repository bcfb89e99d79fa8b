//! Counting what is here from the engine: at the start, when the number of partitions changes, and what a failed
//! commit has left uncertain.

use super::{Counters, Leaves, Overlay, Replica, Weight, split_storage_key};
use crate::ring_state::RingState;
use crate::storage::{Engine, EngineError, ScanRange, Space};
use arc_swap::ArcSwap;
use bytes::Bytes;
use dynamo::object::Object;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

const PAGE_ITEMS_MAX: usize = 4096;
const PAGE_BYTES_MAX: usize = 4 << 20;

impl Replica {
    /// Makes counters and birth floors fit the installed ring's number of partitions.
    ///
    /// # Errors
    /// When the engine cannot be read; the counters stay as they were.
    pub fn fit_ring(&self) -> Result<(), EngineError> {
        let Some(installed) = self.ring.load() else { return Ok(()) };
        let partitions = installed.view.count().get() as usize;
        if self.birth_floors.load().len() == partitions {
            return Ok(());
        }
        let counters = Counters::new(partitions);
        let mut range = ScanRange::tokens(0, u64::MAX);
        loop {
            let page = self.engine.scan(Space::Data, &range, PAGE_ITEMS_MAX, PAGE_BYTES_MAX)?;
            for (storage_key, value) in &page.items {
                let Some((token, key)) = split_storage_key(storage_key) else { continue };
                let Ok(object) = Object::decode(value.clone()) else { continue };
                let weight = Weight::of(&key, &object, value.len());
                counters.replace(installed.view.partition(token), Weight::default(), weight);
            }
            match page.items.last() {
                Some((last, _)) if page.more => range.after = Some(last.clone()),
                _ => break,
            }
        }
        self.counters.store(Arc::new(counters));
        let floor = self.births.next();
        self.birth_floors.store(Arc::new((0..partitions).map(|_| AtomicU64::new(floor)).collect()));
        Ok(())
    }
}

/// Has a key counted anew whose newest value a failed commit has taken back.
pub(super) fn correct_after_failures(
    overlay: &Overlay,
    engine: &Arc<dyn Engine>,
    ring: &Arc<RingState>,
    counters: &Arc<ArcSwap<Counters>>,
    leaves: &Arc<Leaves>,
) {
    // Weak: the ring holds the committer, whose callback holds the overlay.
    let (engine, ring, counters, leaves) =
        (engine.clone(), Arc::downgrade(ring), counters.clone(), leaves.clone());
    overlay.tell_of_taken_back(Box::new(move |storage_key, counted| {
        // An engine that cannot be read is opened anew, and everything is counted then.
        let Ok(actual) = engine.get(Space::Data, storage_key) else { return };
        leaves.replace(storage_key, counted, actual.as_ref());
        let Some(installed) = ring.upgrade().and_then(|ring| ring.load()) else { return };
        let Some((token, key)) = split_storage_key(storage_key) else { return };
        let partition = installed.view.partition(token);
        counters.load().replace(partition, weight(&key, counted), weight(&key, actual.as_ref()));
    }));
}

fn weight(key: &[u8], encoded: Option<&Bytes>) -> Weight {
    let object = encoded.and_then(|encoded| Some((Object::decode(encoded.clone()).ok()?, encoded.len())));
    object.map(|(object, bytes)| Weight::of(key, &object, bytes)).unwrap_or_default()
}

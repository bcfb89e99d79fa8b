//! Counting what is here from the engine: at the start, and when the number of partitions changes.

use super::{Counters, Replica, Weight, split_storage_key};
use crate::storage::{EngineError, ScanRange, Space};
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

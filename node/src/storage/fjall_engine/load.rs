//! Runs of new objects as tables of their own: neither the journal nor the table in memory sees them, so each byte is
//! written once, and costs a third of the processor time.
//!
//! What keeps it cheap is that a table of keys between which the store has none overlaps no other: the tree takes it to
//! its last level without writing it again. Hence a run is loaded only where nothing is from its first key to its last,
//! and whoever copies much does so in the order of the keys.

use super::FjallEngine;
use crate::storage::engine::{Change, Engine, EngineError, ScanRange};
use fjall::Keyspace;

/// A run of fewer bytes is committed like anything else: for many small tables a tree pays with every read.
const TABLE_BYTES_MIN: usize = 512 << 10;

impl FjallEngine {
    /// Where a run is to be loaded; `None`: it has to be committed, since something lies between its keys, or it is small,
    /// or no run at all.
    pub(super) fn free_for(&self, run: &[Change]) -> Result<Option<&Keyspace>, EngineError> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(None) };
        let space = first.space();
        let is_put = |change: &Change| matches!(change, Change::Put { .. }) && change.space() == space;
        let ascends = run.is_sorted_by(|one, next| one.key() < next.key());
        if run.iter().map(Change::len_bytes).sum::<usize>() < TABLE_BYTES_MIN
            || !ascends
            || !run.iter().all(is_put)
        {
            return Ok(None);
        }
        let there = self.scan(space, &ScanRange::through(first.key(), last.key()), 1, 1)?;
        Ok(there.items.is_empty().then(|| self.keyspace(space)))
    }
}

/// Stores a run as tables; durable once this has returned.
pub(super) fn as_tables(keyspace: &Keyspace, run: &[Change]) -> Result<(), fjall::Error> {
    // An ingestion would write out the table in memory by itself, and forget to say that its memory is free again.
    keyspace.rotate_memtable_and_wait()?;
    let mut ingestion = keyspace.start_ingestion()?;
    for change in run {
        if let Change::Put { key, value, .. } = change {
            ingestion.write(key.as_ref(), value.as_ref())?;
        }
    }
    ingestion.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{FjallOptions, Space};
    use bytes::Bytes;
    use std::path::Path;

    const VALUE_BYTES: usize = 4096;
    /// Objects of a run that is long enough for tables.
    const LONG: u32 = 1000;

    fn open(directory: &Path) -> FjallEngine {
        FjallEngine::open(directory, &FjallOptions::default()).unwrap()
    }

    fn key(number: u32) -> Bytes {
        Bytes::copy_from_slice(&number.to_be_bytes())
    }

    fn put(number: u32, with: u8) -> Change {
        Change::Put { space: Space::Data, key: key(number), value: Bytes::from(vec![with; VALUE_BYTES]) }
    }

    fn run(numbers: std::ops::Range<u32>) -> Vec<Change> {
        numbers.map(|number| put(number, 1)).collect()
    }

    fn tables(engine: &FjallEngine) -> usize {
        engine.keyspace(Space::Data).table_count()
    }

    #[test]
    fn a_long_run_becomes_a_table_that_later_writes_go_before() {
        let place = tempfile::tempdir().unwrap();
        let engine = open(place.path());
        engine.commit(&[put(LONG + 5, 7)]).unwrap();
        engine.load(&run(0..LONG)).unwrap();
        assert_eq!(engine.database.write_buffer_size(), 0, "what was in memory is accounted for");
        assert!(tables(&engine) >= 2);
        engine.commit(&[put(3, 2), Change::Remove { space: Space::Data, key: key(4) }]).unwrap();
        engine.load(&run(2 * LONG..3 * LONG)).unwrap();
        let check = |engine: &FjallEngine| {
            let found = |number| engine.get(Space::Data, &key(number)).unwrap().map(|value| value[0]);
            let numbers = [0, 3, 4, LONG - 1, LONG, LONG + 5, 2 * LONG, 3 * LONG - 1];
            assert_eq!(numbers.map(found), [Some(1), Some(2), None, Some(1), None, Some(7), Some(1), Some(1)]);
            let all = engine.scan(Space::Data, &ScanRange::everything(), usize::MAX, usize::MAX).unwrap();
            assert_eq!(all.items.len(), 2 * LONG as usize);
        };
        check(&engine);
        drop(engine);
        check(&open(place.path()));
    }

    #[test]
    fn a_run_is_committed_where_anything_lies_between_its_keys() {
        let place = tempfile::tempdir().unwrap();
        let engine = open(place.path());
        for there in [0, LONG / 2, LONG - 1] {
            engine.commit(&[put(there, 7)]).unwrap();
            assert!(engine.free_for(&run(0..LONG)).unwrap().is_none(), "{there}");
            engine.commit(&[Change::Remove { space: Space::Data, key: key(there) }]).unwrap();
        }
        assert!(engine.free_for(&run(0..LONG)).unwrap().is_some(), "what was removed is no hindrance");
        engine.commit(&[put(LONG / 2, 7)]).unwrap();
        engine.load(&run(0..LONG)).unwrap();
        assert_eq!(tables(&engine), 0);
        assert_eq!(engine.get(Space::Data, &key(LONG / 2)).unwrap().unwrap()[0], 1);
    }

    #[test]
    fn what_is_short_or_no_run_is_committed() {
        let place = tempfile::tempdir().unwrap();
        let engine = open(place.path());
        let mut unsorted = run(0..LONG);
        unsorted.swap(0, 1);
        let mut removes = run(0..LONG);
        removes[9] = Change::Remove { space: Space::Data, key: key(9) };
        let mut elsewhere = run(0..LONG);
        elsewhere[9] = Change::Put { space: Space::Hints, key: key(9), value: Bytes::new() };
        for no_run in [run(0..0), run(0..9), unsorted, removes, elsewhere] {
            assert!(engine.free_for(&no_run).unwrap().is_none());
        }
    }
}

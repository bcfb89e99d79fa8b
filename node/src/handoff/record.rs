//! What this node remembers of its moves across restarts: cursors, completed moves, bytes received.

use crate::storage::{Change, Engine, EngineError, ScanRange, Space};
use bytes::Bytes;
use std::collections::BTreeSet;

const CURSOR: u8 = b'c';
const SYNCED: u8 = b's';
const PREFIX: &[u8] = b"move";
const MOVED: &[u8] = b"moved";

/// One step of the move of one partition: the `since` of its filling entry names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MoveRecord {
    /// The partition.
    pub partition: u32,
    /// Epoch in which the filling entry was published.
    pub since: u64,
}

/// How far the copying of a partition is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Low half of the incarnation that everything so far was copied from, or [`SEVERAL_SOURCES`].
    pub source: u64,
    /// Storage key of the last item received.
    pub after: Bytes,
}

/// In place of a source: no one holder's items are all here, up to where the cursor is.
pub(super) const SEVERAL_SOURCES: u64 = 0;

/// Bytes and items received by the moves of one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MovedTotal {
    /// `since` of the target.
    pub since: u64,
    /// Bytes of keys and objects received.
    pub bytes: u64,
    /// Items received.
    pub items: u64,
}

impl MoveRecord {
    fn key(self, kind: u8) -> Bytes {
        let mut key = Vec::with_capacity(17);
        key.extend_from_slice(PREFIX);
        key.push(kind);
        key.extend_from_slice(&self.partition.to_be_bytes());
        key.extend_from_slice(&self.since.to_be_bytes());
        Bytes::from(key)
    }

    pub(super) fn put_cursor(self, cursor: &Cursor) -> Change {
        let mut value = cursor.source.to_be_bytes().to_vec();
        value.extend_from_slice(&cursor.after);
        Change::Put { space: Space::Meta, key: self.key(CURSOR), value: Bytes::from(value) }
    }

    pub(super) fn cursor(self, engine: &dyn Engine) -> Result<Option<Cursor>, EngineError> {
        let value = engine.get(Space::Meta, &self.key(CURSOR))?;
        Ok(value.and_then(|value| {
            let source = u64::from_be_bytes(*value.first_chunk::<8>()?);
            Some(Cursor { source, after: value.slice(8..) })
        }))
    }

    /// Under which key of [`Space::Meta`] it is written down that the move is complete.
    #[must_use]
    pub fn synced_key(self) -> Bytes {
        self.key(SYNCED)
    }

    pub(super) fn put_synced(self) -> Change {
        Change::Put { space: Space::Meta, key: self.synced_key(), value: Bytes::new() }
    }

    pub(super) fn forget(self) -> [Change; 2] {
        [CURSOR, SYNCED].map(|kind| Change::Remove { space: Space::Meta, key: self.key(kind) })
    }
}

impl MovedTotal {
    pub(super) fn put(self) -> Change {
        let mut value = Vec::with_capacity(24);
        for number in [self.since, self.bytes, self.items] {
            value.extend_from_slice(&number.to_be_bytes());
        }
        Change::Put { space: Space::Meta, key: Bytes::from_static(MOVED), value: Bytes::from(value) }
    }

    pub(super) fn read(engine: &dyn Engine) -> Result<Self, EngineError> {
        let value = engine.get(Space::Meta, MOVED)?;
        let number = |at: usize| {
            let bytes = value.as_ref()?.get(at * 8..at * 8 + 8)?;
            bytes.try_into().ok().map(u64::from_be_bytes)
        };
        let read = || Some(Self { since: number(0)?, bytes: number(1)?, items: number(2)? });
        Ok(read().unwrap_or_default())
    }
}

/// Every move recorded as complete, and every move of which anything is recorded.
pub(super) fn recorded(engine: &dyn Engine) -> Result<(BTreeSet<MoveRecord>, BTreeSet<MoveRecord>), EngineError> {
    let (mut synced, mut all) = (BTreeSet::new(), BTreeSet::new());
    let mut range = ScanRange::prefix(PREFIX);
    loop {
        let page = engine.scan(Space::Meta, &range, 4096, 1 << 20)?;
        for (key, _) in &page.items {
            let Some((kind, record)) = parse(key) else { continue };
            all.insert(record);
            if kind == SYNCED {
                synced.insert(record);
            }
        }
        match page.items.last() {
            Some((last, _)) if page.more => range.after = Some(last.clone()),
            _ => return Ok((synced, all)),
        }
    }
}

fn parse(key: &[u8]) -> Option<(u8, MoveRecord)> {
    let rest = key.strip_prefix(PREFIX)?;
    let (kind, rest) = rest.split_first()?;
    let partition = u32::from_be_bytes(*rest.first_chunk::<4>()?);
    let since = u64::from_be_bytes(rest.get(4..12)?.try_into().ok()?);
    Some((*kind, MoveRecord { partition, since }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryEngine;
    use annulus_fuzz::{damaged, fuzz};

    #[test]
    fn records_survive_anything_beside_them() {
        fuzz("records of moves", |noise| {
            let engine = MemoryEngine::new();
            let record = MoveRecord { partition: noise.number() as u32, since: noise.number() };
            let cursor = Cursor { source: noise.number(), after: noise.bytes(9).into() };
            let total = MovedTotal { since: noise.number(), bytes: noise.number(), items: noise.number() };
            let good = [record.put_cursor(&cursor), record.put_synced(), total.put()];
            engine.commit(&good).unwrap();
            assert_eq!(record.cursor(&engine).unwrap(), Some(cursor.clone()));
            assert_eq!(MovedTotal::read(&engine).unwrap(), total);
            let only = BTreeSet::from([record]);
            assert_eq!(recorded(&engine).unwrap(), (only.clone(), only));
            for change in good {
                let Change::Put { space, key, value } = change else { continue };
                let damaged_key = Bytes::from(damaged(noise, &key, &value));
                let value = Bytes::from(damaged(noise, &value, &key));
                engine.commit(&[Change::Put { space, key, value: value.clone() }]).unwrap();
                if !damaged_key.is_empty() {
                    engine.commit(&[Change::Put { space, key: damaged_key, value }]).unwrap();
                }
            }
            let (synced, all) = recorded(&engine).unwrap();
            assert!(all.contains(&record) && synced.is_subset(&all));
            for record in all {
                let _ = record.cursor(&engine).unwrap();
                engine.commit(&record.forget()).unwrap();
            }
            let _ = MovedTotal::read(&engine).unwrap();
        });
    }
}

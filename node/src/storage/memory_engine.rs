//! An engine in memory, for tests and simulation. It outlives the node that uses it as a disk does.

use super::engine::{Change, DiskSpace, Engine, EngineError, Page, ScanRange, Space, check_keys};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound;

/// An engine in memory whose disk fills, fails and breaks as told.
#[derive(Debug)]
pub struct MemoryEngine(Mutex<State>);

#[derive(Debug)]
struct State {
    spaces: [BTreeMap<Bytes, Bytes>; 3],
    disk: DiskSpace,
    failures_left: u32,
    broken: bool,
    commits: u64,
    loaded: usize,
    scanned: [Scanned; 3],
}

/// What has been read from a keyspace, but for single keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Calls of [`Engine::scan`].
    pub scans: u64,
    /// Items that they brought.
    pub items: u64,
}

impl Default for MemoryEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryEngine {
    /// An empty engine on a disk of a pebibyte.
    #[must_use]
    pub fn new() -> Self {
        let disk = DiskSpace { bytes_free: 1 << 50, bytes_total: 1 << 50 };
        Self(Mutex::new(State {
            spaces: Default::default(),
            disk,
            failures_left: 0,
            broken: false,
            commits: 0,
            loaded: 0,
            scanned: Default::default(),
        }))
    }

    /// What the disk reports from now on. Commits do not change it.
    pub fn set_disk(&self, disk: DiskSpace) {
        self.0.lock().disk = disk;
    }

    /// Fails as many of the next commits, with nothing written.
    pub fn fail_commits(&self, commits: u32) {
        self.0.lock().failures_left = commits;
    }

    /// Breaks the engine, or has it opened anew: what was committed is still there.
    pub fn set_broken(&self, broken: bool) {
        self.0.lock().broken = broken;
    }

    /// Number of commits carried out.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.0.lock().commits
    }

    /// Number of objects that were loaded as runs.
    #[must_use]
    pub fn loaded(&self) -> usize {
        self.0.lock().loaded
    }

    /// What has been read from a keyspace.
    #[must_use]
    pub fn scanned(&self, space: Space) -> Scanned {
        self.0.lock().scanned[space as usize]
    }

    /// Number of keys of a keyspace.
    #[must_use]
    pub fn len(&self, space: Space) -> usize {
        self.0.lock().spaces[space as usize].len()
    }

    /// Whether a keyspace has no keys.
    #[must_use]
    pub fn is_empty(&self, space: Space) -> bool {
        self.len(space) == 0
    }
}

impl Engine for MemoryEngine {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.0.lock().spaces[space as usize].get(key).cloned())
    }

    fn commit(&self, changes: &[Change]) -> Result<(), EngineError> {
        check_keys(changes)?;
        let mut state = self.0.lock();
        if state.broken {
            return Err(EngineError::Broken("told to be broken".to_owned()));
        }
        if state.failures_left > 0 {
            state.failures_left -= 1;
            return Err(EngineError::Commit("told to fail".to_owned()));
        }
        for change in changes {
            match change {
                Change::Put { space, key, value } => {
                    state.spaces[*space as usize].insert(key.clone(), value.clone());
                }
                Change::Remove { space, key } => {
                    state.spaces[*space as usize].remove(key);
                }
            }
        }
        state.commits += 1;
        Ok(())
    }

    fn load(&self, run: &[Change]) -> Result<(), EngineError> {
        // What another engine would store wrongly is no run for this one, either.
        let state = self.0.lock();
        let is_new = |change: &Change| !state.spaces[change.space() as usize].contains_key(change.key());
        if !run.is_sorted_by(|one, next| one.key() < next.key()) || !run.iter().all(is_new) {
            return Err(EngineError::Broken("told to load what is no run of new objects".to_owned()));
        }
        drop(state);
        self.commit(run)?;
        self.0.lock().loaded += run.len();
        Ok(())
    }

    fn scan(
        &self,
        space: Space,
        range: &ScanRange,
        items_max: usize,
        bytes_max: usize,
    ) -> Result<Page, EngineError> {
        let mut page = Page::default();
        if range.is_empty() {
            return Ok(page);
        }
        let from = match &range.after {
            Some(after) if *after >= range.first => Bound::Excluded(after),
            _ => Bound::Included(&range.first),
        };
        let to = range.until.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut bytes = 0;
        let mut state = self.0.lock();
        for (key, value) in state.spaces[space as usize].range::<Bytes, _>((from, to)) {
            if !page.items.is_empty() && (page.items.len() >= items_max || bytes >= bytes_max) {
                page.more = true;
                break;
            }
            bytes += key.len() + value.len();
            page.items.push((key.clone(), value.clone()));
        }
        let scanned = &mut state.scanned[space as usize];
        scanned.scans += 1;
        scanned.items += page.items.len() as u64;
        Ok(page)
    }

    fn disk(&self) -> Result<DiskSpace, EngineError> {
        Ok(self.0.lock().disk)
    }

    fn health(&self) -> Result<(), EngineError> {
        if self.0.lock().broken { Err(EngineError::Broken("told to be broken".to_owned())) } else { Ok(()) }
    }
}

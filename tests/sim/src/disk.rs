//! A disk under a storage engine, that forgets what was not synced when the power goes.
//!
//! Commits are appended to a log segment and then synced, as a journal on a file system is. A segment that is full is
//! followed by a new file, whose name is safe only once its directory is synced too. A process that crashes leaves all
//! it has written; a power loss takes what was not synced, save for some of its beginning.

use annulus_node::handoff::Memory;
use annulus_node::storage::{Change, DiskSpace, Engine, EngineError, Page, ScanRange, Space};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Commits in one segment of the log.
const SEGMENT_COMMITS: usize = 64;

/// Hears of every commit that was written.
pub type OnCommit = Arc<dyn Fn(&[Change]) + Send + Sync>;

type Spaces = [BTreeMap<Bytes, Bytes>; 3];

/// A disk with an engine's data.
pub struct Disk {
    state: Mutex<State>,
    /// Pages that a process has kept aside.
    spool: Mutex<Memory>,
    on_commit: OnCommit,
}

struct State {
    /// What the engine reads.
    written: Spaces,
    /// What a power loss leaves.
    synced: Spaces,
    /// Commits that were written and not synced, oldest first.
    unsynced: Vec<Vec<Change>>,
    segment_commits: usize,
    /// The segment's file has a name that survives.
    segment_named: bool,
    space: DiskSpace,
    failures_left: u32,
    /// Whether commits that fail have been written all the same.
    failures_write: bool,
    habits: Habits,
}

/// What the software above the disk does, or forgets to do. All true in a correct engine.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// A commit is synced before it returns.
    pub syncs: bool,
    /// The directory is synced after a file was made in it.
    pub syncs_directory: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self { syncs: true, syncs_directory: true }
    }
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub fn new(habits: Habits, on_commit: OnCommit) -> Arc<Self> {
        let space = DiskSpace { bytes_free: 1 << 40, bytes_total: 1 << 40 };
        let state = State {
            written: Spaces::default(),
            synced: Spaces::default(),
            unsynced: Vec::new(),
            segment_commits: 0,
            segment_named: true,
            space,
            failures_left: 0,
            failures_write: false,
            habits,
        };
        Arc::new(Self { state: Mutex::new(state), spool: Mutex::default(), on_commit })
    }

    /// What a process keeps aside, and finds when it starts.
    #[must_use]
    pub fn spool(&self) -> Memory {
        self.spool.lock().clone()
    }

    /// The process is about to be killed: what its end would still do to what it keeps aside is not done.
    pub fn leave_spool(&self) {
        let mut spool = self.spool.lock();
        let left = spool.lock().clone();
        *spool = Arc::new(Mutex::new(left));
    }

    /// The power goes: of what was not synced the first `kept` commits stay, or all if there are fewer.
    pub fn lose_power(&self, kept: usize) {
        // Pages are of one start of the host.
        *self.spool.lock() = Memory::default();
        let mut state = self.state.lock();
        let kept = if state.segment_named { kept.min(state.unsynced.len()) } else { 0 };
        let survivors: Vec<Vec<Change>> = state.unsynced.drain(..).take(kept).collect();
        for changes in &survivors {
            apply(&mut state.synced, changes);
        }
        state.written = state.synced.clone();
        state.segment_named = true;
        state.segment_commits = 0;
    }

    /// Fails as many of the next commits; those may have been written or not.
    pub fn fail_commits(&self, commits: u32, written: bool) {
        let mut state = self.state.lock();
        state.failures_left = commits;
        state.failures_write = written;
    }

    /// How much room the disk says it has.
    pub fn set_free(&self, bytes_free: u64) {
        self.state.lock().space.bytes_free = bytes_free;
    }

    /// What would be there after a power loss.
    #[must_use]
    pub fn synced(&self, space: Space, key: &[u8]) -> Option<Bytes> {
        self.state.lock().synced[space as usize].get(key).cloned()
    }

    /// What would be there after a power loss under all keys that are `key` behind a prefix of some bytes.
    #[must_use]
    pub fn synced_under(&self, space: Space, prefix_bytes: usize, key: &[u8]) -> Vec<Bytes> {
        let state = self.state.lock();
        let all = state.synced[space as usize].iter();
        all.filter(|(stored, _)| stored.get(prefix_bytes..) == Some(key)).map(|(_, value)| value.clone()).collect()
    }

    /// All of a keyspace that would be there after a power loss.
    #[must_use]
    pub fn all_synced(&self, space: Space) -> Vec<(Bytes, Bytes)> {
        let state = self.state.lock();
        state.synced[space as usize].iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl State {
    fn append(&mut self, changes: &[Change]) {
        if self.segment_commits == SEGMENT_COMMITS {
            self.segment_commits = 0;
            self.segment_named = self.habits.syncs_directory;
        }
        self.segment_commits += 1;
        apply(&mut self.written, changes);
        self.unsynced.push(changes.to_vec());
        if self.habits.syncs && self.segment_named {
            for changes in std::mem::take(&mut self.unsynced) {
                apply(&mut self.synced, &changes);
            }
        }
    }
}

impl Engine for Disk {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.state.lock().written[space as usize].get(key).cloned())
    }

    fn commit(&self, changes: &[Change]) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        let fails = state.failures_left > 0;
        if fails {
            state.failures_left -= 1;
        }
        if !fails || state.failures_write {
            state.append(changes);
            (self.on_commit)(changes);
        }
        if fails { Err(EngineError::Commit(String::from("an input/output error"))) } else { Ok(()) }
    }

    fn load(&self, run: &[Change]) -> Result<(), EngineError> {
        let state = self.state.lock();
        let is_new = |change: &Change| !state.written[change.space() as usize].contains_key(change.key());
        assert!(
            run.is_sorted_by(|one, next| one.key() < next.key()) && run.iter().all(is_new),
            "no run of new objects"
        );
        drop(state);
        self.commit(run)
    }

    fn scan(
        &self,
        space: Space,
        range: &ScanRange,
        items_max: usize,
        bytes_max: usize,
    ) -> Result<Page, EngineError> {
        let mut page = Page::default();
        let from = match &range.after {
            Some(after) if *after >= range.first => Bound::Excluded(after),
            _ => Bound::Included(&range.first),
        };
        let beyond = |key: &Bytes| range.until.as_ref().is_some_and(|until| key >= until);
        let state = self.state.lock();
        let mut bytes = 0;
        for (key, value) in state.written[space as usize].range::<Bytes, _>((from, Bound::Unbounded)) {
            if beyond(key) {
                break;
            }
            if !page.items.is_empty() && (page.items.len() >= items_max || bytes >= bytes_max) {
                page.more = true;
                break;
            }
            bytes += key.len() + value.len();
            page.items.push((key.clone(), value.clone()));
        }
        Ok(page)
    }

    fn disk(&self) -> Result<DiskSpace, EngineError> {
        Ok(self.state.lock().space)
    }
}

fn apply(spaces: &mut Spaces, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put { space, key, value } => {
                spaces[*space as usize].insert(key.clone(), value.clone());
            }
            Change::Remove { space, key } => {
                spaces[*space as usize].remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: usize) -> [Change; 1] {
        let key = Bytes::from(key.to_string());
        [Change::Put { space: Space::Data, value: key.clone(), key }]
    }

    fn keys_after_power_loss(habits: Habits, commits: usize, kept: usize) -> usize {
        let disk = Disk::new(habits, Arc::new(|_: &[Change]| {}));
        for key in 0..commits {
            disk.commit(&put(key)).unwrap();
        }
        assert_eq!(disk.scan(Space::Data, &ScanRange::everything(), 1000, 1 << 20).unwrap().items.len(), commits);
        disk.lose_power(kept);
        assert_eq!(disk.all_synced(Space::Data).len(), disk.state.lock().written[0].len());
        disk.all_synced(Space::Data).len()
    }

    #[test]
    fn a_power_loss_takes_what_was_not_synced_and_no_more() {
        assert_eq!(keys_after_power_loss(Habits::default(), 100, 0), 100);
        assert_eq!(keys_after_power_loss(Habits { syncs: false, ..Habits::default() }, 10, 3), 3);
        assert_eq!(keys_after_power_loss(Habits { syncs_directory: false, ..Habits::default() }, 100, 50), 64);
    }

    #[test]
    fn a_failed_commit_may_have_been_written() {
        let disk = Disk::new(Habits::default(), Arc::new(|_: &[Change]| {}));
        disk.fail_commits(1, false);
        assert!(disk.commit(&put(1)).is_err());
        disk.fail_commits(1, true);
        assert!(disk.commit(&put(2)).is_err());
        assert!(disk.commit(&put(3)).is_ok());
        let keys: Vec<Bytes> = disk.all_synced(Space::Data).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["2", "3"]);
    }
}

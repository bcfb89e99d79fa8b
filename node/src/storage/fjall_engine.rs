//! The engine on a disk: fjall, a log-structured merge tree.

mod load;

use super::engine::{Change, DiskSpace, Engine, EngineError, Page, ScanRange, See, Space, check_keys};
use super::journal_tail::LastBatch;
use bytes::Bytes;
use fjall::{
    CompressionType, Database, DatabaseBuilder, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode,
    UserKey, UserValue,
};
use std::fs::{self, File};
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the engine is asked whether its background work has failed.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The file that fjall takes for a sign that a store was created before.
const COMPLETE: &str = "version";

/// Most threads that read everything at a start.
const SCANS_AT_ONCE_MAX: usize = 8;

/// Values below this are copied out of the engine. Larger ones are handed out as they are, which costs an allocation
/// and keeps the block that they were read with in memory.
const COPY_BYTES_MAX: usize = 4096;

/// Bounds of the engine's memory and disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FjallOptions {
    /// Memory for blocks read, in bytes.
    pub cache_bytes: u64,
    /// Size at which a table of new objects in memory is written out, in bytes. Up to five such tables exist at once:
    /// one that takes writes, four that are being written out; then commits wait. Fixed when the data is created.
    pub write_buffer_bytes: u64,
    /// Disk that journals may take before tables in memory are written out just to free it, in bytes; at least 64 MiB.
    pub journal_bytes_max: u64,
    /// Threads that write out tables and compact. With one, it could wait for itself; see [`FjallEngine`].
    pub worker_threads: usize,
    /// Open files kept at hand.
    pub files_max: usize,
}

impl Default for FjallOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            write_buffer_bytes: 64 << 20,
            journal_bytes_max: 512 << 20,
            worker_threads: 4,
            files_max: 900,
        }
    }
}

/// A store in a directory, with one journal and one tree for each keyspace.
///
/// A commit is one write to the journal and one `fdatasync`. What fjall 3.1 does that its user must know:
/// * After a failed write it takes no more, and background work that fails (a full disk) has the same effect. A commit
///   that waits for that work then waits forever: hence [`Engine::health`], and a disk guard in front.
/// * Its workers queue work for each other through a bounded channel and wait when it is full, so there must be at
///   least two; and the first of them spins on compactions that all others are too busy for, so there are four.
/// * A crash while it creates a store leaves one that it neither opens nor creates anew; it is created aside here and
///   renamed.
/// * It panics on keys that it cannot hold; they are refused here.
pub struct FjallEngine {
    spaces: [Keyspace; 3],
    database: Database,
    directory: PathBuf,
    broken: Arc<AtomicBool>,
    watch: Option<(Sender<()>, JoinHandle<()>)>,
}

impl FjallEngine {
    /// Opens the store in a directory, or creates it.
    ///
    /// Everything that a commit has returned `Ok` for is there. A last commit that was cut off is dropped, all of it.
    ///
    /// # Errors
    /// [`EngineError::Open`].
    pub fn open(directory: &Path, options: &FjallOptions) -> Result<Self, EngineError> {
        let failed = |reason: String| EngineError::Open { directory: directory.display().to_string(), reason };
        if !directory.join(COMPLETE).exists() {
            create(directory, options).map_err(|error| failed(format!("creating it: {error}")))?;
        }
        let database = open_database(directory, options).map_err(&failed)?;
        let spaces = open_keyspaces(&database, options).map_err(|error| failed(error.to_string()))?;
        let broken = Arc::new(AtomicBool::new(false));
        let watch = start_watch(database.clone(), broken.clone()).map_err(|error| failed(error.to_string()))?;
        Ok(Self { spaces, database, directory: directory.to_owned(), broken, watch: Some(watch) })
    }

    /// Bytes of its files.
    #[must_use]
    pub fn disk_bytes_used(&self) -> u64 {
        let tables: u64 = self.spaces.iter().map(Keyspace::disk_space).sum();
        tables + self.database.journal_disk_space().unwrap_or_default()
    }

    fn broken_by(&self, error: &fjall::Error) -> EngineError {
        self.broken.store(true, Ordering::Relaxed);
        EngineError::Broken(error.to_string())
    }

    fn each(
        &self,
        space: Space,
        range: &ScanRange,
        mut see: impl FnMut(UserKey, UserValue) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        if range.is_empty() {
            return Ok(());
        }
        let from = match &range.after {
            Some(after) if *after >= range.first => Bound::Excluded(after),
            _ => Bound::Included(&range.first),
        };
        let to = range.until.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        for item in self.keyspace(space).range::<&Bytes, _>((from, to)) {
            let (key, value) = item.into_inner().map_err(unreadable)?;
            if see(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn keyspace(&self, space: Space) -> &Keyspace {
        &self.spaces[space as usize]
    }
}

impl Engine for FjallEngine {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.keyspace(space).get(key).map_err(unreadable)?.map(handed_out))
    }

    fn commit(&self, changes: &[Change]) -> Result<(), EngineError> {
        check_keys(changes)?;
        let batch = OwnedWriteBatch::with_capacity(self.database.clone(), changes.len());
        let mut batch = batch.durability(Some(PersistMode::SyncData));
        for change in changes {
            // Copied, so that a small value does not keep the large buffer that it was received in.
            match change {
                Change::Put { space, key, value } => {
                    batch.insert(self.keyspace(*space), key.as_ref(), value.as_ref());
                }
                Change::Remove { space, key } => batch.remove(self.keyspace(*space), key.as_ref()),
            }
        }
        batch.commit().map_err(|error| self.broken_by(&error))
    }

    fn load(&self, run: &[Change]) -> Result<(), EngineError> {
        check_keys(run)?;
        match self.free_for(run)? {
            Some(keyspace) => load::as_tables(keyspace, run).map_err(|error| self.broken_by(&error)),
            None => self.commit(run),
        }
    }

    fn scan(
        &self,
        space: Space,
        range: &ScanRange,
        items_max: usize,
        bytes_max: usize,
    ) -> Result<Page, EngineError> {
        let mut page = Page::default();
        let mut bytes = 0;
        self.each(space, range, |key, value| {
            if !page.items.is_empty() && (page.items.len() >= items_max || bytes >= bytes_max) {
                page.more = true;
                return ControlFlow::Break(());
            }
            bytes += key.len() + value.len();
            page.items.push((handed_out(key), handed_out(value)));
            ControlFlow::Continue(())
        })?;
        Ok(page)
    }

    fn visit(&self, space: Space, range: &ScanRange, see: &mut See<'_>) -> Result<(), EngineError> {
        self.each(space, range, |key, value| see(&key, &value))
    }

    fn scans_at_once(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from).min(SCANS_AT_ONCE_MAX)
    }

    fn disk(&self) -> Result<DiskSpace, EngineError> {
        let stat =
            nix::sys::statvfs::statvfs(&self.directory).map_err(|error| EngineError::Disk(error.to_string()))?;
        let fragment_bytes = stat.fragment_size();
        // What is in memory tables only is in the journal too, but has yet to be written once more, as tables.
        let bytes_owed = self.database.write_buffer_size();
        Ok(DiskSpace {
            bytes_free: (stat.blocks_available() * fragment_bytes).saturating_sub(bytes_owed),
            bytes_total: stat.blocks() * fragment_bytes,
        })
    }

    fn health(&self) -> Result<(), EngineError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(EngineError::Broken("a write to disk has failed; see the log".to_owned()));
        }
        Ok(())
    }
}

impl Drop for FjallEngine {
    /// The watch holds the database open; without it the directory can be opened again as soon as this returns.
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.watch.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

/// Creates an empty store, all of it or nothing: fjall itself cannot open, nor create anew, what a crash has left of a
/// store half created.
fn create(directory: &Path, options: &FjallOptions) -> Result<(), fjall::Error> {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = directory.with_file_name(name);
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    let database = builder(&new, options).open()?;
    drop(open_keyspaces(&database, options)?);
    drop(database);
    nix::unistd::syncfs(File::open(&new)?).map_err(std::io::Error::from)?;
    fs::rename(&new, directory)?;
    Ok(File::open(directory.parent().unwrap_or(Path::new("/")))?.sync_all()?)
}

fn builder(directory: &Path, options: &FjallOptions) -> DatabaseBuilder<Database> {
    Database::builder(directory)
        .cache_size(options.cache_bytes)
        .max_journaling_size(options.journal_bytes_max.max(64 << 20))
        .worker_threads(options.worker_threads.max(2))
        .max_cached_files(Some(options.files_max.max(10)))
        // Values are compressed in the tables. In the journal it would only take the committer's time.
        .journal_compression(CompressionType::None)
}

fn open_keyspaces(database: &Database, options: &FjallOptions) -> Result<[Keyspace; 3], fjall::Error> {
    let open = |space: Space| database.keyspace(space.name(), || keyspace_options(space, options));
    Ok([open(Space::Data)?, open(Space::Hints)?, open(Space::Meta)?])
}

fn open_database(directory: &Path, options: &FjallOptions) -> Result<Database, String> {
    let open = || builder(directory, options).open();
    let damage = match open() {
        Err(fjall::Error::JournalRecovery(damage)) => damage,
        opened => return opened.map_err(|error| error.to_string()),
    };
    let failed = |error: std::io::Error| format!("{damage:?}, and the journal cannot be mended: {error}");
    let Some(last) = LastBatch::take_off(directory).map_err(failed)? else { return Err(format!("{damage:?}")) };
    let start = last.start();
    match open() {
        Ok(database) => {
            tracing::warn!(journal_bytes_left = start, "dropped a last commit that was never finished");
            last.discard().map_err(failed)?;
            Ok(database)
        }
        Err(error) => {
            last.put_back().map_err(failed)?;
            Err(format!("the journal is damaged before its last commit: {error}"))
        }
    }
}

fn keyspace_options(space: Space, options: &FjallOptions) -> KeyspaceCreateOptions {
    let write_buffer_bytes = match space {
        Space::Data => options.write_buffer_bytes,
        Space::Hints => options.write_buffer_bytes / 4,
        Space::Meta => options.write_buffer_bytes / 16,
    };
    KeyspaceCreateOptions::default().max_memtable_size(write_buffer_bytes.max(1 << 20))
}

/// Asks again and again whether fjall has given up, which it only says when it is asked to write.
fn start_watch(database: Database, broken: Arc<AtomicBool>) -> std::io::Result<(Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = mpsc::channel::<()>();
    let watch = move || {
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(WATCH_INTERVAL) {
            // Every commit has flushed the journal's buffer, so this writes nothing.
            if let Err(error) = database.persist(PersistMode::Buffer) {
                tracing::error!(%error, "the storage engine takes no more writes");
                broken.store(true, Ordering::Relaxed);
                return;
            }
        }
    };
    Ok((stop, std::thread::Builder::new().name("storage-watch".to_owned()).spawn(watch)?))
}

fn handed_out(value: UserValue) -> Bytes {
    if value.len() < COPY_BYTES_MAX { Bytes::copy_from_slice(&value) } else { Bytes::from_owner(value) }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn unreadable(error: fjall::Error) -> EngineError {
    EngineError::Read(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_of_a_store_half_created_is_no_hindrance() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("data");
        // What fjall makes first, and cannot make a second time.
        let half = place.path().join("data.new");
        fs::create_dir(&half).unwrap();
        fs::write(half.join("0.jnl"), [0; 4096]).unwrap();
        let put = Change::Put { space: Space::Meta, key: Bytes::from_static(b"k"), value: Bytes::new() };
        FjallEngine::open(&directory, &FjallOptions::default()).unwrap().commit(&[put]).unwrap();
        assert!(!half.exists());
        let engine = FjallEngine::open(&directory, &FjallOptions::default()).unwrap();
        assert!(engine.get(Space::Meta, b"k").unwrap().is_some());
    }

    #[test]
    fn large_values_and_small_ones_come_out_as_they_went_in() {
        let place = tempfile::tempdir().unwrap();
        let engine = FjallEngine::open(place.path(), &FjallOptions::default()).unwrap();
        for bytes in [0, 1, COPY_BYTES_MAX - 1, COPY_BYTES_MAX, 1 << 20] {
            let value = Bytes::from(vec![7; bytes]);
            let put = Change::Put { space: Space::Data, key: Bytes::from_static(b"k"), value: value.clone() };
            engine.commit(&[put]).unwrap();
            assert!(engine.get(Space::Data, b"k").unwrap() == Some(value));
        }
        assert!(engine.disk().unwrap().bytes_free < engine.disk().unwrap().bytes_total);
    }
}

//! Pages that have come and are not durable yet, written aside without waiting for the disk: what a process had that was
//! killed, the next one finds, and nobody sends it again. What was on its way when a host loses power is sent again.
//!
//! Each slot holds one page and is written over by a later one. Nothing tells a page that has landed from one that has not
//! but its place: copying goes on where a page begins only as long as the page has not landed. A page that is given up is
//! taken out at once, for what is in it may be collected from then on.

mod page;

pub(super) use page::{Items, SpooledPage};

use bytes::Bytes;
use page::Mark;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// Where Linux tells one start of the host from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Where pages are kept. `None`: nowhere, so that a process that is killed is sent again what was on its way.
#[derive(Clone)]
pub struct Spool(Option<Arc<Slots>>);

/// Slots in memory, for simulation: as long as a clone exists.
pub type Memory = Arc<Mutex<BTreeMap<u32, Bytes>>>;

struct Slots {
    place: Place,
    mark: Mark,
    taken: Mutex<BTreeSet<u32>>,
}

enum Place {
    Directory(PathBuf),
    Memory(Memory),
}

/// A page in a slot. Dropped, it is taken out, unless it has [landed](Kept::landed).
pub(super) struct Kept {
    slots: Arc<Slots>,
    slot: u32,
    landed: bool,
}

impl Spool {
    /// Keeps pages of this incarnation in files of a directory, until the host starts anew. Where that cannot be told, or
    /// the directory not be made, it keeps nothing.
    #[must_use]
    pub fn in_directory(directory: &Path, incarnation: Uuid) -> Self {
        let boot = || {
            fs::create_dir_all(directory)?;
            Uuid::parse_str(fs::read_to_string(BOOT_ID)?.trim()).map_err(io::Error::other)
        };
        match boot() {
            Ok(boot) => Self::new(Place::Directory(directory.to_owned()), Mark { boot, incarnation }),
            Err(error) => {
                tracing::warn!(%error, "pages on their way are not kept aside; a killed node is sent them again");
                Self(None)
            }
        }
    }

    /// Keeps pages of this incarnation in memory.
    #[must_use]
    pub fn in_memory(memory: Memory, incarnation: Uuid) -> Self {
        Self::new(Place::Memory(memory), Mark { boot: Uuid::nil(), incarnation })
    }

    fn new(place: Place, mark: Mark) -> Self {
        Self(Some(Arc::new(Slots { place, mark, taken: Mutex::default() })))
    }

    /// Whether it keeps anything at all.
    pub(super) fn keeps(&self) -> bool {
        self.0.is_some()
    }

    /// Keeps a page. `None` if it cannot be: then it is sent again, should the process be killed.
    pub(super) async fn keep(&self, page: &SpooledPage) -> Option<Kept> {
        let slots = self.0.clone()?;
        let header = page.header(slots.mark)?;
        let kept = Kept { slot: slots.take(), slots, landed: false };
        let kept = match &kept.slots.place {
            Place::Directory(directory) => {
                let (path, packed) = (path(directory, kept.slot), page.packed.clone());
                // It has the slot, so that it is emptied after it was written if nobody waits for that any more.
                let write = move || write(&path, &header, &packed).map(|()| kept);
                tokio::task::spawn_blocking(write).await.map_err(io::Error::other).flatten()
            }
            Place::Memory(memory) => {
                memory.lock().insert(kept.slot, [&header[..], &page.packed[..]].concat().into());
                Ok(kept)
            }
        };
        kept.map_err(|error| tracing::debug!(%error, "a page is not kept aside")).ok()
    }

    /// Every page that this incarnation has kept since the host started, and what is in it, in the order of their places.
    pub(super) fn found(&self) -> Vec<(SpooledPage, Items)> {
        let Some(slots) = &self.0 else { return Vec::new() };
        let all = slots.read_all();
        let mut pages: Vec<_> =
            all.into_iter().filter_map(|bytes| SpooledPage::parse(slots.mark, bytes)).collect();
        pages.sort_by(|(one, _), (other, _)| (one.record, &one.before).cmp(&(other.record, &other.before)));
        pages
    }

    /// Gives the room back that slots take which hold nothing of use.
    pub(super) fn clear(&self) {
        let Some(slots) = &self.0 else { return };
        let taken = slots.taken.lock();
        match &slots.place {
            Place::Memory(memory) => memory.lock().retain(|slot, _| taken.contains(slot)),
            Place::Directory(directory) => {
                let of_use: BTreeSet<PathBuf> = taken.iter().map(|&slot| path(directory, slot)).collect();
                for file in files(directory).filter(|file| !of_use.contains(file)) {
                    let _ = fs::remove_file(file);
                }
            }
        }
    }
}

impl Slots {
    fn take(&self) -> u32 {
        let mut taken = self.taken.lock();
        let free = (0..).find(|slot| !taken.contains(slot)).unwrap_or_default();
        taken.insert(free);
        free
    }

    fn read_all(&self) -> Vec<Bytes> {
        match &self.place {
            Place::Directory(directory) => {
                files(directory).filter_map(|file| Some(fs::read(file).ok()?.into())).collect()
            }
            Place::Memory(memory) => memory.lock().values().cloned().collect(),
        }
    }

    fn empty(&self, slot: u32) {
        match &self.place {
            // Of no use to anyone without its first bytes, and what fails here is there no more or cannot be read either.
            Place::Directory(directory) => {
                drop(OpenOptions::new().write(true).truncate(true).open(path(directory, slot)))
            }
            Place::Memory(memory) => drop(memory.lock().remove(&slot)),
        }
    }
}

impl Kept {
    /// It is durable where it belongs.
    pub(super) fn landed(mut self) {
        self.landed = true;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if !self.landed {
            self.slots.empty(self.slot);
        }
        self.slots.taken.lock().remove(&self.slot);
    }
}

fn path(directory: &Path, slot: u32) -> PathBuf {
    directory.join(slot.to_string())
}

fn files(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

/// Over what was there before: a file that keeps its length costs the file system least.
fn write(path: &Path, header: &[u8], packed: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all_at(header, 0)?;
    file.write_all_at(packed, header.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::record::MoveRecord;

    fn page(partition: u32, before: &'static str, item: &str) -> SpooledPage {
        let mut packer = crate::handoff::packed::Packer::new(64);
        packer.push(b"key", item.as_bytes());
        let (packed, checksum) = packer.finish();
        let record = MoveRecord { partition, since: 7 };
        SpooledPage { record, source: 3, before: before.into(), packed, checksum }
    }

    fn pages(spool: &Spool) -> Vec<SpooledPage> {
        spool.found().into_iter().map(|(page, _)| page).collect()
    }

    fn found(spool: &Spool) -> Vec<(u32, Bytes)> {
        pages(spool).into_iter().map(|page| (page.record.partition, page.before)).collect()
    }

    #[tokio::test]
    async fn the_next_process_finds_what_was_not_given_up() {
        let place = tempfile::tempdir().unwrap();
        let (me, memory) = (Uuid::from_u128(1), Memory::default());
        let open: [&dyn Fn(Uuid) -> Spool; 2] =
            [&|me| Spool::in_directory(place.path(), me), &|me| Spool::in_memory(memory.clone(), me)];
        for open in open {
            let spool = open(me);
            let second = spool.keep(&page(2, "b", "two")).await.unwrap();
            let first = spool.keep(&page(2, "a", "one")).await.unwrap();
            let given_up = spool.keep(&page(1, "", "none")).await.unwrap();
            drop(given_up);
            assert_eq!(pages(&spool), [page(2, "a", "one"), page(2, "b", "two")]);
            first.landed();
            assert_eq!(found(&open(me)).len(), 2, "whoever reads it knows that it has landed");
            let third = spool.keep(&page(3, "", "in its place")).await.unwrap();
            assert_eq!(found(&open(me)), [(2, "b".into()), (3, "".into())]);
            assert!(found(&open(Uuid::from_u128(2))).is_empty(), "another's");
            third.landed();
            spool.clear();
            assert_eq!(found(&open(me)), [(2, "b".into())]);
            drop(second);
            spool.clear();
            assert!(spool.0.as_ref().unwrap().read_all().is_empty());
        }
    }

    #[tokio::test]
    async fn what_was_only_half_written_is_none() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::in_directory(place.path(), Uuid::nil());
        std::mem::forget(spool.keep(&page(2, "a", "longer than")).await.unwrap());
        let file = files(place.path()).next().unwrap();
        let whole = fs::read(&file).unwrap();
        let shorter = page(2, "a", "the next");
        let header = shorter.header(spool.0.as_ref().unwrap().mark).unwrap();
        write(&file, &header, &[]).unwrap();
        assert!(spool.found().is_empty(), "its header is there, and the content of another");
        write(&file, &header, &shorter.packed).unwrap();
        assert_eq!(pages(&spool), [shorter], "whatever is behind it");
        fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        assert!(spool.found().is_empty());
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_keeps_nothing() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        let spool = Spool::in_directory(&file, Uuid::nil());
        assert!(!spool.keeps() && spool.keep(&page(1, "", "")).await.is_none() && spool.found().is_empty());
        let gone = place.path().join("gone");
        let spool = Spool::in_directory(&gone, Uuid::nil());
        fs::remove_dir(&gone).unwrap();
        assert!(spool.keep(&page(1, "", "")).await.is_none());
        assert!(spool.0.as_ref().unwrap().taken.lock().is_empty());
        spool.clear();
    }
}

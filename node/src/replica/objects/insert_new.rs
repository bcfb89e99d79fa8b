//! Many objects at once where there are none: nothing is read for each of them, and they are committed together, or
//! loaded as a run.

use super::{Known, Objects, PageBounds};
use crate::storage::{Change, EngineError, KEY_BYTES_MAX, Reservation, ScanRange, Submitted};
use bytes::Bytes;

/// Whether anything is there.
const ONE: PageBounds = PageBounds { items: 1, bytes: 1 };

/// An object to be stored where none is.
pub struct NewObject {
    key: Bytes,
    known: Known,
}

impl NewObject {
    /// An object under its storage key. Its bytes are kept as they are; hashed here, before anything is locked.
    #[must_use]
    pub fn new(key: Bytes, value: Bytes) -> Self {
        Self { known: Known::new(&key, value), key }
    }

    /// Its storage key.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        &self.key
    }
}

/// How objects get into the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As a commit, with their records: all or none.
    Commit,
    /// As a run, which costs less if it is long, but more flushes.
    Run,
}

impl Objects {
    /// Stores objects, in ascending order of their keys, if there is nothing from the first key to the last and `admit`,
    /// called with all keys locked, does not say `None`; and with them the records that it returns, which are durable only
    /// when the objects are. `None`: something is there, or may be; nothing was stored.
    ///
    /// What was decided under the locks holds for the objects' place in the queue; see [`Objects::update`].
    ///
    /// # Errors
    /// Those of the engine and of `admit`; nothing was stored.
    pub fn insert_new<E: From<EngineError>>(
        &self,
        objects: &[NewObject],
        way: Way,
        reservation: Reservation,
        admit: impl FnOnce() -> Result<Option<Vec<Change>>, E>,
    ) -> Result<Option<Submitted>, E> {
        let (Some(first), Some(last)) = (objects.first(), objects.last()) else { return Ok(None) };
        // One key that the engine cannot hold fails all that is submitted with it.
        let too_long = |object: &NewObject| object.key.len() > KEY_BYTES_MAX;
        if !objects.is_sorted_by(|one, next| one.key < next.key) || objects.iter().any(too_long) {
            return Ok(None);
        }
        let range = ScanRange::through(&first.key, &last.key);
        let Some((page, mut shards)) = self.lock_all_as_read(&range, ONE)? else { return Ok(None) };
        if !page.items.is_empty() {
            return Ok(None);
        }
        let pending =
            |object: &NewObject| shards[self.overlay.place(&object.key)].pending.contains_key(&object.key);
        if objects.iter().any(pending) {
            return Ok(None);
        }
        let Some(records) = admit()? else { return Ok(None) };
        let mut changes = Vec::with_capacity(objects.len() + records.len());
        for NewObject { key, known } in objects {
            self.note(key, None, Some(known.hash));
            changes.push(Change::Put { space: self.overlay.space, key: key.clone(), value: known.value.clone() });
            shards[self.overlay.place(key)].pending.insert(key.clone(), Some(known.clone()));
        }
        if way == Way::Run {
            return Ok(Some(self.committer.submit_run(changes, records, reservation)));
        }
        changes.extend(records);
        Ok(Some(self.committer.submit(changes, reservation)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, key, write};
    use super::*;
    use crate::storage::{Engine, Space};

    fn page(numbers: std::ops::Range<u64>) -> Vec<NewObject> {
        let all = Bytes::from(vec![b'p'; 100]);
        numbers.map(|number| NewObject::new(key(number), all.slice(..10))).collect()
    }

    fn record() -> Change {
        Change::Put { space: Space::Meta, key: Bytes::from_static(b"cursor"), value: Bytes::new() }
    }

    async fn insert(objects: &Objects, way: Way, page: &[NewObject]) -> Option<Submitted> {
        let reservation = objects.committer.reserve(1000).await.unwrap();
        objects.insert_new(page, way, reservation, || Ok::<_, EngineError>(Some(vec![record()]))).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_comes_meanwhile_builds_on_the_page_and_stays() {
        for way in [Way::Commit, Way::Run] {
            let (objects, engine) = testing::objects();
            let submitted = insert(&objects, way, &page(10..20)).await.unwrap();
            let (before, written) = write(&objects, 15).await;
            assert_eq!(before.unwrap(), "pppppppppp", "the write knows of what was copied");
            submitted.await.unwrap();
            assert!(engine.get(Space::Meta, b"cursor").unwrap().is_some());
            written.await.unwrap();
            assert_eq!(engine.get(Space::Data, &key(15)).unwrap().unwrap(), "written twice");
            assert_eq!(engine.len(Space::Data), 10);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_is_not_stored_where_anything_is_or_is_about_to_be() {
        for way in [Way::Commit, Way::Run] {
            let (objects, engine) = testing::objects();
            let (_, written) = write(&objects, 15).await;
            assert!(insert(&objects, way, &page(10..20)).await.is_none(), "pending");
            written.await.unwrap();
            assert!(insert(&objects, way, &page(10..20)).await.is_none(), "stored");
            assert!(insert(&objects, way, &page(14..17)).await.is_none());
            assert!(engine.get(Space::Meta, b"cursor").unwrap().is_none());
            insert(&objects, way, &page(16..20)).await.unwrap().await.unwrap();
            insert(&objects, way, &page(10..15)).await.unwrap().await.unwrap();
            assert_eq!(engine.get(Space::Data, &key(15)).unwrap().unwrap(), "written");
            let mut unsorted = page(30..40);
            unsorted.swap(0, 5);
            assert!(insert(&objects, way, &unsorted).await.is_none());
            assert!(insert(&objects, way, &[]).await.is_none());
        }
    }

    /// A page in memory is much larger than each of its objects, and would be kept by any of them.
    #[tokio::test(start_paused = true)]
    async fn what_was_copied_is_not_cached_with_its_page() {
        for way in [Way::Commit, Way::Run] {
            let (objects, engine) = testing::objects();
            insert(&objects, way, &page(10..20)).await.unwrap().await.unwrap();
            let behind =
                Change::Put { space: Space::Data, key: key(12), value: Bytes::from_static(b"behind its back") };
            engine.commit(&[behind]).unwrap();
            assert_eq!(objects.read(&key(12)).unwrap().unwrap().value, "behind its back");
        }
    }
}

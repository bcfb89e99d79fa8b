//! Many objects at once removed: each is read once, with its neighbours, and they are committed together.

use super::{Known, Objects, PageBounds};
use crate::storage::{Change, EngineError, Reservation, ScanRange, Submitted};
use bytes::Bytes;

/// What became of a page.
pub struct RemovedPage {
    /// Bytes of keys and objects that it had.
    pub bytes: usize,
    /// Where the next page begins, if there is more in the range.
    pub after: Option<Bytes>,
    /// Resolves when what was removed is so durably; `None`: nothing was.
    pub submitted: Option<Submitted>,
}

impl Objects {
    /// Removes those objects of the first page of a range of which `decide` says so, which sees the newest value of each
    /// with all keys locked. What is only pending stays for another time. `None`: so much is committed now that the page
    /// could not be read in one go; nothing was removed.
    ///
    /// # Errors
    /// When the engine cannot be read; nothing was removed.
    pub fn remove_page(
        &self,
        range: &ScanRange,
        bounds: PageBounds,
        reservation: Reservation,
        mut decide: impl FnMut(&Bytes, &Bytes) -> bool,
    ) -> Result<Option<RemovedPage>, EngineError> {
        let Some((page, mut shards)) = self.lock_all_as_read(range, bounds)? else { return Ok(None) };
        let after = page.items.last().filter(|_| page.more).map(|(key, _)| key.clone());
        let bytes = page.items.iter().map(|(key, value)| key.len() + value.len()).sum();
        let mut changes = Vec::with_capacity(page.items.len());
        for (key, value) in page.items {
            let shard = &mut shards[self.overlay.place(&key)];
            let newest = match shard.pending.get(&key) {
                Some(None) => continue,
                Some(Some(pending)) => pending.clone(),
                None => Known::new(&key, value),
            };
            if decide(&key, &newest.value) {
                self.note(&key, Some(newest.hash), None);
                changes.push(Change::Remove { space: self.overlay.space, key: key.clone() });
                shard.pending.insert(key, None);
            }
        }
        let submitted = (!changes.is_empty()).then(|| self.committer.submit(changes, reservation));
        Ok(Some(RemovedPage { bytes, after, submitted }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{key, objects, write};
    use super::*;
    use crate::storage::{Engine, Space};

    const BOUNDS: PageBounds = PageBounds { items: 4, bytes: 1 << 20 };

    async fn remove(objects: &Objects, decide: impl FnMut(&Bytes, &Bytes) -> bool) -> RemovedPage {
        let range = ScanRange { first: key(10), until: Some(key(20)), after: None };
        let reservation = objects.committer.reserve_control().await;
        objects.remove_page(&range, BOUNDS, reservation, decide).unwrap().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_goes_and_what_is_written_afterwards_stays() {
        let (objects, engine) = objects();
        for number in 9..17 {
            write(&objects, number).await.1.await.unwrap();
        }
        let removed = remove(&objects, |_, _| true).await;
        let (before, written) = write(&objects, 12).await;
        assert_eq!(before, None, "it is gone for whoever comes after");
        removed.submitted.unwrap().await.unwrap();
        written.await.unwrap();
        assert_eq!(removed.after, Some(key(13)));
        let left: Vec<_> = engine.scan(Space::Data, &ScanRange::tokens(0, 100), 100, 1 << 20).unwrap().items;
        let left: Vec<_> = left.into_iter().map(|(key, _)| key).collect();
        assert_eq!(left, [9, 12, 14, 15, 16].map(key));
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_value_decides_and_what_is_refused_stays() {
        let (objects, engine) = objects();
        for number in 10..14 {
            write(&objects, number).await.1.await.unwrap();
        }
        let (_, pending) = write(&objects, 11).await;
        let mut seen = Vec::new();
        let removed = remove(&objects, |key, value| {
            seen.push((key.clone(), value.clone()));
            *key != self::key(11)
        });
        removed.await.submitted.unwrap().await.unwrap();
        pending.await.unwrap();
        assert_eq!(seen[1], (key(11), Bytes::from_static(b"written twice")));
        assert_eq!(engine.get(Space::Data, &key(11)).unwrap().unwrap(), "written twice");
        assert_eq!(engine.len(Space::Data), 1);
    }
}

//! What tests of whole pages share.

use super::{Objects, Overlay, Updated};
use crate::config::Limits;
use crate::storage::{Committer, EngineError, MemoryEngine, Space, Submitted};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn key(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

pub(super) fn objects() -> (Objects, Arc<MemoryEngine>) {
    let engine = Arc::new(MemoryEngine::new());
    let overlay = Overlay::new(Space::Data, 64 << 20);
    let told = overlay.clone();
    let limits = Limits { disk_reserve_bytes: 0, ..Default::default() };
    let commit_time = Duration::from_millis(5);
    let committer = Committer::inline(engine.clone(), &limits, commit_time, move |changes, stored| {
        told.committed(changes, stored.is_ok());
    });
    (Objects::new(engine.clone(), committer, overlay), engine)
}

/// Writes a key once, or once more; returns what was there before.
pub(super) async fn write(objects: &Objects, number: u64) -> (Option<Bytes>, Submitted) {
    let reservation = objects.committer.reserve(100).await.unwrap();
    let decide = |before: Option<Bytes>| {
        let value = if before.is_none() { "written" } else { "written twice" };
        Ok::<_, EngineError>((Some(Bytes::from_static(value.as_bytes())), before))
    };
    match objects.update(key(number), reservation, decide).unwrap() {
        Updated::Queued(before, submitted) => (before, submitted),
        Updated::Unchanged(_) => panic!("it decided to store"),
    }
}

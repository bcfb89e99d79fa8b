//! Keeps the engine from ever meeting a full disk.
//!
//! An engine that runs out of space in the midst of a flush or compaction can only be opened anew, and then meets the
//! same full disk. So writes stop while there is still room for its background work, and reads go on.

use super::engine::{DiskSpace, Engine};
use super::error::StorageError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a write is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A client's or another member's data.
    Data,
    /// Removals and the node's own small records, which free space or are needed to: they may use three quarters of
    /// the reserve.
    Upkeep,
}

pub(super) struct DiskGuard {
    engine: Arc<dyn Engine>,
    bytes_reserved: u64,
    full: AtomicBool,
}

impl DiskGuard {
    pub(super) fn new(engine: Arc<dyn Engine>, bytes_reserved: u64) -> Self {
        let guard = Self { engine, bytes_reserved, full: AtomicBool::new(false) };
        let _ = guard.check(Purpose::Data, 0);
        guard
    }

    /// Decides about a write that is not queued yet. Costs one atomic load while there is room.
    pub(super) fn admit(&self) -> Result<(), StorageError> {
        if self.full.load(Ordering::Relaxed) { self.check(Purpose::Data, 0) } else { Ok(()) }
    }

    /// Decides about a batch that is to be committed now.
    pub(super) fn check(&self, purpose: Purpose, bytes: usize) -> Result<(), StorageError> {
        // A file system that does not answer is the engine's to fail on.
        let Ok(DiskSpace { bytes_free, .. }) = self.engine.disk() else { return Ok(()) };
        let left = bytes_free.saturating_sub(bytes as u64);
        self.full.store(left < self.bytes_reserved, Ordering::Relaxed);
        let bytes_reserved = match purpose {
            Purpose::Data => self.bytes_reserved,
            Purpose::Upkeep => self.bytes_reserved / 4,
        };
        if left < bytes_reserved { Err(StorageError::DiskFull { bytes_free, bytes_reserved }) } else { Ok(()) }
    }

    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }
}

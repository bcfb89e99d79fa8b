//! Why a write is not known to be stored.

use super::engine::{EngineError, KEY_BYTES_MAX};

/// Why a write is not known to be stored, and what became of it.
///
/// Changes are computed from what was queued before them, so when a commit fails, everything queued behind it fails
/// with it and for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The disk has less room than is kept in reserve. Nothing was written; reads go on.
    #[error("disk full: {bytes_free} bytes free, {bytes_reserved} kept in reserve")]
    DiskFull {
        /// Left for new writes.
        bytes_free: u64,
        /// Below this, writes are refused.
        bytes_reserved: u64,
    },
    /// The commit queue has no room for the write now. Nothing was written.
    #[error("the commit queue has no room for {bytes} more bytes")]
    Overloaded {
        /// Bytes asked for.
        bytes: usize,
    },
    /// A key of no bytes or too many. Nothing was written.
    #[error("a key has {bytes} bytes; storage takes 1 to {KEY_BYTES_MAX}")]
    KeyLength {
        /// Its length.
        bytes: usize,
    },
    /// The commit failed. The write may have been stored, all of it or nothing.
    #[error("the commit failed: {0}")]
    Failed(String),
    /// The engine takes no more writes until the process starts again. The write may have been stored.
    #[error("storage is broken: {0}")]
    Broken(String),
    /// The committer has ended. Nothing was written.
    #[error("storage is closed")]
    Closed,
}

impl From<EngineError> for StorageError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::KeyLength { bytes } => Self::KeyLength { bytes },
            EngineError::Broken(reason) => Self::Broken(reason),
            other => Self::Failed(other.to_string()),
        }
    }
}

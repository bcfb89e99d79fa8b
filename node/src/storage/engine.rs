//! What the node asks of a storage engine, and no more.

use bytes::Bytes;
use std::ops::ControlFlow;

/// Longest key that an engine takes, in bytes. The journal of fjall writes the length of a key as 16 bits.
pub const KEY_BYTES_MAX: usize = 65_535;

/// Keyspaces of a node. Each is ordered by the bytes of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Objects: token (8 bytes, big endian) ‖ key.
    Data,
    /// Objects held for other members.
    Hints,
    /// What the node remembers of itself: its ring, its moves, its births.
    Meta,
}

impl Space {
    /// All keyspaces, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Data, Self::Hints, Self::Meta];

    /// Name on disk.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Hints => "hints",
            Self::Meta => "meta",
        }
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stores a value, in place of the one before if there is one.
    Put {
        /// Keyspace.
        space: Space,
        /// Key: 1 to [`KEY_BYTES_MAX`] bytes.
        key: Bytes,
        /// Value.
        value: Bytes,
    },
    /// Removes a key; nothing happens if it is not there.
    Remove {
        /// Keyspace.
        space: Space,
        /// Key: 1 to [`KEY_BYTES_MAX`] bytes.
        key: Bytes,
    },
}

impl Change {
    /// Keyspace of the change.
    #[must_use]
    pub fn space(&self) -> Space {
        match self {
            Self::Put { space, .. } | Self::Remove { space, .. } => *space,
        }
    }

    /// Key that is changed.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Remove { key, .. } => key,
        }
    }

    /// Bytes of its key and value.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Remove { key, .. } => key.len(),
        }
    }
}

/// Part of a keyspace to read in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanRange {
    /// First key that belongs to it.
    pub first: Bytes,
    /// First key behind it; `None`: it goes to the end of the keyspace.
    pub until: Option<Bytes>,
    /// Cursor: the last key already seen. Reading goes on behind it.
    pub after: Option<Bytes>,
}

impl ScanRange {
    /// The whole keyspace.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// All keys of [`Space::Data`] whose token is in `first_token..=last_token`.
    #[must_use]
    pub fn tokens(first_token: u64, last_token: u64) -> Self {
        let first = Bytes::copy_from_slice(&first_token.to_be_bytes());
        let until = last_token.checked_add(1).map(|next| Bytes::copy_from_slice(&next.to_be_bytes()));
        Self { first, until, after: None }
    }

    /// From one key to another, both included.
    #[must_use]
    pub fn through(first: &Bytes, last: &[u8]) -> Self {
        let mut behind = Vec::with_capacity(last.len() + 1);
        behind.extend_from_slice(last);
        behind.push(0);
        Self { first: first.clone(), until: Some(behind.into()), after: None }
    }

    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let until = prefix.iter().rposition(|&byte| byte != u8::MAX).map(|at| {
            let mut next = prefix[..=at].to_vec();
            next[at] += 1;
            Bytes::from(next)
        });
        Self { first: Bytes::copy_from_slice(prefix), until, after: None }
    }

    /// Whether nothing can be in it, so that an engine need not look (and is not asked for a range turned around).
    pub(super) fn is_empty(&self) -> bool {
        let Some(until) = &self.until else { return false };
        *until <= self.first || self.after.as_ref().is_some_and(|after| after >= until)
    }
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values in key order.
    pub items: Vec<(Bytes, Bytes)>,
    /// Whether the range holds more behind them.
    pub more: bool,
}

/// Sees the key and the value of an item.
pub type See<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Bounds of what an engine without a visit of its own reads at once.
const VISIT_ITEMS: usize = 64;
const VISIT_BYTES: usize = 64 << 10;

/// Room on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// What is left for new writes: free bytes of the file system, less what the engine has yet to write of what it
    /// already holds in memory.
    pub bytes_free: u64,
    /// Size of the file system.
    pub bytes_total: u64,
}

/// Why an engine did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine could not be opened. Nothing was changed but, at most, an incomplete last write dropped.
    #[error("opening the storage engine in {directory}: {reason}")]
    Open {
        /// Where.
        directory: String,
        /// What the engine says.
        reason: String,
    },
    /// A key of no bytes or more than [`KEY_BYTES_MAX`]. Nothing was written.
    #[error("a key has {bytes} bytes; the storage engine takes 1 to {KEY_BYTES_MAX}")]
    KeyLength {
        /// Its length.
        bytes: usize,
    },
    /// A read failed.
    #[error("reading from the storage engine: {0}")]
    Read(String),
    /// A commit failed; the engine takes further ones. Its changes may have been written, all or none.
    #[error("writing to the storage engine: {0}")]
    Commit(String),
    /// A write to disk failed, at this commit or in the background, and the engine takes no more. The changes may
    /// have been written, all or none: only opening it anew tells.
    #[error("the storage engine takes no more writes until it is opened anew: {0}")]
    Broken(String),
    /// The file system does not tell its free space.
    #[error("asking for free disk space: {0}")]
    Disk(String),
}

/// An ordered key-value store whose commits survive power loss.
///
/// All calls block; commits for as long as the disk takes.
pub trait Engine: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    /// [`EngineError::Read`].
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Applies all changes, in their order, or none. Once it has returned `Ok` they survive power loss.
    ///
    /// # Errors
    /// [`EngineError::KeyLength`]: nothing was written. [`EngineError::Commit`] and [`EngineError::Broken`]: the
    /// changes may have been written, all or none.
    fn commit(&self, changes: &[Change]) -> Result<(), EngineError>;

    /// Stores objects of one keyspace, none of which is there: puts in ascending order of their keys, most often many
    /// mebibytes of them. Once it has returned `Ok` they survive power loss; a crash before that may leave a part of them.
    ///
    /// # Errors
    /// Those of [`commit`](Engine::commit).
    fn load(&self, run: &[Change]) -> Result<(), EngineError> {
        self.commit(run)
    }

    /// Items of a range in key order, at least one if there is one, until there are `items_max` of them or their keys
    /// and values have `bytes_max` bytes. Sees every commit that returned before the call, and of no commit a part.
    ///
    /// # Errors
    /// [`EngineError::Read`].
    fn scan(
        &self,
        space: Space,
        range: &ScanRange,
        items_max: usize,
        bytes_max: usize,
    ) -> Result<Page, EngineError>;

    /// Shows `see` the items of a range in key order until it breaks off, without a copy of each. Sees what
    /// [`scan`](Engine::scan) sees.
    ///
    /// # Errors
    /// [`EngineError::Read`].
    fn visit(&self, space: Space, range: &ScanRange, see: &mut See<'_>) -> Result<(), EngineError> {
        let mut range = range.clone();
        loop {
            let page = self.scan(space, &range, VISIT_ITEMS, VISIT_BYTES)?;
            for (key, value) in &page.items {
                if see(key, value).is_break() {
                    return Ok(());
                }
            }
            match page.items.last() {
                Some((last, _)) if page.more => range.after = Some(last.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// With how many threads a pass over everything is fastest.
    fn scans_at_once(&self) -> usize {
        1
    }

    /// Room on the disk. Cheap enough to be asked before every commit.
    ///
    /// # Errors
    /// [`EngineError::Disk`].
    fn disk(&self) -> Result<DiskSpace, EngineError>;

    /// Whether the engine takes commits, as far as it knows without trying. Never blocks.
    ///
    /// # Errors
    /// [`EngineError::Broken`].
    fn health(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

/// Refuses changes with keys that an engine cannot hold.
pub(super) fn check_keys(changes: &[Change]) -> Result<(), EngineError> {
    let bad = changes.iter().map(|change| change.key().len()).find(|bytes| !(1..=KEY_BYTES_MAX).contains(bytes));
    bad.map_or(Ok(()), |bytes| Err(EngineError::KeyLength { bytes }))
}

//! Where objects are kept: an ordered store on one disk, the queue that makes writes durable in groups, and the
//! identity of the directory they are in.
//!
//! [`Engine`] is the seam: [`FjallEngine`] keeps its data on a disk, [`MemoryEngine`] for simulation. Writes go through a
//! [`Committer`], which makes all that is queued durable with one flush of the disk; reads go to the engine directly.

mod births;
mod committer;
mod directory;
mod disk_guard;
mod engine;
mod error;
mod fjall_engine;
mod journal_tail;
mod memory_engine;
mod stats;

pub use births::Births;
pub use committer::{Committer, Reservation, Submitted};
pub use directory::{DataDirectory, DirectoryError};
pub use engine::{Change, DiskSpace, Engine, EngineError, KEY_BYTES_MAX, Page, ScanRange, Space};
pub use error::StorageError;
pub use fjall_engine::{FjallEngine, FjallOptions};
pub use memory_engine::{MemoryEngine, Scanned};
pub use stats::{Histogram, StorageStats};

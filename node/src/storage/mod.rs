//! Where objects are kept.
#![allow(missing_docs)]
mod committer;
mod engine;
mod fjall_engine;
mod identity;

pub use committer::{Committer, Reservation, StorageError, Submitted};
pub use engine::{Change, DiskSpace, Engine, EngineError, Page, ScanRange, Space};
pub use fjall_engine::{FjallEngine, FjallOptions};
pub use identity::{Births, DataDirectory};

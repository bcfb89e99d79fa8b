//! What clients asked for and what they were told.

use bytes::Bytes;
use dynamo::object::Context;
use std::time::Duration;

/// Number of an operation, in the order in which they began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u32);

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads all siblings.
    Get,
    /// Writes in the place of what its context covers.
    Put,
    /// Writes in the place of all that the coordinating replica knows.
    Overwrite,
    /// Deletes what its context covers, or all that the coordinating replica knows when it has none.
    Delete,
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing yet, or nothing ever: a write may have been stored or not.
    Unknown,
    /// An error: a write may have been stored or not.
    Failed(String),
    /// A write is done.
    Written,
    /// What a read has found.
    Read {
        /// Values, by the writes that they come from.
        values: Vec<Option<OpId>>,
        /// What they stand for; RESP does not tell.
        context: Option<Context>,
    },
}

/// One operation of a client.
#[derive(Clone, Debug)]
pub struct Op {
    /// Its number.
    pub id: OpId,
    /// What it does.
    pub kind: Kind,
    /// To which key.
    pub key: Bytes,
    /// Context given with a write.
    pub given: Option<Context>,
    /// No fallback may stand in for a replica.
    pub strict: bool,
    /// When it began.
    pub began: Duration,
    /// When it was answered.
    pub ended: Option<Duration>,
    /// The answer.
    pub outcome: Outcome,
    /// Disks destroyed when it began.
    pub disks_lost: u32,
}

impl Op {
    /// Whether it is a write that the client was told is done.
    #[must_use]
    pub fn acknowledged(&self) -> bool {
        self.outcome == Outcome::Written
    }

    /// Whether it left a value under its own number.
    #[must_use]
    pub fn is_put(&self) -> bool {
        matches!(self.kind, Kind::Put | Kind::Overwrite)
    }
}

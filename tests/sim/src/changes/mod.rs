//! Counters, sets, hashes and conditional writes over RESP: what clients ask for, and what must come of it.
//!
//! The model knows nothing of how replicas merge. It has the times at which each command began and was answered, and
//! what `docs/redis.md` promises: an increment that was acknowledged counts once and one that was not counts once or not
//! at all; an add that no remove can have seen stays; a later writer of a field wins over an earlier one; of several
//! conditional writes with the same condition one succeeds.

mod check;
mod client;

pub use check::{at_the_end, read};
pub use client::{Client, read_everything};

use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// A command that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `INCRBY` or `DECRBY`.
    Increment(i64),
    /// `SADD`
    Add(Bytes),
    /// `SREM`
    Remove(Bytes),
    /// `HSET`; the value is the command's own.
    SetField(Bytes),
    /// `HDEL`
    RemoveField(Bytes),
    /// `HINCRBY`
    IncrementField(Bytes, i64),
    /// `SET … NX` or `SETNX`; the value is the command's own.
    Create,
    /// `SET … XX`
    Overwrite,
    /// `SET … IFEQ` what some other command has written.
    Replace(Bytes),
}

/// What a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing, or an error after which it may have happened or not.
    Unsure,
    /// An error that says it has not happened, or that a condition did not hold.
    NotDone,
    /// It is done.
    Done,
}

/// One command of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// To which key.
    pub key: Bytes,
    /// What it does.
    pub command: Command,
    /// When it was sent.
    pub began: Duration,
    /// When it was answered.
    pub ended: Option<Duration>,
    /// The answer.
    pub told: Told,
}

impl Change {
    /// Whether it was surely over before this time. One that was not answered may go on for as long as it likes.
    #[must_use]
    pub fn over_before(&self, time: Duration) -> bool {
        match self.told {
            Told::Unsure => false,
            Told::NotDone | Told::Done => self.ended.is_some_and(|ended| ended < time),
        }
    }
}

/// What a key holds, as Redis shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// A string or nothing.
    Value(Option<Bytes>),
    /// A set.
    Members(Vec<Bytes>),
    /// A hash.
    Fields(BTreeMap<Bytes, Bytes>),
}

/// The value by which a command is known.
#[must_use]
pub fn value_of(change: usize) -> Bytes {
    Bytes::from(format!("change-{change}"))
}

/// The command that a value comes from.
#[must_use]
pub fn change_of(value: &[u8]) -> Option<usize> {
    std::str::from_utf8(value).ok()?.strip_prefix("change-")?.parse().ok()
}

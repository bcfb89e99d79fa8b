//! The store as a connection uses it: with the consistency it has chosen, and with the kinds that Redis knows.

use super::error::CommandError;
use crate::coordinator::{Causality, KeyValue, ReadOptions, RequestError, Write, WriteOptions, Written};
use bytes::Bytes;
use dynamo::object::{Change, Kind, Object, Outcome, Payload, Visible};
use std::ops::Deref;

/// How often a change is tried that is read, computed and written if nothing else was written meanwhile.
pub(super) const ATTEMPTS_MAX: usize = 32;

/// A store, and how one connection wants its reads and writes done.
#[derive(Debug)]
pub(super) struct Store<'a, K> {
    /// The store.
    pub(super) inner: &'a K,
    /// What the connection has chosen.
    pub(super) consistency: Consistency,
}

/// What `ANNULUS CONSISTENCY` chooses; the default is what the cluster says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Consistency {
    /// Of reads.
    pub(super) read: ReadOptions,
    /// Of writes.
    pub(super) write: WriteOptions,
}

/// A key's object as it was read.
#[derive(Debug)]
pub(super) struct Found {
    object: Object,
    now_ms: u64,
}

impl<K> Deref for Store<'_, K> {
    type Target = K;

    fn deref(&self) -> &K {
        self.inner
    }
}

impl<K: KeyValue> Store<'_, K> {
    /// Reads a key.
    pub(super) async fn read(&self, key: &Bytes) -> Result<Found, RequestError> {
        let object = self.inner.get(key.clone(), self.consistency.read).await?;
        Ok(Found { object, now_ms: self.inner.now_ms() })
    }

    /// Reads a key if that needs no waiting.
    pub(super) fn read_now(&self, key: &Bytes) -> Option<Found> {
        let object = self.inner.get_now(key, self.consistency.read)?;
        Some(Found { object, now_ms: self.inner.now_ms() })
    }

    /// Reads a string.
    pub(super) async fn string(&self, key: &Bytes) -> Result<Option<Bytes>, CommandError> {
        self.read(key).await?.string()
    }

    /// Writes a string over whatever the coordinating replica has.
    pub(super) async fn overwrite(
        &self,
        key: Bytes,
        value: Bytes,
        expires_at_ms: Option<u64>,
    ) -> Result<Written, RequestError> {
        let write = Write { payload: Payload::Bytes(value), expires_at_ms, causality: Causality::Overwrite };
        self.inner.put(key, write, self.consistency.write).await
    }

    /// Deletes whatever the coordinating replica has.
    pub(super) async fn bury(&self, key: Bytes) -> Result<Written, RequestError> {
        let write = Write { payload: Payload::Tombstone, expires_at_ms: None, causality: Causality::Overwrite };
        self.inner.put(key, write, self.consistency.write).await
    }

    /// Carries out a change. A refusal is an error.
    pub(super) async fn change(&self, key: &Bytes, change: Change) -> Result<Outcome, CommandError> {
        match self.inner.change(key.clone(), change, self.consistency.write).await? {
            Outcome::Refused(refusal) => Err(CommandError::Refused(refusal)),
            outcome => Ok(outcome),
        }
    }

    /// Carries out a change that answers a number.
    pub(super) async fn number(&self, key: &Bytes, change: Change) -> Result<i64, CommandError> {
        match self.change(key, change).await? {
            Outcome::Number(number) => Ok(number),
            Outcome::Replaced { done, .. } => Ok(i64::from(done)),
            Outcome::Refused(refusal) => Err(CommandError::Refused(refusal)),
        }
    }
}

impl Found {
    /// What a client sees; `None`: nothing.
    pub(super) fn visible(&self) -> Option<Visible<'_>> {
        self.object.visible(self.now_ms)
    }

    /// The object itself.
    pub(super) fn object(&self) -> &Object {
        &self.object
    }

    /// What a client sees if it is of this kind.
    pub(super) fn of_kind(&self, kind: Kind) -> Result<Option<Visible<'_>>, CommandError> {
        match self.visible() {
            Some(visible) if visible.kind != kind => Err(CommandError::WrongType),
            visible => Ok(visible),
        }
    }

    /// The string.
    pub(super) fn string(&self) -> Result<Option<Bytes>, CommandError> {
        Ok(self.of_kind(Kind::String)?.map(|visible| visible.string()))
    }
}

/// A kind as TYPE names it.
pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "string",
        Kind::Set => "set",
        Kind::Hash => "hash",
    }
}

//! What a key holds, to a client that knows no siblings.

use crate::coordinator::{KeyValue, ReadOptions, RequestError};
use bytes::Bytes;
use dynamo::object::{Object, Payload};

/// The value that wins: that of the last writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Current {
    /// The value.
    pub(super) bytes: Bytes,
    /// When it expires, in milliseconds since 1970.
    pub(super) expires_at_ms: Option<u64>,
}

/// The value of the last writer; `None`: the last writer deleted it, or it has expired, or there never was one.
pub(super) fn current(object: &Object, now_ms: u64) -> Option<Current> {
    let value = object.last_writer(now_ms)?;
    match &value.payload {
        Payload::Bytes(bytes) => Some(Current { bytes: bytes.clone(), expires_at_ms: value.expires_at_ms }),
        Payload::Tombstone => None,
    }
}

/// Reads a key.
pub(super) async fn read<K: KeyValue>(store: &K, key: Bytes) -> Result<Option<Current>, RequestError> {
    let object = store.get(key, ReadOptions::default()).await?;
    Ok(current(&object, store.now_ms()))
}

//! DEL, UNLINK, EXISTS, TOUCH, TYPE, DBSIZE.

use super::dispatch::OPERATIONS_MAX;
use super::error::CommandError;
use super::reply::Reply;
use super::value::read;
use crate::coordinator::{Causality, KeyValue, RequestError, Write, WriteOptions, Written};
use bytes::Bytes;
use dynamo::object::Payload;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::HashSet;

/// `DEL key [key …]`: each deleted for itself. When one fails, others may have been deleted.
///
/// A tombstone is written even for a key that is not there: a replica that cannot be reached now may have it.
pub(super) async fn delete<K: KeyValue>(store: &K, keys: &[Bytes]) -> Result<Reply, CommandError> {
    if let [key] = keys {
        return Ok(Reply::Integer(i64::from(bury(store, key.clone()).await?.existed)));
    }
    let keys: HashSet<Bytes> = keys.iter().cloned().collect();
    let deletes = stream::iter(keys).map(|key| bury(store, key)).buffer_unordered(OPERATIONS_MAX);
    let results: Vec<Result<Written, RequestError>> = deletes.collect().await;
    let mut deleted = 0;
    for result in results {
        deleted += i64::from(result?.existed);
    }
    Ok(Reply::Integer(deleted))
}

/// `EXISTS key [key …]`: a key named twice counts twice.
pub(super) async fn exists<K: KeyValue>(store: &K, keys: &[Bytes]) -> Result<Reply, CommandError> {
    let reads = stream::iter(keys.to_vec()).map(|key| read(store, key)).buffer_unordered(OPERATIONS_MAX);
    let found = reads.try_fold(0, async |found, current| Ok(found + i64::from(current.is_some())));
    Ok(Reply::Integer(found.await?))
}

/// `TYPE key`
pub(super) async fn kind<K: KeyValue>(store: &K, key: &Bytes) -> Result<Reply, CommandError> {
    Ok(Reply::Status(if read(store, key.clone()).await?.is_some() { "string" } else { "none" }))
}

/// `DBSIZE`
pub(super) async fn dbsize<K: KeyValue>(store: &K) -> Result<Reply, CommandError> {
    Ok(Reply::Integer(i64::try_from(store.key_count().await?).unwrap_or(i64::MAX)))
}

/// Deletes whatever the coordinating replica has.
pub(super) async fn bury<K: KeyValue>(store: &K, key: Bytes) -> Result<Written, RequestError> {
    let write = Write { payload: Payload::Tombstone, expires_at_ms: None, causality: Causality::Overwrite };
    store.put(key, write, WriteOptions::default()).await
}

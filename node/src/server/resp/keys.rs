//! DEL, UNLINK, EXISTS, TOUCH, TYPE, DBSIZE, MEMORY USAGE.

use super::dispatch::OPERATIONS_MAX;
use super::error::{CommandError, shown};
use super::help;
use super::reply::Reply;
use super::several::read_each;
use super::store::{Store, kind_name};
use crate::coordinator::{KeyValue, RequestError, Written};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use std::collections::HashSet;

/// `DEL key [key …]`: each deleted for itself. When one fails, others may have been deleted.
///
/// A tombstone is written even for a key that is not there: a replica that cannot be reached now may have it.
pub(super) async fn delete<K: KeyValue>(store: &Store<'_, K>, keys: &[Bytes]) -> Result<Reply, CommandError> {
    if let [key] = keys {
        return Ok(Reply::Integer(i64::from(store.bury(key.clone()).await?.existed)));
    }
    let keys: HashSet<Bytes> = keys.iter().cloned().collect();
    let deletes = stream::iter(keys).map(|key| store.bury(key)).buffer_unordered(OPERATIONS_MAX);
    let results: Vec<Result<Written, RequestError>> = deletes.collect().await;
    let mut deleted = 0;
    for result in results {
        deleted += i64::from(result?.existed);
    }
    Ok(Reply::Integer(deleted))
}

/// `EXISTS key [key …]`: a key named twice counts twice.
pub(super) async fn exists<K: KeyValue>(store: &Store<'_, K>, keys: &[Bytes]) -> Result<Reply, CommandError> {
    let mut there = 0;
    read_each(store, keys.iter(), |_, found| {
        there += i64::from(found.visible().is_some());
        Ok(())
    })
    .await?;
    Ok(Reply::Integer(there))
}

/// `TYPE key`
pub(super) async fn kind<K: KeyValue>(store: &Store<'_, K>, key: &Bytes) -> Result<Reply, CommandError> {
    Ok(Reply::Status(store.read(key).await?.visible().map_or("none", |visible| kind_name(visible.kind))))
}

/// `DBSIZE`
pub(super) async fn dbsize<K: KeyValue>(store: &Store<'_, K>) -> Result<Reply, CommandError> {
    Ok(Reply::Integer(i64::try_from(store.key_count().await?).unwrap_or(i64::MAX)))
}

/// `MEMORY USAGE key [SAMPLES count]`: bytes of the key and its object, at one replica.
pub(super) async fn memory<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    if arguments[1].eq_ignore_ascii_case(b"help") {
        return help::or_unknown("MEMORY", arguments);
    }
    if !arguments[1].eq_ignore_ascii_case(b"usage") {
        return Err(CommandError::Unsupported {
            what: format!("memory {}", shown(arguments.get(1)).to_ascii_lowercase()),
            reason: "is not offered: /metrics tells how much memory a node uses",
        });
    }
    let key = match &arguments[2..] {
        [] => return Err(CommandError::subcommand_arity("memory", b"usage")),
        [key] => key,
        [key, option, _] if option.eq_ignore_ascii_case(b"samples") => key,
        _ => return Err(CommandError::Syntax),
    };
    let found = store.read(key).await?;
    Ok(match found.visible() {
        Some(_) => Reply::count(key.len() + found.object().encoded_len()),
        None => Reply::Null,
    })
}

//! Hashes: HSET, HGET, HGETALL and the like.

use super::error::CommandError;
use super::parse::integer;
use super::reply::Reply;
use super::sets::{PartScan, count_to_draw, draw};
use super::store::{ATTEMPTS_MAX, Found, Store};
use crate::coordinator::KeyValue;
use bytes::Bytes;
use dynamo::object::{Change, Kind};
use std::collections::HashSet;

/// `HSET key field value [field value …]` and `HMSET`
pub(super) async fn hset<K: KeyValue>(
    store: &Store<'_, K>,
    command: &'static str,
    arguments: &[Bytes],
) -> Result<i64, CommandError> {
    let pairs = arguments[2..].chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(CommandError::Arity(command.to_owned()));
    }
    let fields = pairs.map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    store.number(&arguments[1], Change::SetFields(fields)).await
}

/// `HSETNX key field value`
pub(super) async fn hsetnx<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let change = Change::ReplaceField { field: arguments[2].clone(), expected: None, value: arguments[3].clone() };
    Ok(Reply::Integer(store.number(&arguments[1], change).await?))
}

/// `HDEL key field [field …]`
pub(super) async fn hdel<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let change = Change::RemoveFields(arguments[2..].to_vec());
    Ok(Reply::Integer(store.number(&arguments[1], change).await?))
}

/// `HGETDEL key FIELDS numfields field [field …]`: read, and remove what was read if all of it is still so.
pub(super) async fn hgetdel<K: KeyValue>(
    store: &Store<'_, K>,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    if !arguments[2].eq_ignore_ascii_case(b"fields") {
        return Err(CommandError::Fixed("ERR Mandatory argument FIELDS is missing or not at the right position"));
    }
    let count = integer(&arguments[3]).and_then(|count| usize::try_from(count).ok()).filter(|&count| count > 0);
    let count = count.ok_or(CommandError::Fixed("ERR Number of fields must be a positive integer"))?;
    let fields = &arguments[4..];
    if fields.len() != count {
        return Err(CommandError::Fixed("ERR The `numfields` parameter must match the number of arguments"));
    }
    for _ in 0..ATTEMPTS_MAX {
        let found = store.read(&arguments[1]).await?;
        let hash = found.of_kind(Kind::Hash)?;
        let value = |field: &Bytes| hash.and_then(|hash| hash.field(field));
        let taken: Vec<(Bytes, Option<Bytes>)> =
            fields.iter().map(|field| (field.clone(), value(field))).collect();
        let there = taken.iter().any(|(_, value)| value.is_some());
        if !there || store.number(&arguments[1], Change::TakeFields(taken.clone())).await? == 1 {
            // What is named twice is gone the second time.
            let mut told = HashSet::new();
            let once = taken.into_iter().map(|(field, value)| value.filter(|_| told.insert(field)));
            return Ok(Reply::Array(once.map(|value| value.map_or(Reply::Null, Reply::Bulk)).collect()));
        }
    }
    Err(CommandError::Contended)
}

/// `HGET key field`
pub(super) async fn hget<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    Ok(field(store, arguments).await?.map_or(Reply::Null, Reply::Bulk))
}

/// `HSTRLEN key field`
pub(super) async fn hstrlen<K: KeyValue>(
    store: &Store<'_, K>,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    Ok(Reply::count(field(store, arguments).await?.map_or(0, |value| value.len())))
}

/// `HEXISTS key field`
pub(super) async fn hexists<K: KeyValue>(
    store: &Store<'_, K>,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    Ok(Reply::Integer(i64::from(field(store, arguments).await?.is_some())))
}

/// `HMGET key field [field …]`
pub(super) async fn hmget<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let found = store.read(&arguments[1]).await?;
    let hash = found.of_kind(Kind::Hash)?;
    let value = |field: &Bytes| hash.and_then(|hash| hash.field(field)).map_or(Reply::Null, Reply::Bulk);
    Ok(Reply::Array(arguments[2..].iter().map(value).collect()))
}

/// `HGETALL key`
pub(super) async fn hgetall<K: KeyValue>(store: &Store<'_, K>, key: &Bytes) -> Result<Reply, CommandError> {
    let fields = fields(&store.read(key).await?)?.into_iter();
    Ok(Reply::Map(fields.map(|(field, value)| (Reply::Bulk(field), Reply::Bulk(value))).collect()))
}

/// `HKEYS key`
pub(super) async fn hkeys<K: KeyValue>(store: &Store<'_, K>, key: &Bytes) -> Result<Reply, CommandError> {
    let fields = fields(&store.read(key).await?)?.into_iter();
    Ok(Reply::Array(fields.map(|(field, _)| Reply::Bulk(field)).collect()))
}

/// `HVALS key`
pub(super) async fn hvals<K: KeyValue>(store: &Store<'_, K>, key: &Bytes) -> Result<Reply, CommandError> {
    let fields = fields(&store.read(key).await?)?.into_iter();
    Ok(Reply::Array(fields.map(|(_, value)| Reply::Bulk(value)).collect()))
}

/// `HLEN key`
pub(super) async fn hlen<K: KeyValue>(store: &Store<'_, K>, key: &Bytes) -> Result<Reply, CommandError> {
    Ok(Reply::count(fields(&store.read(key).await?)?.len()))
}

/// `HSCAN key cursor [MATCH pattern] [COUNT count] [NOVALUES]`: everything at once, as Redis does with small hashes.
pub(super) async fn hscan<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let scan = PartScan::parse(&arguments[2..], true)?;
    let mut items = Vec::new();
    for (field, value) in fields(&store.read(&arguments[1]).await?)? {
        if scan.wants(&field) {
            items.push(Reply::Bulk(field));
            items.extend((!scan.names_only).then_some(Reply::Bulk(value)));
        }
    }
    Ok(scan.page(items))
}

/// `HRANDFIELD key [count [WITHVALUES]]`: a negative count draws with repetition.
pub(super) async fn hrandfield<K: KeyValue>(
    store: &Store<'_, K>,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let (count, with_values) = match &arguments[2..] {
        [] => (None, false),
        [count] => (Some(count_to_draw(count)?), false),
        [count, option] if option.eq_ignore_ascii_case(b"withvalues") => (Some(count_to_draw(count)?), true),
        _ => return Err(CommandError::Syntax),
    };
    let fields = fields(&store.read(&arguments[1]).await?)?;
    let Some(count) = count else {
        return Ok(draw(fields.len(), -1).first().map_or(Reply::Null, |&at| Reply::Bulk(fields[at].0.clone())));
    };
    let drawn = draw(fields.len(), count).into_iter().map(|at| fields[at].clone());
    if with_values {
        let pairs = drawn.map(|(field, value)| (Reply::Bulk(field), Reply::Bulk(value)));
        return Ok(Reply::Pairs(pairs.collect()));
    }
    Ok(Reply::Array(drawn.map(|(field, _)| Reply::Bulk(field)).collect()))
}

async fn field<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Option<Bytes>, CommandError> {
    let found = store.read(&arguments[1]).await?;
    Ok(found.of_kind(Kind::Hash)?.and_then(|hash| hash.field(&arguments[2])))
}

fn fields(found: &Found) -> Result<Vec<(Bytes, Bytes)>, CommandError> {
    let hash = found.of_kind(Kind::Hash)?;
    let owned = |(field, value): (&Bytes, Bytes)| (field.clone(), value);
    Ok(hash.map(|hash| hash.fields().map(owned).collect()).unwrap_or_default())
}

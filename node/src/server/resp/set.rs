//! SET and its older forms, MSETEX, GETDEL.

use super::digest::{Only, replace_if};
use super::dispatch::OPERATIONS_MAX;
use super::error::CommandError;
use super::parse::integer;
use super::reply::Reply;
use super::store::Store;
use super::unsupported;
use crate::coordinator::KeyValue;
use bytes::Bytes;
use dynamo::object::{Change, Condition, Expiry, Outcome};
use futures::stream::{self, StreamExt};
use std::collections::HashMap;

/// `SET key value [NX | XX | IFEQ value | IFNE value | IFDEQ digest | IFDNE digest] [GET] [EX seconds |
/// PX milliseconds | EXAT seconds | PXAT milliseconds | KEEPTTL]`
pub(super) async fn set<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let options = SetOptions::parse(&arguments[3..])?;
    let expiry = options.expiry("set", store.now_ms())?;
    let (key, value) = (&arguments[1], arguments[2].clone());
    if let (Expiry::At(expires_at_ms), None, false) = (expiry, &options.only, options.get) {
        store.overwrite(key.clone(), value, expires_at_ms).await?;
        return Ok(Reply::OK);
    }
    let only = options.only.unwrap_or(Only::If(Condition::Always));
    // Boxed, so that the usual SET, which does not come here, is no larger for it.
    let replaced = Box::pin(replace_if(store, key, Some(value), expiry, only, options.get));
    Ok(match replaced.await? {
        Outcome::Replaced { before, .. } if options.get => before.map_or(Reply::Null, Reply::Bulk),
        Outcome::Replaced { done: true, .. } => Reply::OK,
        _ => Reply::Null,
    })
}

/// `MSETEX numkeys key value [key value …] [EX seconds | PX milliseconds | EXAT seconds | PXAT milliseconds | KEEPTTL]`:
/// each written for itself. When one fails, others may have been written.
pub(super) async fn msetex<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let count = integer(&arguments[1]).and_then(|count| usize::try_from(count).ok()).filter(|&count| count > 0);
    let count = count.ok_or(CommandError::Fixed("ERR invalid numkeys value"))?;
    let end = count.checked_mul(2).and_then(|words| words.checked_add(2)).filter(|&end| end <= arguments.len());
    let end = end.ok_or(CommandError::Fixed("ERR wrong number of key-value pairs"))?;
    let options = SetOptions::parse(&arguments[end..])?;
    if options.only.is_some() || options.get {
        return Err(CommandError::Unsupported { what: String::from("msetex"), reason: unsupported::TOGETHER });
    }
    let expiry = options.expiry("msetex", store.now_ms())?;
    write_each(store, &arguments[2..end], expiry).await?;
    Ok(Reply::Integer(1))
}

/// Writes pairs of keys and values, each for itself. When one fails, others may have been written.
pub(super) async fn write_each<K: KeyValue>(
    store: &Store<'_, K>,
    pairs: &[Bytes],
    expiry: Expiry,
) -> Result<(), CommandError> {
    // The last value of a key that is named twice wins, whichever write would end first.
    let pairs: HashMap<Bytes, Bytes> =
        pairs.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    let write = async |(key, value): (Bytes, Bytes)| match expiry {
        Expiry::At(expires_at_ms) => {
            store.overwrite(key, value, expires_at_ms).await.map(drop).map_err(CommandError::from)
        }
        Expiry::Keep => {
            let change = Change::Replace { bytes: Some(value), expiry, only: Condition::Always, read: false };
            store.change(&key, change).await.map(drop)
        }
    };
    let results: Vec<Result<(), CommandError>> =
        stream::iter(pairs).map(write).buffer_unordered(OPERATIONS_MAX).collect().await;
    results.into_iter().collect()
}

/// `GETSET key value`
pub(super) async fn getset<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    exchange(store, &arguments[1], Some(arguments[2].clone())).await
}

/// `GETDEL key`
pub(super) async fn getdel<K: KeyValue>(store: &Store<'_, K>, key: &Bytes) -> Result<Reply, CommandError> {
    exchange(store, key, None).await
}

async fn exchange<K: KeyValue>(
    store: &Store<'_, K>,
    key: &Bytes,
    bytes: Option<Bytes>,
) -> Result<Reply, CommandError> {
    let change = Change::Replace { bytes, expiry: Expiry::At(None), only: Condition::Always, read: true };
    match store.change(key, change).await? {
        Outcome::Replaced { before: Some(before), .. } => Ok(Reply::Bulk(before)),
        _ => Ok(Reply::Null),
    }
}

/// `SETNX key value`
pub(super) async fn setnx<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let change = Change::Replace {
        bytes: Some(arguments[2].clone()),
        expiry: Expiry::At(None),
        only: Condition::Absent,
        read: false,
    };
    Ok(Reply::Integer(store.number(&arguments[1], change).await?))
}

/// `SETEX key seconds value` and `PSETEX key milliseconds value`
pub(super) async fn setex<K: KeyValue>(
    store: &Store<'_, K>,
    command: &'static str,
    arguments: &[Bytes],
    unit_ms: i64,
) -> Result<Reply, CommandError> {
    let number = integer(&arguments[2]).ok_or(CommandError::NotInteger)?;
    let expires_at_ms = expires_at(command, number, unit_ms, false, store.now_ms())?;
    store.overwrite(arguments[1].clone(), arguments[3].clone(), Some(expires_at_ms)).await?;
    Ok(Reply::OK)
}

/// When a value expires that was given this number, in milliseconds since 1970.
///
/// # Errors
/// The number is not above zero, or the time is further away than a number can say.
pub(super) fn expires_at(
    command: &'static str,
    number: i64,
    unit_ms: i64,
    absolute: bool,
    now_ms: u64,
) -> Result<u64, CommandError> {
    let base = if absolute { 0 } else { i64::try_from(now_ms).unwrap_or(i64::MAX) };
    let at = number.checked_mul(unit_ms).filter(|_| number > 0).and_then(|span| span.checked_add(base));
    at.and_then(|at| u64::try_from(at).ok()).ok_or(CommandError::ExpireTime(command))
}

/// How long a value shall live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Time {
        number: i64,
        unit_ms: i64,
        absolute: bool,
    },
    /// As long as the value before it.
    Keep,
}

#[derive(Debug)]
struct SetOptions {
    expiry: Option<Given>,
    only: Option<Only>,
    get: bool,
}

impl SetOptions {
    fn parse(arguments: &[Bytes]) -> Result<Self, CommandError> {
        let mut options = Self { expiry: None, only: None, get: false };
        let mut time = None;
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let name = argument.to_ascii_lowercase();
            let (unit_ms, absolute) = match name.as_slice() {
                b"get" => {
                    options.get = true;
                    continue;
                }
                b"keepttl" if time.is_none() => {
                    options.expiry = Some(Given::Keep);
                    continue;
                }
                b"nx" => {
                    options.require(Only::If(Condition::Absent))?;
                    continue;
                }
                b"xx" => {
                    options.require(Only::If(Condition::Present))?;
                    continue;
                }
                b"ifeq" | b"ifne" | b"ifdeq" | b"ifdne" => {
                    let value = arguments.next().filter(|_| options.only.is_none()).ok_or(CommandError::Syntax)?;
                    options.only = Only::of_value(&name, value).transpose()?;
                    continue;
                }
                b"ex" => (1000, false),
                b"px" => (1, false),
                b"exat" => (1000, true),
                b"pxat" => (1, true),
                _ => return Err(CommandError::Syntax),
            };
            let free = options.expiry.is_none() && time.is_none();
            time = Some((arguments.next().filter(|_| free).ok_or(CommandError::Syntax)?, unit_ms, absolute));
        }
        if let Some((number, unit_ms, absolute)) = time {
            let number = integer(number).ok_or(CommandError::NotInteger)?;
            options.expiry = Some(Given::Time { number, unit_ms, absolute });
        }
        Ok(options)
    }

    fn expiry(&self, command: &'static str, now_ms: u64) -> Result<Expiry, CommandError> {
        Ok(match self.expiry {
            Some(Given::Time { number, unit_ms, absolute }) => {
                Expiry::At(Some(expires_at(command, number, unit_ms, absolute, now_ms)?))
            }
            Some(Given::Keep) => Expiry::Keep,
            None => Expiry::At(None),
        })
    }

    fn require(&mut self, only: Only) -> Result<(), CommandError> {
        match self.only.replace(only.clone()) {
            Some(before) if before != only => Err(CommandError::Syntax),
            _ => Ok(()),
        }
    }
}

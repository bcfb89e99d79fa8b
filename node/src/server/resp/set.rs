//! SET and its older forms.

use super::error::CommandError;
use super::parse::integer;
use super::reply::Reply;
use super::value::read;
use crate::coordinator::{Causality, KeyValue, RequestError, Write, WriteOptions, Written};
use bytes::Bytes;
use dynamo::object::Payload;

/// Writes a value over whatever the coordinating replica has.
pub(super) async fn overwrite<K: KeyValue>(
    store: &K,
    key: Bytes,
    value: Bytes,
    expires_at_ms: Option<u64>,
) -> Result<Written, RequestError> {
    let write = Write { payload: Payload::Bytes(value), expires_at_ms, causality: Causality::Overwrite };
    store.put(key, write, WriteOptions::default()).await
}

/// `SET key value [GET] [EX seconds | PX milliseconds | EXAT seconds | PXAT milliseconds | KEEPTTL]`
pub(super) async fn set<K: KeyValue>(store: &K, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let options = SetOptions::parse(&arguments[3..])?;
    let expires_at_ms = match options.expiry {
        Some(Expiry::Given { number, unit_ms, absolute }) => {
            Some(expires_at("set", number, unit_ms, absolute, store.now_ms())?)
        }
        Some(Expiry::Keep) | None => None,
    };
    let (key, value) = (arguments[1].clone(), arguments[2].clone());
    if !options.get && options.expiry != Some(Expiry::Keep) {
        overwrite(store, key, value, expires_at_ms).await?;
        return Ok(Reply::OK);
    }
    let before = read(store, key.clone()).await?;
    let kept = before.as_ref().and_then(|before| before.expires_at_ms);
    let expires_at_ms = if options.expiry == Some(Expiry::Keep) { kept } else { expires_at_ms };
    overwrite(store, key, value, expires_at_ms).await?;
    if !options.get {
        return Ok(Reply::OK);
    }
    Ok(before.map_or(Reply::Null, |before| Reply::Bulk(before.bytes)))
}

/// `GETSET key value`
pub(super) async fn getset<K: KeyValue>(store: &K, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let before = read(store, arguments[1].clone()).await?;
    overwrite(store, arguments[1].clone(), arguments[2].clone(), None).await?;
    Ok(before.map_or(Reply::Null, |before| Reply::Bulk(before.bytes)))
}

/// `SETEX key seconds value` and `PSETEX key milliseconds value`
pub(super) async fn setex<K: KeyValue>(
    store: &K,
    command: &'static str,
    arguments: &[Bytes],
    unit_ms: i64,
) -> Result<Reply, CommandError> {
    let number = integer(&arguments[2]).ok_or(CommandError::NotInteger)?;
    let expires_at_ms = expires_at(command, number, unit_ms, false, store.now_ms())?;
    overwrite(store, arguments[1].clone(), arguments[3].clone(), Some(expires_at_ms)).await?;
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
enum Expiry {
    Given {
        number: i64,
        unit_ms: i64,
        absolute: bool,
    },
    /// As long as the value before it.
    Keep,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct SetOptions {
    expiry: Option<Expiry>,
    get: bool,
}

impl SetOptions {
    fn parse(arguments: &[Bytes]) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (unit_ms, absolute) = match argument.to_ascii_lowercase().as_slice() {
                b"get" => {
                    options.get = true;
                    continue;
                }
                b"keepttl" if options.expiry.is_none() => {
                    options.expiry = Some(Expiry::Keep);
                    continue;
                }
                b"nx" | b"xx" | b"ifeq" | b"ifne" | b"ifdeq" | b"ifdne" => {
                    return Err(CommandError::conditional("set", argument));
                }
                b"ex" => (1000, false),
                b"px" => (1, false),
                b"exat" => (1000, true),
                b"pxat" => (1, true),
                _ => return Err(CommandError::Syntax),
            };
            let number = arguments.next().filter(|_| options.expiry.is_none()).ok_or(CommandError::Syntax)?;
            let number = integer(number).ok_or(CommandError::NotInteger)?;
            options.expiry = Some(Expiry::Given { number, unit_ms, absolute });
        }
        Ok(options)
    }
}

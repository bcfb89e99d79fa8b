//! SET and its older forms, GETDEL.

use super::error::CommandError;
use super::parse::integer;
use super::reply::Reply;
use super::store::Store;
use crate::coordinator::KeyValue;
use bytes::Bytes;
use dynamo::object::{Change, Condition, Expiry, Outcome};

/// `SET key value [NX | XX | IFEQ value | IFNE value] [GET] [EX seconds | PX milliseconds | EXAT seconds |
/// PXAT milliseconds | KEEPTTL]`
pub(super) async fn set<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let options = SetOptions::parse(&arguments[3..])?;
    let expiry = match options.expiry {
        Some(Given::Time { number, unit_ms, absolute }) => {
            Expiry::At(Some(expires_at("set", number, unit_ms, absolute, store.now_ms())?))
        }
        Some(Given::Keep) => Expiry::Keep,
        None => Expiry::At(None),
    };
    let (key, value) = (&arguments[1], arguments[2].clone());
    if let (Expiry::At(expires_at_ms), Condition::Always, false) = (expiry, &options.only, options.get) {
        store.overwrite(key.clone(), value, expires_at_ms).await?;
        return Ok(Reply::OK);
    }
    let change = Change::Replace { bytes: Some(value), expiry, only: options.only, read: options.get };
    // Boxed, so that the usual SET, which does not come here, is no larger for it.
    Ok(match Box::pin(store.change(key, change)).await? {
        Outcome::Replaced { before, .. } if options.get => before.map_or(Reply::Null, Reply::Bulk),
        Outcome::Replaced { done: true, .. } => Reply::OK,
        _ => Reply::Null,
    })
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
    only: Condition,
    get: bool,
}

impl SetOptions {
    fn parse(arguments: &[Bytes]) -> Result<Self, CommandError> {
        let mut options = Self { expiry: None, only: Condition::Always, get: false };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let unconditional = options.only == Condition::Always;
            let (unit_ms, absolute) = match argument.to_ascii_lowercase().as_slice() {
                b"get" => {
                    options.get = true;
                    continue;
                }
                b"keepttl" if options.expiry.is_none() => {
                    options.expiry = Some(Given::Keep);
                    continue;
                }
                b"nx" if unconditional || options.only == Condition::Absent => {
                    options.only = Condition::Absent;
                    continue;
                }
                b"xx" if unconditional || options.only == Condition::Present => {
                    options.only = Condition::Present;
                    continue;
                }
                b"ifeq" if unconditional => {
                    options.only = Condition::Equal(arguments.next().ok_or(CommandError::Syntax)?.clone());
                    continue;
                }
                b"ifne" if unconditional => {
                    options.only = Condition::Different(arguments.next().ok_or(CommandError::Syntax)?.clone());
                    continue;
                }
                b"ex" => (1000, false),
                b"px" => (1, false),
                b"exat" => (1000, true),
                b"pxat" => (1, true),
                _ => return Err(CommandError::Syntax),
            };
            let number = arguments.next().filter(|_| options.expiry.is_none()).ok_or(CommandError::Syntax)?;
            let number = integer(number).ok_or(CommandError::NotInteger)?;
            options.expiry = Some(Given::Time { number, unit_ms, absolute });
        }
        Ok(options)
    }
}

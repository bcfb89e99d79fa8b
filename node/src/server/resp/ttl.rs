//! EXPIRE and its forms, TTL and its forms, PERSIST, GETEX.
//!
//! A value's expiry is part of the value, so changing it writes the value again: read, then write with the context that
//! was read. A write that came in between is therefore never discarded; but it would be older than ours, and the last
//! writer wins. So after the write the key is read once more, and if another write stands beside ours, that one is
//! written back as it was: the outcome is as if the expiry had been changed just before it.

use super::error::CommandError;
use super::parse::integer;
use super::reply::Reply;
use super::set;
use super::value::{Current, current, read};
use crate::coordinator::{Causality, KeyValue, ReadOptions, RequestError, Write, WriteOptions};
use bytes::Bytes;
use dynamo::object::{Object, Payload};

/// Unit of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// As in EXPIRE.
    Seconds,
    /// As in PEXPIRE.
    Milliseconds,
}

/// Where a time counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// As in EXPIRE.
    Now,
    /// As in EXPIREAT.
    Epoch,
}

/// `EXPIRE key time` and its forms. A time that is past deletes the key.
pub(super) async fn expire<K: KeyValue>(
    store: &K,
    command: &'static str,
    arguments: &[Bytes],
    unit: Unit,
    from: From,
) -> Result<Reply, CommandError> {
    let number = integer(&arguments[2]).ok_or(CommandError::NotInteger)?;
    if let Some(option) = arguments.get(3) {
        return Err(match option.to_ascii_lowercase().as_slice() {
            b"nx" | b"xx" | b"gt" | b"lt" => CommandError::conditional(command, option),
            _ => CommandError::Fixed("ERR Unsupported option"),
        });
    }
    let base = if from == From::Now { i64::try_from(store.now_ms()).unwrap_or(i64::MAX) } else { 0 };
    let at_ms = number.checked_mul(unit.milliseconds()).and_then(|span| span.checked_add(base));
    let at_ms = at_ms.ok_or(CommandError::ExpireTime(command))?;
    let at_ms = u64::try_from(at_ms).unwrap_or(0);
    let past = at_ms <= store.now_ms();
    let changed = amend(store, &arguments[1], |before| {
        Some(if past {
            Amended { payload: Payload::Tombstone, expires_at_ms: None }
        } else {
            Amended { payload: Payload::Bytes(before.bytes.clone()), expires_at_ms: Some(at_ms) }
        })
    });
    Ok(Reply::Integer(i64::from(changed.await?.changed)))
}

/// `PERSIST key`
pub(super) async fn persist<K: KeyValue>(store: &K, key: &Bytes) -> Result<Reply, CommandError> {
    let changed = amend(store, key, |before| {
        before.expires_at_ms?;
        Some(Amended { payload: Payload::Bytes(before.bytes.clone()), expires_at_ms: None })
    });
    Ok(Reply::Integer(i64::from(changed.await?.changed)))
}

/// `GETEX key [EX seconds | PX milliseconds | EXAT seconds | PXAT milliseconds | PERSIST]`
pub(super) async fn getex<K: KeyValue>(store: &K, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let expires_at_ms = match &arguments[2..] {
        [] => return super::strings::get(store, &arguments[1]).await,
        [option] if option.eq_ignore_ascii_case(b"persist") => None,
        [option, number] => {
            let (unit_ms, absolute) = match option.to_ascii_lowercase().as_slice() {
                b"ex" => (1000, false),
                b"px" => (1, false),
                b"exat" => (1000, true),
                b"pxat" => (1, true),
                _ => return Err(CommandError::Syntax),
            };
            let number = integer(number).ok_or(CommandError::NotInteger)?;
            Some(set::expires_at("getex", number, unit_ms, absolute, store.now_ms())?)
        }
        _ => return Err(CommandError::Syntax),
    };
    let amended = amend(store, &arguments[1], |before| {
        (before.expires_at_ms != expires_at_ms)
            .then(|| Amended { payload: Payload::Bytes(before.bytes.clone()), expires_at_ms })
    });
    Ok(amended.await?.before.map_or(Reply::Null, |before| Reply::Bulk(before.bytes)))
}

/// `TTL key`: -1: it never expires; -2: there is no such key.
pub(super) async fn left<K: KeyValue>(store: &K, key: &Bytes, unit: Unit) -> Result<Reply, CommandError> {
    let found = read(store, key.clone()).await?;
    let now_ms = store.now_ms();
    Ok(told(found, |at_ms| unit.rounded(at_ms.saturating_sub(now_ms))))
}

/// `EXPIRETIME key`: -1: it never expires; -2: there is no such key.
pub(super) async fn expiry<K: KeyValue>(store: &K, key: &Bytes, unit: Unit) -> Result<Reply, CommandError> {
    Ok(told(read(store, key.clone()).await?, |at_ms| unit.rounded(at_ms)))
}

impl Unit {
    fn milliseconds(self) -> i64 {
        match self {
            Self::Seconds => 1000,
            Self::Milliseconds => 1,
        }
    }

    /// A time in this unit, to the nearest.
    fn rounded(self, time_ms: u64) -> i64 {
        let time = match self {
            Self::Seconds => time_ms.saturating_add(500) / 1000,
            Self::Milliseconds => time_ms,
        };
        i64::try_from(time).unwrap_or(i64::MAX)
    }
}

fn told(found: Option<Current>, tell: impl FnOnce(u64) -> i64) -> Reply {
    Reply::Integer(match found {
        None => -2,
        Some(Current { expires_at_ms: None, .. }) => -1,
        Some(Current { expires_at_ms: Some(at_ms), .. }) => tell(at_ms),
    })
}

/// What a value is to become.
struct Amended {
    payload: Payload,
    expires_at_ms: Option<u64>,
}

/// What an amendment found and did.
struct Amendment {
    before: Option<Current>,
    changed: bool,
}

/// Writes a key's value again with something changed about it, giving way to writes that come in between.
async fn amend<K: KeyValue>(
    store: &K,
    key: &Bytes,
    change: impl FnOnce(&Current) -> Option<Amended>,
) -> Result<Amendment, RequestError> {
    let object = store.get(key.clone(), ReadOptions::default()).await?;
    let before = current(&object, store.now_ms());
    let Some(Amended { payload, expires_at_ms }) = before.as_ref().and_then(change) else {
        return Ok(Amendment { before, changed: false });
    };
    let causality = Causality::Context(object.context());
    let write = Write { payload, expires_at_ms, causality };
    let written = store.put(key.clone(), write, WriteOptions::default()).await?;
    let after = store.get(key.clone(), ReadOptions::default()).await?;
    if let Some(restored) = overtaken(&after, written.timestamp) {
        store.put(key.clone(), restored, WriteOptions::default()).await?;
    }
    Ok(Amendment { before, changed: true })
}

/// The write to be put back when ours stands beside others: the newest of them.
fn overtaken(object: &Object, ours: dynamo::hlc::Hlc) -> Option<Write> {
    if !object.siblings().any(|(_, sibling)| sibling.timestamp == ours) {
        return None;
    }
    let others = object.siblings().map(|(_, sibling)| sibling).filter(|sibling| sibling.timestamp != ours);
    let newest = others.max_by_key(|sibling| sibling.timestamp)?;
    Some(Write {
        payload: newest.payload.clone(),
        expires_at_ms: newest.expires_at_ms,
        causality: Causality::Context(object.context()),
    })
}

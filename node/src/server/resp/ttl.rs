//! EXPIRE and its forms, TTL and its forms, PERSIST, GETEX.
//!
//! Changing when a key expires is one step at the replica that coordinates it. The value keeps the time it was written
//! at, so a write that comes at the same time elsewhere wins: as if the expiry had been changed just before it.

use super::error::{CommandError, shown};
use super::parse::integer;
use super::reply::Reply;
use super::set;
use super::store::Store;
use crate::coordinator::KeyValue;
use bytes::Bytes;
use dynamo::object::{Change, ExpiryCondition, Outcome, Visible};

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

/// `EXPIRE key time [NX | XX | GT | LT]` and its forms. A time that is past deletes the key.
pub(super) async fn expire<K: KeyValue>(
    store: &Store<'_, K>,
    command: &'static str,
    arguments: &[Bytes],
    unit: Unit,
    from: From,
) -> Result<Reply, CommandError> {
    let only = condition(&arguments[3..])?;
    let number = integer(&arguments[2]).ok_or(CommandError::NotInteger)?;
    let base = if from == From::Now { i64::try_from(store.now_ms()).unwrap_or(i64::MAX) } else { 0 };
    let at_ms = number.checked_mul(unit.milliseconds()).and_then(|span| span.checked_add(base));
    let at_ms = at_ms.ok_or(CommandError::ExpireTime(command))?;
    let at_ms = Some(u64::try_from(at_ms).unwrap_or(0));
    Ok(Reply::Integer(store.number(&arguments[1], Change::Expire { at_ms, only, read: false }).await?))
}

fn condition(options: &[Bytes]) -> Result<ExpiryCondition, CommandError> {
    let (mut absent, mut present, mut later, mut earlier) = (false, false, false, false);
    for option in options {
        match option.to_ascii_lowercase().as_slice() {
            b"nx" => absent = true,
            b"xx" => present = true,
            b"gt" => later = true,
            b"lt" => earlier = true,
            _ => return Err(CommandError::ExpireOption(shown(Some(option)))),
        }
    }
    if absent && (present || later || earlier) {
        return Err(CommandError::Fixed("ERR NX and XX, GT or LT options at the same time are not compatible"));
    }
    if later && earlier {
        return Err(CommandError::Fixed("ERR GT and LT options at the same time are not compatible"));
    }
    Ok(match (absent, present, later, earlier) {
        (true, ..) => ExpiryCondition::Absent,
        (_, true, later, earlier) => ExpiryCondition::Present { later, earlier },
        (_, _, true, _) => ExpiryCondition::Later,
        (_, _, _, true) => ExpiryCondition::Earlier,
        _ => ExpiryCondition::Always,
    })
}

/// `PERSIST key`
pub(super) async fn persist<K: KeyValue>(store: &Store<'_, K>, key: &Bytes) -> Result<Reply, CommandError> {
    let change = Change::Expire { at_ms: None, only: ExpiryCondition::Always, read: false };
    Ok(Reply::Integer(store.number(key, change).await?))
}

/// `GETEX key [EX seconds | PX milliseconds | EXAT seconds | PXAT milliseconds | PERSIST]`
pub(super) async fn getex<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let at_ms = match &arguments[2..] {
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
    let change = Change::Expire { at_ms, only: ExpiryCondition::Always, read: true };
    match store.change(&arguments[1], change).await? {
        Outcome::Replaced { before: Some(before), .. } => Ok(Reply::Bulk(before)),
        _ => Ok(Reply::Null),
    }
}

/// `TTL key`: -1: it never expires; -2: there is no such key.
pub(super) async fn left<K: KeyValue>(
    store: &Store<'_, K>,
    key: &Bytes,
    unit: Unit,
) -> Result<Reply, CommandError> {
    let found = store.read(key).await?;
    let now_ms = store.now_ms();
    Ok(told(found.visible(), |at_ms| unit.rounded(at_ms.saturating_sub(now_ms))))
}

/// `EXPIRETIME key`: -1: it never expires; -2: there is no such key.
pub(super) async fn expiry<K: KeyValue>(
    store: &Store<'_, K>,
    key: &Bytes,
    unit: Unit,
) -> Result<Reply, CommandError> {
    Ok(told(store.read(key).await?.visible(), |at_ms| unit.rounded(at_ms)))
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

fn told(found: Option<Visible<'_>>, tell: impl FnOnce(u64) -> i64) -> Reply {
    Reply::Integer(match found.map(|visible| visible.expires_at_ms) {
        None => -2,
        Some(None) => -1,
        Some(Some(at_ms)) => tell(at_ms),
    })
}

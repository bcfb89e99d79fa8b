//! GETBIT, SETBIT, BITCOUNT, BITPOS.

use super::error::CommandError;
use super::numbers::replace;
use super::parse::integer;
use super::reply::Reply;
use super::store::{ATTEMPTS_MAX, Store};
use crate::coordinator::KeyValue;
use bytes::{Bytes, BytesMut};

const NOT_OFFSET: CommandError = CommandError::Fixed("ERR bit offset is not an integer or out of range");

/// `GETBIT key offset`
pub(super) async fn getbit<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let (byte, mask) = place(&arguments[2])?;
    let value = store.string(&arguments[1]).await?.unwrap_or_default();
    Ok(Reply::Integer(i64::from(value.get(byte).is_some_and(|byte| byte & mask != 0))))
}

/// `SETBIT key offset bit`: read, change, and write if nothing else was written meanwhile.
pub(super) async fn setbit<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let (byte, mask) = place(&arguments[2])?;
    let bit = match integer(&arguments[3]) {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(CommandError::Fixed("ERR bit is not an integer or out of range")),
    };
    if byte >= store.limits().value_bytes_max {
        return Err(NOT_OFFSET);
    }
    for _ in 0..ATTEMPTS_MAX {
        let before = store.string(&arguments[1]).await?;
        let mut after = BytesMut::from(before.as_deref().unwrap_or_default());
        if after.len() <= byte {
            after.resize(byte + 1, 0);
        }
        let old = after[byte] & mask != 0;
        after[byte] = if bit { after[byte] | mask } else { after[byte] & !mask };
        if before.as_deref() == Some(&after[..]) || replace(store, &arguments[1], before, after.freeze()).await? {
            return Ok(Reply::Integer(i64::from(old)));
        }
    }
    Err(CommandError::Contended)
}

/// `BITCOUNT key [start end [BYTE | BIT]]`
pub(super) async fn bitcount<K: KeyValue>(
    store: &Store<'_, K>,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let (range, bits) = match &arguments[2..] {
        [] => (None, false),
        [start, end] => (Some((start, end)), false),
        [start, end, unit] if unit.eq_ignore_ascii_case(b"byte") => (Some((start, end)), false),
        [start, end, unit] if unit.eq_ignore_ascii_case(b"bit") => (Some((start, end)), true),
        _ => return Err(CommandError::Syntax),
    };
    let range = match range {
        Some((start, end)) => {
            Some((integer(start).ok_or(CommandError::NotInteger)?, integer(end).ok_or(CommandError::NotInteger)?))
        }
        None => None,
    };
    let value = store.string(&arguments[1]).await?.unwrap_or_default();
    let length = value.len() * if bits { 8 } else { 1 };
    let (start, end) = match range {
        None => (0, length),
        Some((start, end)) => span(start, end, length),
    };
    let count: u32 = if bits {
        (start..end).map(|bit| u32::from(value[bit / 8] >> (7 - bit % 8) & 1)).sum()
    } else {
        value[start..end].iter().map(|byte| byte.count_ones()).sum()
    };
    Ok(Reply::Integer(i64::from(count)))
}

/// `BITPOS key bit [start [end [BYTE | BIT]]]`
pub(super) async fn bitpos<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let wanted = match integer(&arguments[2]).ok_or(CommandError::NotInteger)? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::Fixed("ERR The bit argument must be 1 or 0.")),
    };
    let number =
        |at: usize| arguments.get(at).map(|text| integer(text).ok_or(CommandError::NotInteger)).transpose();
    let start = number(3)?;
    let bits = match &arguments[3..] {
        [] | [_] | [_, _] => false,
        [_, _, unit] if unit.eq_ignore_ascii_case(b"byte") => false,
        [_, _, unit] if unit.eq_ignore_ascii_case(b"bit") => true,
        _ => return Err(CommandError::Syntax),
    };
    let end = number(4)?;
    let Some(value) = store.string(&arguments[1]).await? else {
        return Ok(Reply::Integer(if wanted { -1 } else { 0 }));
    };
    let unit = if bits { 1 } else { 8 };
    let (from, to) = span(start.unwrap_or(0), end.unwrap_or(-1), value.len() * 8 / unit);
    let found = (from * unit..to * unit).find(|bit| (value[bit / 8] >> (7 - bit % 8) & 1 == 1) == wanted);
    Ok(match found {
        Some(bit) => Reply::count(bit),
        // Without an end a string is taken to go on with zeros.
        None if !wanted && end.is_none() && from < to => Reply::count(value.len() * 8),
        None => Reply::Integer(-1),
    })
}

/// From and to, the latter excluded; positions below zero count from the end.
fn span(start: i64, end: i64, length: usize) -> (usize, usize) {
    let total = i64::try_from(length).unwrap_or(i64::MAX);
    if start < 0 && end < 0 && start > end {
        return (0, 0);
    }
    let place = |position: i64| if position < 0 { position.saturating_add(total).max(0) } else { position };
    let (start, end) = (place(start), place(end).min(total - 1));
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) if start <= end => (start, end + 1),
        _ => (0, 0),
    }
}

/// Byte and mask of a bit.
fn place(offset: &Bytes) -> Result<(usize, u8), CommandError> {
    // As many bits as Redis counts: those of 512 MiB.
    let offset = integer(offset).and_then(|offset| u32::try_from(offset).ok()).ok_or(NOT_OFFSET)?;
    Ok((offset as usize / 8, 0x80 >> (offset % 8)))
}

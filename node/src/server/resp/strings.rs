//! GET, MGET, MSET, GETRANGE, STRLEN, APPEND, SETRANGE.

use super::error::CommandError;
use super::parse::integer;
use super::reply::Reply;
use super::set::write_each;
use super::several::read_each;
use super::store::Store;
use crate::coordinator::KeyValue;
use bytes::Bytes;
use dynamo::object::{Change, Expiry};

/// `GET key`
pub(super) async fn get<K: KeyValue>(store: &Store<'_, K>, key: &Bytes) -> Result<Reply, CommandError> {
    Ok(store.string(key).await?.map_or(Reply::Null, Reply::Bulk))
}

/// `MGET key [key …]`: each read for itself; one that cannot be read fails the command. What is no string is nothing.
pub(super) async fn mget<K: KeyValue>(store: &Store<'_, K>, keys: &[Bytes]) -> Result<Reply, CommandError> {
    let bytes_max = store.limits().connection_reply_bytes_max;
    let (mut replies, mut bytes) = (vec![Reply::Null; keys.len()], 0);
    read_each(store, keys.iter(), |place, found| {
        if let Ok(Some(value)) = found.string() {
            bytes += value.len();
            replies[place] = Reply::Bulk(value);
        }
        if bytes > bytes_max { Err(CommandError::ReplyTooLarge { bytes_max }) } else { Ok(()) }
    })
    .await?;
    Ok(Reply::Array(replies))
}

/// `MSET key value [key value …]`: each written for itself. When one fails, others may have been written.
pub(super) async fn mset<K: KeyValue>(store: &Store<'_, K>, pairs: &[Bytes]) -> Result<Reply, CommandError> {
    write_each(store, pairs, Expiry::At(None)).await?;
    Ok(Reply::OK)
}

/// `GETRANGE key start end`, where negative positions count from the end.
pub(super) async fn getrange<K: KeyValue>(
    store: &Store<'_, K>,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let start = integer(&arguments[2]).ok_or(CommandError::NotInteger)?;
    let end = integer(&arguments[3]).ok_or(CommandError::NotInteger)?;
    let value = store.string(&arguments[1]).await?.unwrap_or_default();
    Ok(Reply::Bulk(part(&value, start, end)))
}

/// `STRLEN key`
pub(super) async fn strlen<K: KeyValue>(store: &Store<'_, K>, key: &Bytes) -> Result<Reply, CommandError> {
    Ok(Reply::count(store.string(key).await?.map_or(0, |value| value.len())))
}

/// `APPEND key value`
pub(super) async fn append<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    Ok(Reply::Integer(store.number(&arguments[1], Change::Append(arguments[2].clone())).await?))
}

/// `SETRANGE key offset value`
pub(super) async fn setrange<K: KeyValue>(
    store: &Store<'_, K>,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let offset = integer(&arguments[2]).ok_or(CommandError::NotInteger)?;
    let offset = u64::try_from(offset).map_err(|_| CommandError::Fixed("ERR offset is out of range"))?;
    let bytes = arguments[3].clone();
    let end = usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(bytes.len());
    if !bytes.is_empty() && end > store.limits().value_bytes_max {
        return Err(CommandError::Fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)"));
    }
    Ok(Reply::Integer(store.number(&arguments[1], Change::SetRange { offset, bytes }).await?))
}

fn part(value: &Bytes, start: i64, end: i64) -> Bytes {
    let length = i64::try_from(value.len()).unwrap_or(i64::MAX);
    let from_start = |position: i64| if position < 0 { position.saturating_add(length).max(0) } else { position };
    if start < 0 && end < 0 && start > end {
        return Bytes::new();
    }
    let (start, end) = (from_start(start), from_start(end).min(length - 1));
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) if start <= end => value.slice(start..=end),
        _ => Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::part;
    use bytes::Bytes;

    #[test]
    fn parts_as_redis_cuts_them() {
        let value = Bytes::from_static(b"This is a string");
        for (start, end, expected) in [
            (0, 3, "This"),
            (-3, -1, "ing"),
            (0, -1, "This is a string"),
            (10, 100, "string"),
            (5, 3, ""),
            (-1, -5, ""),
            (-100, 3, "This"),
            (0, -100, "T"),
            (i64::MIN, i64::MAX, "This is a string"),
            (16, 20, ""),
        ] {
            assert_eq!(part(&value, start, end), expected, "{start} {end}");
        }
        assert_eq!(part(&Bytes::new(), 0, -1), "");
    }
}

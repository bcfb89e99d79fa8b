//! SCAN, KEYS and RANDOMKEY: walks along the ring.
//!
//! A cursor is a place on the ring: the number of the block of 2^11 tokens to go on with. It says all there is to say,
//! so any node can go on with it, at any time, whatever became of the partitions since; and it is below 2^53, so
//! clients that read numbers as floating point keep it whole. A page ends only between blocks. Every key that is there
//! during the whole walk is returned at least once.

use super::dispatch::OPERATIONS_MAX;
use super::error::CommandError;
use super::glob;
use super::parse::integer;
use super::reply::Reply;
use super::store::{Store, kind_name};
use crate::coordinator::{KeyValue, RequestError};
use bytes::{BufMut, Bytes, BytesMut};
use dynamo::object::Kind;
use dynamo::ring::RingView;
use dynamo::token::{Token, first_token};
use futures::stream::{self, StreamExt, TryStreamExt};

/// Tokens of a block, as a power of two. No partition is smaller: 2^50 tokens make a hash slot.
const BLOCK_BITS: u32 = 11;
/// Hash slots, as a power of two.
const SLOT_BITS: u32 = 14;
/// First number that is no block.
const BLOCK_END: u64 = 1 << (64 - BLOCK_BITS);
/// Keys that SCAN looks for unless told otherwise, as in Redis.
const COUNT_DEFAULT: usize = 10;
/// Most keys that one SCAN looks for.
pub(super) const COUNT_MAX: usize = 10_000;
/// Most keys that one SCAN looks at before it returns fewer than it was asked for, because most of them were deleted.
const LOOKED_AT_MAX: usize = 1000;
/// Most partitions that one SCAN looks into: those of a nearly empty cluster.
const PARTITIONS_MAX: u32 = 512;
/// Most partitions looked into at once.
const PARTITIONS_AT_ONCE_MAX: u32 = 32;
/// About as much is looked at once, in bytes.
const AT_ONCE_BYTES: usize = 4 << 20;

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`
pub(super) async fn scan<K: KeyValue>(store: &K, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let cursor = std::str::from_utf8(&arguments[1]).ok().and_then(|cursor| cursor.parse::<u64>().ok());
    let cursor = cursor.filter(|&cursor| cursor < BLOCK_END).ok_or(CommandError::Cursor)?;
    let options = ScanOptions::parse(&arguments[2..])?;
    let view = store.ring().ok_or(RequestError::NoRing)?;
    let (mut found, mut live, mut looked_at) = (Vec::new(), 0, 0);
    let (mut next, mut count) = (Some(cursor), options.count);
    while let Some(from) = next {
        let page = walk(store, &view, from, count, PARTITIONS_MAX).await?;
        found.extend(page.live_keys(options.pattern, options.kind));
        let here = page.items.iter().filter(|item| item.kind.is_some()).count();
        live += here;
        looked_at += page.items.len();
        next = page.next;
        // Few, and not for want of keys: as many partitions were looked into as may be.
        let sparse = page.items.len() < count;
        if live >= options.count || looked_at >= LOOKED_AT_MAX || sparse {
            break;
        }
        // Marks of deleted keys do not count. Where there is nothing else, more is looked at in one go.
        count = if here == 0 { (count * 4).min(LOOKED_AT_MAX) } else { options.count - live };
    }
    Ok(Reply::Array(vec![Reply::Text(next.unwrap_or(0).to_string()), Reply::Array(found)]))
}

/// `KEYS pattern`, refused when the reply gets larger than a connection may hold.
pub(super) async fn keys<K: KeyValue>(store: &K, pattern: &Bytes) -> Result<Reply, CommandError> {
    let view = store.ring().ok_or(RequestError::NoRing)?;
    let bytes_max = store.limits().connection_reply_bytes_max;
    let (mut found, mut bytes, mut block) = (Vec::new(), 0, Some(0));
    while let Some(from) = block {
        let page = walk(store, &view, from, COUNT_MAX, PARTITIONS_MAX).await?;
        let keys = page.live_keys(Some(pattern), None);
        bytes += keys.iter().map(Reply::bytes).sum::<usize>();
        if bytes > bytes_max {
            return Err(CommandError::ReplyTooLarge { bytes_max });
        }
        found.extend(keys);
        block = page.next;
    }
    Ok(Reply::Array(found))
}

/// `RANDOMKEY`: the first key from a random place on, so keys after a long gap are likelier.
pub(super) async fn random_key<K: KeyValue>(store: &K) -> Result<Reply, CommandError> {
    let view = store.ring().ok_or(RequestError::NoRing)?;
    let start = rand::random_range(0..BLOCK_END);
    // From there to the end, then from the beginning.
    for first in [start, 0] {
        let mut block = Some(first);
        while let Some(from) = block {
            let page = walk(store, &view, from, 1, PARTITIONS_MAX).await?;
            if let Some(key) = page.live_keys(None, None).into_iter().next() {
                return Ok(key);
            }
            block = page.next;
        }
    }
    Ok(Reply::Null)
}

/// `FLUSHALL [ASYNC | SYNC]`: deletes every key that one walk finds, if the node allows it. What is written meanwhile may
/// stay.
pub(super) async fn flush<K: KeyValue>(store: &Store<'_, K>, options: &[Bytes]) -> Result<Reply, CommandError> {
    match options {
        [] => {}
        [mode] if mode.eq_ignore_ascii_case(b"async") || mode.eq_ignore_ascii_case(b"sync") => {}
        _ => return Err(CommandError::Syntax),
    }
    if !store.limits().redis.flush_allowed {
        return Err(CommandError::Unsupported {
            what: String::from("flushall"),
            reason: "is not allowed on this cluster; delete the KeyValueCluster, or the keys that SCAN returns",
        });
    }
    let view = store.ring().ok_or(RequestError::NoRing)?;
    let mut block = Some(0);
    while let Some(from) = block {
        let page = walk(store.inner, &view, from, COUNT_MAX, PARTITIONS_MAX).await?;
        let live = page.items.into_iter().filter(|item| item.kind.is_some());
        let keys = live.map(|item| item.key);
        let mut deletes = stream::iter(keys).map(|key| store.bury(key)).buffer_unordered(OPERATIONS_MAX);
        while deletes.try_next().await?.is_some() {}
        block = page.next;
    }
    Ok(Reply::OK)
}

struct ScanOptions<'a> {
    pattern: Option<&'a Bytes>,
    count: usize,
    /// Of which type, as TYPE tells it.
    kind: Option<&'a Bytes>,
}

impl<'a> ScanOptions<'a> {
    fn parse(arguments: &'a [Bytes]) -> Result<Self, CommandError> {
        let mut options = Self { pattern: None, count: COUNT_DEFAULT, kind: None };
        for pair in arguments.chunks(2) {
            let [option, value] = pair else { return Err(CommandError::Syntax) };
            match option.to_ascii_lowercase().as_slice() {
                b"match" => options.pattern = Some(value),
                b"type" => options.kind = Some(value),
                b"count" => {
                    let count = integer(value).ok_or(CommandError::NotInteger)?;
                    let count =
                        usize::try_from(count).ok().filter(|&count| count > 0).ok_or(CommandError::Syntax)?;
                    options.count = count.min(COUNT_MAX);
                }
                _ => return Err(CommandError::Syntax),
            }
        }
        Ok(options)
    }
}

/// A part of a walk.
pub(super) struct Page {
    pub(super) items: Vec<Item>,
    /// Block to go on with; `None`: this was the end of the ring.
    pub(super) next: Option<u64>,
}

/// A key that a walk came by. What it holds is not kept: it can be large.
pub(super) struct Item {
    pub(super) key: Bytes,
    /// `None`: it was deleted or has expired.
    kind: Option<Kind>,
}

impl Page {
    /// Those of its keys that can be read, match, and are of a type.
    pub(super) fn live_keys(&self, pattern: Option<&Bytes>, kind: Option<&Bytes>) -> Vec<Reply> {
        let matching = |key: &Bytes| pattern.is_none_or(|pattern| glob::matches(pattern, key));
        let of_kind = |found: Option<Kind>| {
            found.is_some_and(|found| {
                kind.is_none_or(|kind| kind.eq_ignore_ascii_case(kind_name(found).as_bytes()))
            })
        };
        let live = self.items.iter().filter(|item| of_kind(item.kind) && matching(&item.key));
        live.map(|item| Reply::Bulk(item.key.clone())).collect()
    }
}

/// Walks from a block on until about `count` keys are found or `partitions_max` partitions looked into.
///
/// Where partitions turn out nearly empty, twice as many are looked into at once the next time.
pub(super) async fn walk<K: KeyValue>(
    store: &K,
    view: &RingView,
    mut block: u64,
    count: usize,
    partitions_max: u32,
) -> Result<Page, RequestError> {
    let (mut items, mut visited, mut width) = (Vec::new(), 0, 1);
    while visited < partitions_max {
        let first = view.partition(Token(block << BLOCK_BITS));
        let end = (first + width).min(view.count().get());
        let left = count - items.len();
        let from = block;
        let starts = (first..end).map(|partition| from.max(first_block(view, partition)));
        let parts = stream::iter((first..end).zip(starts));
        let mut parts =
            parts.map(|(partition, from)| part(store, view, partition, from, left)).buffered(width as usize);
        let (mut partition, mut bytes) = (first, 0);
        while let Some(part) = parts.try_next().await? {
            items.extend(part.items);
            bytes += part.bytes;
            partition += 1;
            let next =
                part.next.or_else(|| (partition < view.count().get()).then(|| first_block(view, partition)));
            match next {
                None => return Ok(Page { items, next: None }),
                Some(next) => block = next,
            }
            if part.next.is_some() || items.len() >= count {
                return Ok(Page { items, next });
            }
        }
        visited += end - first;
        let wider = bytes <= AT_ONCE_BYTES / 2;
        width = if wider { (width * 2).min(PARTITIONS_AT_ONCE_MAX) } else { (width / 2).max(1) };
    }
    Ok(Page { items, next: Some(block) })
}

/// What a walk found in one partition.
struct Part {
    items: Vec<Item>,
    /// Of all that was looked at.
    bytes: usize,
    /// Block to go on with; `None`: the partition is at its end.
    next: Option<u64>,
}

/// About `count` keys of one partition from a block on.
async fn part<K: KeyValue>(
    store: &K,
    view: &RingView,
    partition: u32,
    from: u64,
    count: usize,
) -> Result<Part, RequestError> {
    let block_of = |key: &[u8]| view.token(key).0 >> BLOCK_BITS;
    let mut after = (from > first_block(view, partition)).then(|| just_before(from));
    let (mut items, mut bytes) = (Vec::new(), 0);
    loop {
        // One more than asked for: the last block of a page may go on in the next one, so it is left for that.
        let page = store.scan(partition, after, count + 1).await?;
        let now_ms = store.now_ms();
        bytes += page.items.iter().map(|(key, object)| key.len() + object.encoded_len()).sum::<usize>();
        let wanted = page.items.iter().filter(|(key, _)| block_of(key) >= from);
        // A slice of a page would keep all of it.
        items.extend(wanted.map(|(key, object)| Item {
            key: Bytes::copy_from_slice(key),
            kind: object.visible(now_ms).map(|visible| visible.kind),
        }));
        let Some(next) = page.next else { return Ok(Part { items, bytes, next: None }) };
        if let Some(last) = items.last() {
            let last = block_of(&last.key);
            let complete = items.partition_point(|item| block_of(&item.key) < last);
            if complete > 0 {
                items.truncate(complete);
                return Ok(Part { items, bytes, next: Some(last) });
            }
        }
        after = Some(next);
    }
}

/// Number of the block that a hash slot begins with.
pub(super) fn first_block_of_slot(slot: u16) -> u64 {
    u64::from(slot) << (64 - SLOT_BITS - BLOCK_BITS)
}

/// The hash slot that a token is in.
pub(super) fn slot_of(token: Token) -> u16 {
    u16::try_from(token.0 >> (64 - SLOT_BITS)).unwrap_or(u16::MAX)
}

fn first_block(view: &RingView, partition: u32) -> u64 {
    first_token(partition, view.count()).0 >> BLOCK_BITS
}

/// A storage key behind almost all keys of the tokens before a block: the last of these tokens and a tail of the
/// highest bytes. What still comes after it and belongs to the block before is filtered out.
fn just_before(block: u64) -> Bytes {
    let mut storage_key = BytesMut::with_capacity(24);
    storage_key.put_u64((block << BLOCK_BITS).saturating_sub(1));
    storage_key.put_bytes(0xff, 16);
    storage_key.freeze()
}

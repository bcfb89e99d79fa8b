//! Sets: SADD, SREM, SMEMBERS and the like.

use super::error::CommandError;
use super::glob;
use super::parse::integer;
use super::reply::Reply;
use super::several::read_each;
use super::store::{ATTEMPTS_MAX, Found, Store};
use crate::coordinator::KeyValue;
use bytes::Bytes;
use dynamo::object::{Change, Kind, Visible};
use std::collections::BTreeSet;

/// Most members that are drawn with repetition at once.
const DRAWS_MAX: i64 = 1 << 20;

/// `SADD key member [member …]`
pub(super) async fn sadd<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let change = Change::AddMembers(arguments[2..].to_vec());
    Ok(Reply::Integer(store.number(&arguments[1], change).await?))
}

/// `SREM key member [member …]`
pub(super) async fn srem<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let change = Change::RemoveMembers(arguments[2..].to_vec());
    Ok(Reply::Integer(store.number(&arguments[1], change).await?))
}

/// `SMEMBERS key`
pub(super) async fn smembers<K: KeyValue>(store: &Store<'_, K>, key: &Bytes) -> Result<Reply, CommandError> {
    let members = members(&store.read(key).await?)?;
    Ok(Reply::Set(members.into_iter().map(Reply::Bulk).collect()))
}

/// `SCARD key`
pub(super) async fn scard<K: KeyValue>(store: &Store<'_, K>, key: &Bytes) -> Result<Reply, CommandError> {
    Ok(Reply::count(members(&store.read(key).await?)?.len()))
}

/// `SISMEMBER key member`
pub(super) async fn sismember<K: KeyValue>(
    store: &Store<'_, K>,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let found = store.read(&arguments[1]).await?;
    let set = found.of_kind(Kind::Set)?;
    Ok(Reply::Integer(i64::from(set.is_some_and(|set| set.has_member(&arguments[2])))))
}

/// `SMISMEMBER key member [member …]`
pub(super) async fn smismember<K: KeyValue>(
    store: &Store<'_, K>,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let found = store.read(&arguments[1]).await?;
    let set = found.of_kind(Kind::Set)?;
    let has = |member: &Bytes| Reply::Integer(i64::from(set.is_some_and(|set| set.has_member(member))));
    Ok(Reply::Array(arguments[2..].iter().map(has).collect()))
}

/// `SRANDMEMBER key [count]`: a negative count draws with repetition.
pub(super) async fn srandmember<K: KeyValue>(
    store: &Store<'_, K>,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let count = match &arguments[2..] {
        [] => None,
        [count] => Some(count_to_draw(count)?),
        _ => return Err(CommandError::Syntax),
    };
    let members = members(&store.read(&arguments[1]).await?)?;
    let Some(count) = count else {
        return Ok(draw(members.len(), -1).first().map_or(Reply::Null, |&at| Reply::Bulk(members[at].clone())));
    };
    let drawn = draw(members.len(), count);
    Ok(Reply::Array(drawn.into_iter().map(|at| Reply::Bulk(members[at].clone())).collect()))
}

/// A count of SRANDMEMBER or HRANDFIELD.
pub(super) fn count_to_draw(count: &Bytes) -> Result<i64, CommandError> {
    let count = integer(count).ok_or(CommandError::NotInteger)?;
    if count < -DRAWS_MAX {
        return Err(CommandError::Fixed("ERR value is out of range"));
    }
    Ok(count)
}

/// Places of what was drawn: each once, or with repetition when the count is negative.
pub(super) fn draw(length: usize, count: i64) -> Vec<usize> {
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if length == 0 {
        return Vec::new();
    }
    if count < 0 {
        return (0..wanted).map(|_| rand::random_range(0..length)).collect();
    }
    let mut places: Vec<usize> = (0..length).collect();
    for at in 0..wanted.min(length) {
        places.swap(at, rand::random_range(at..length));
    }
    places.truncate(wanted);
    places
}

/// `SPOP key [count]`: draw, and take out what was drawn if all of it is still there.
pub(super) async fn spop<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let count = match &arguments[2..] {
        [] => None,
        [count] => {
            let count = integer(count).filter(|&count| count >= 0);
            Some(count.ok_or(CommandError::Fixed("ERR value is out of range, must be positive"))?)
        }
        _ => return Err(CommandError::Syntax),
    };
    for _ in 0..ATTEMPTS_MAX {
        let members = members(&store.read(&arguments[1]).await?)?;
        let drawn: Vec<Bytes> =
            draw(members.len(), count.unwrap_or(1)).into_iter().map(|at| members[at].clone()).collect();
        let taken = match drawn.len() {
            0 => 0,
            _ => store.number(&arguments[1], Change::TakeMembers(drawn.clone())).await?,
        };
        if usize::try_from(taken).is_ok_and(|taken| taken == drawn.len()) {
            return Ok(match count {
                None => drawn.into_iter().next().map_or(Reply::Null, Reply::Bulk),
                Some(_) => Reply::Set(drawn.into_iter().map(Reply::Bulk).collect()),
            });
        }
    }
    Err(CommandError::Contended)
}

/// `SSCAN key cursor [MATCH pattern] [COUNT count]`: everything at once, as Redis does with small sets.
pub(super) async fn sscan<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let scan = PartScan::parse(&arguments[2..], false)?;
    let members = members(&store.read(&arguments[1]).await?)?;
    let members = members.into_iter().filter(|member| scan.wants(member)).map(Reply::Bulk);
    Ok(scan.page(members.collect()))
}

/// What SSCAN and HSCAN are asked for.
pub(super) struct PartScan<'a> {
    started: bool,
    pattern: Option<&'a Bytes>,
    /// Whether only names are wanted.
    pub(super) names_only: bool,
}

impl<'a> PartScan<'a> {
    /// Reads the cursor and the options.
    pub(super) fn parse(arguments: &'a [Bytes], of_hash: bool) -> Result<Self, CommandError> {
        let cursor = std::str::from_utf8(&arguments[0]).ok().and_then(|cursor| cursor.parse::<u64>().ok());
        let started = cursor.ok_or(CommandError::Cursor)? != 0;
        let mut scan = Self { started, pattern: None, names_only: false };
        let mut options = &arguments[1..];
        while let [option, rest @ ..] = options {
            options = match (option.to_ascii_lowercase().as_slice(), rest) {
                (b"match", [pattern, rest @ ..]) => {
                    scan.pattern = Some(pattern);
                    rest
                }
                (b"count", [count, rest @ ..]) => {
                    if integer(count).ok_or(CommandError::NotInteger)? < 1 {
                        return Err(CommandError::Syntax);
                    }
                    rest
                }
                (b"novalues", rest) if of_hash => {
                    scan.names_only = true;
                    rest
                }
                _ => return Err(CommandError::Syntax),
            };
        }
        Ok(scan)
    }

    /// Whether a name is among those asked for.
    pub(super) fn wants(&self, name: &[u8]) -> bool {
        !self.started && self.pattern.is_none_or(|pattern| glob::matches(pattern, name))
    }

    /// The only page.
    pub(super) fn page(&self, items: Vec<Reply>) -> Reply {
        Reply::Array(vec![Reply::Word("0"), Reply::Array(items)])
    }
}

/// How several sets are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Combination {
    /// SINTER.
    Intersection,
    /// SUNION.
    Union,
    /// SDIFF: the first without the others.
    Difference,
}

/// `SINTER key [key …]` and the like, each key read for itself.
pub(super) async fn combined<K: KeyValue>(
    store: &Store<'_, K>,
    keys: &[Bytes],
    combination: Combination,
) -> Result<Reply, CommandError> {
    let members = combine(store, keys, combination).await?;
    Ok(Reply::Set(members.into_iter().map(Reply::Bulk).collect()))
}

/// `SINTERCARD numkeys key [key …] [LIMIT limit]`
pub(super) async fn sintercard<K: KeyValue>(
    store: &Store<'_, K>,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let count = integer(&arguments[1]).and_then(|count| usize::try_from(count).ok()).filter(|&count| count > 0);
    let count = count.ok_or(CommandError::Fixed("ERR numkeys should be greater than 0"))?;
    let keys = arguments
        .get(2..count.saturating_add(2))
        .ok_or(CommandError::Fixed("ERR Number of keys can't be greater than number of args"))?;
    let limit = match &arguments[count + 2..] {
        [] => 0,
        [option, limit] if option.eq_ignore_ascii_case(b"limit") => {
            let limit = integer(limit).and_then(|limit| usize::try_from(limit).ok());
            limit.ok_or(CommandError::Fixed("ERR LIMIT can't be negative"))?
        }
        _ => return Err(CommandError::Syntax),
    };
    let members = combine(store, keys, Combination::Intersection).await?.len();
    Ok(Reply::count(if limit == 0 { members } else { members.min(limit) }))
}

async fn combine<K: KeyValue>(
    store: &Store<'_, K>,
    keys: &[Bytes],
    combination: Combination,
) -> Result<BTreeSet<Bytes>, CommandError> {
    let bytes_max = store.limits().connection_reply_bytes_max;
    let Some((first, others)) = keys.split_first() else { return Ok(BTreeSet::new()) };
    // A slice would keep all of the set that it is a part of.
    let own = |member: &Bytes| Bytes::copy_from_slice(member);
    let mut combined: BTreeSet<Bytes> = members(&store.read(first).await?)?.iter().map(own).collect();
    let mut bytes: usize = combined.iter().map(Bytes::len).sum();
    // In what order the others come makes no difference, and none counts twice.
    let others: BTreeSet<&Bytes> = others.iter().collect();
    read_each(store, others.into_iter(), |_, found| {
        let set = found.of_kind(Kind::Set)?;
        let has = |member: &Bytes| set.is_some_and(|set| set.has_member(member));
        match combination {
            Combination::Intersection => combined.retain(has),
            Combination::Difference => combined.retain(|member| !has(member)),
            Combination::Union => {
                for member in set.iter().flat_map(Visible::members) {
                    if !combined.contains(member) {
                        bytes += member.len();
                        combined.insert(own(member));
                    }
                }
            }
        }
        if bytes > bytes_max { Err(CommandError::ReplyTooLarge { bytes_max }) } else { Ok(()) }
    })
    .await?;
    Ok(combined)
}

fn members(found: &Found) -> Result<Vec<Bytes>, CommandError> {
    let set = found.of_kind(Kind::Set)?;
    Ok(set.map(|set| set.members().cloned().collect()).unwrap_or_default())
}

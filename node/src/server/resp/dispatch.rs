//! Carrying out the commands that need the store.

use super::command_table::{Id, Spec};
use super::error::CommandError;
use super::reply::Reply;
use super::server::Server;
use super::sets::Combination;
use super::store::{Consistency, Store};
use super::{
    annulus, bitfield, bits, digest, hashes, keys, lcs, numbers, object, scan, set, sets, slot_keys, strings, ttl,
};
use crate::coordinator::KeyValue;
use bytes::Bytes;

/// Most operations of one command on the store at once.
pub(super) const OPERATIONS_MAX: usize = 256;

/// Carries out a command whose number of arguments has been checked.
pub(super) async fn execute<K: KeyValue>(
    server: &Server<K>,
    consistency: Consistency,
    spec: &'static Spec,
    arguments: &[Bytes],
) -> Reply {
    let store = Store { inner: &server.store, consistency };
    let walks = matches!(spec.id, Id::Scan | Id::Keys | Id::Randomkey | Id::Flushall | Id::Flushdb | Id::Cluster);
    // It is never closed, so there always is a turn.
    let _turn = if walks { server.walks.acquire().await.ok() } else { None };
    carry_out(&store, spec, arguments).await.unwrap_or_else(Reply::from)
}

/// Carries out a command that needs no waiting: one that is asked for often, and can be answered from what is here. `None`:
/// it may have to wait.
pub(super) fn execute_now<K: KeyValue>(
    server: &Server<K>,
    consistency: Consistency,
    spec: &'static Spec,
    arguments: &[Bytes],
) -> Option<Reply> {
    if spec.id != Id::Get {
        return None;
    }
    let store = Store { inner: &server.store, consistency };
    let value = store.read_now(&arguments[1])?.string();
    Some(value.map_or_else(Reply::from, |value| value.map_or(Reply::Null, Reply::Bulk)))
}

async fn carry_out<K: KeyValue>(
    store: &Store<'_, K>,
    spec: &'static Spec,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    // Boxed but for the two most frequent: every command's future is as large as the largest of those within it.
    match (spec.id, spec.group) {
        (Id::Get, _) => strings::get(store, &arguments[1]).await,
        (Id::Set, _) => set::set(store, arguments).await,
        (_, "string" | "bitmap") => Box::pin(string(store, spec, arguments)).await,
        (_, "set") => Box::pin(of_set(store, spec.id, arguments)).await,
        (_, "hash") => Box::pin(of_hash(store, spec, arguments)).await,
        _ => Box::pin(of_key(store, spec, arguments)).await,
    }
}

async fn string<K: KeyValue>(
    store: &Store<'_, K>,
    spec: &'static Spec,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let key = &arguments[1];
    match spec.id {
        Id::Mget => strings::mget(store, &arguments[1..]).await,
        Id::Delex => digest::delex(store, arguments).await,
        Id::Digest => digest::digest(store, key).await,
        Id::Lcs => lcs::lcs(store, arguments).await,
        Id::Msetex => set::msetex(store, arguments).await,
        Id::Mset => strings::mset(store, &arguments[1..]).await,
        Id::Getrange | Id::Substr => strings::getrange(store, arguments).await,
        Id::Strlen => strings::strlen(store, key).await,
        Id::Append => strings::append(store, arguments).await,
        Id::Setrange => strings::setrange(store, arguments).await,
        Id::Getset => set::getset(store, arguments).await,
        Id::Getdel => set::getdel(store, key).await,
        Id::Setnx => set::setnx(store, arguments).await,
        Id::Setex => set::setex(store, spec.name, arguments, 1000).await,
        Id::Psetex => set::setex(store, spec.name, arguments, 1).await,
        Id::Getex => ttl::getex(store, arguments).await,
        Id::Incr => numbers::step(store, key, 1).await,
        Id::Decr => numbers::step(store, key, -1).await,
        Id::Incrby => numbers::incrby(store, arguments).await,
        Id::Decrby => numbers::decrby(store, arguments).await,
        Id::Getbit => bits::getbit(store, arguments).await,
        Id::Setbit => bits::setbit(store, arguments).await,
        Id::Bitcount => bits::bitcount(store, arguments).await,
        Id::Bitfield => bitfield::bitfield(store, arguments, false).await,
        Id::BitfieldRo => bitfield::bitfield(store, arguments, true).await,
        Id::Bitpos => bits::bitpos(store, arguments).await,
        Id::Incrbyfloat => numbers::incrbyfloat(store, arguments).await,
        _ => Err(CommandError::not_served(arguments)),
    }
}

async fn of_set<K: KeyValue>(store: &Store<'_, K>, id: Id, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    match id {
        Id::Sadd => sets::sadd(store, arguments).await,
        Id::Srem => sets::srem(store, arguments).await,
        Id::Smembers => sets::smembers(store, &arguments[1]).await,
        Id::Scard => sets::scard(store, &arguments[1]).await,
        Id::Sismember => sets::sismember(store, arguments).await,
        Id::Smismember => sets::smismember(store, arguments).await,
        Id::Srandmember => sets::srandmember(store, arguments).await,
        Id::Spop => sets::spop(store, arguments).await,
        Id::Sscan => sets::sscan(store, arguments).await,
        Id::Sinter => sets::combined(store, &arguments[1..], Combination::Intersection).await,
        Id::Sunion => sets::combined(store, &arguments[1..], Combination::Union).await,
        Id::Sdiff => sets::combined(store, &arguments[1..], Combination::Difference).await,
        Id::Sintercard => sets::sintercard(store, arguments).await,
        _ => Err(CommandError::not_served(arguments)),
    }
}

async fn of_hash<K: KeyValue>(
    store: &Store<'_, K>,
    spec: &'static Spec,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    match spec.id {
        Id::Hset => hashes::hset(store, spec.name, arguments).await.map(Reply::Integer),
        Id::Hmset => hashes::hset(store, spec.name, arguments).await.map(|_| Reply::OK),
        Id::Hsetnx => hashes::hsetnx(store, arguments).await,
        Id::Hdel => hashes::hdel(store, arguments).await,
        Id::Hgetdel => hashes::hgetdel(store, arguments).await,
        Id::Hget => hashes::hget(store, arguments).await,
        Id::Hstrlen => hashes::hstrlen(store, arguments).await,
        Id::Hexists => hashes::hexists(store, arguments).await,
        Id::Hmget => hashes::hmget(store, arguments).await,
        Id::Hgetall => hashes::hgetall(store, &arguments[1]).await,
        Id::Hkeys => hashes::hkeys(store, &arguments[1]).await,
        Id::Hvals => hashes::hvals(store, &arguments[1]).await,
        Id::Hlen => hashes::hlen(store, &arguments[1]).await,
        Id::Hscan => hashes::hscan(store, arguments).await,
        Id::Hrandfield => hashes::hrandfield(store, arguments).await,
        Id::Hincrby => numbers::hincrby(store, arguments).await,
        Id::Hincrbyfloat => numbers::hincrbyfloat(store, arguments).await,
        _ => Err(CommandError::not_served(arguments)),
    }
}

async fn of_key<K: KeyValue>(
    store: &Store<'_, K>,
    spec: &'static Spec,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let name = spec.name;
    match spec.id {
        Id::Del | Id::Unlink => keys::delete(store, &arguments[1..]).await,
        Id::Exists | Id::Touch => keys::exists(store, &arguments[1..]).await,
        Id::Type => keys::kind(store, &arguments[1]).await,
        Id::Dbsize => keys::dbsize(store).await,
        Id::Expire => ttl::expire(store, name, arguments, ttl::Unit::Seconds, ttl::From::Now).await,
        Id::Pexpire => ttl::expire(store, name, arguments, ttl::Unit::Milliseconds, ttl::From::Now).await,
        Id::Expireat => ttl::expire(store, name, arguments, ttl::Unit::Seconds, ttl::From::Epoch).await,
        Id::Pexpireat => ttl::expire(store, name, arguments, ttl::Unit::Milliseconds, ttl::From::Epoch).await,
        Id::Ttl => ttl::left(store, &arguments[1], ttl::Unit::Seconds).await,
        Id::Pttl => ttl::left(store, &arguments[1], ttl::Unit::Milliseconds).await,
        Id::Expiretime => ttl::expiry(store, &arguments[1], ttl::Unit::Seconds).await,
        Id::Pexpiretime => ttl::expiry(store, &arguments[1], ttl::Unit::Milliseconds).await,
        Id::Persist => ttl::persist(store, &arguments[1]).await,
        Id::Scan => scan::scan(store.inner, arguments).await,
        Id::Keys => scan::keys(store.inner, &arguments[1]).await,
        Id::Annulus => annulus::get(store, &arguments[2]).await,
        Id::Object => object::object(store, arguments).await,
        Id::Memory => keys::memory(store, arguments).await,
        Id::Cluster => slot_keys::answer(store.inner, arguments).await,
        Id::Flushall | Id::Flushdb => scan::flush(store, &arguments[1..]).await,
        Id::Randomkey => scan::random_key(store.inner).await,
        _ => Err(CommandError::not_served(arguments)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::Coordinator;

    /// Size of the future that a function returns, which is not called.
    fn bytes_of<A, F>(_function: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_command_under_way_takes_little_memory() {
        let execute = |(server, spec): (&'static Server<Coordinator>, &'static Spec)| {
            execute(server, Consistency::default(), spec, &[])
        };
        let bytes = bytes_of(execute);
        assert!(bytes <= 2000, "{bytes} bytes are moved for every command, and kept by every connection");
    }
}

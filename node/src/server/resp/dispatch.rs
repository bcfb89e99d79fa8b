//! Carrying out the commands that need the store.

use super::command_table::{Id, Spec};
use super::error::CommandError;
use super::reply::Reply;
use super::server::Server;
use super::{keys, scan, set, strings, ttl};
use crate::coordinator::KeyValue;
use bytes::Bytes;

/// Most operations of one command on the store at once.
pub(super) const OPERATIONS_MAX: usize = 256;

/// Carries out a command whose number of arguments has been checked.
pub(super) async fn execute<K: KeyValue>(server: &Server<K>, spec: &'static Spec, arguments: Vec<Bytes>) -> Reply {
    carry_out(&server.store, spec, &arguments).await.unwrap_or_else(Reply::from)
}

async fn carry_out<K: KeyValue>(
    store: &K,
    spec: &'static Spec,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let name = spec.name;
    match spec.id {
        Id::Get => strings::get(store, &arguments[1]).await,
        Id::Set => set::set(store, arguments).await,
        Id::Mget => strings::mget(store, &arguments[1..]).await,
        Id::Mset => strings::mset(store, &arguments[1..]).await,
        Id::Getrange => strings::getrange(store, arguments).await,
        Id::Strlen => strings::strlen(store, &arguments[1]).await,
        Id::Getset => set::getset(store, arguments).await,
        Id::Setex => set::setex(store, name, arguments, 1000).await,
        Id::Psetex => set::setex(store, name, arguments, 1).await,
        Id::Getex => ttl::getex(store, arguments).await,
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
        Id::Scan => scan::scan(store, arguments).await,
        Id::Keys => scan::keys(store, &arguments[1]).await,
        Id::Randomkey => scan::random_key(store).await,
        _ => Err(CommandError::not_served(arguments)),
    }
}

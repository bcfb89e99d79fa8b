//! ANNULUS: what Redis has no command for.

use super::connection::Session;
use super::error::{CommandError, shown};
use super::parse::integer;
use super::reply::Reply;
use super::server::Server;
use super::store::{Consistency, Store};
use crate::coordinator::{KeyValue, ReadOptions, RequestError, WriteOptions};
use bytes::Bytes;
use dynamo::object::Payload;
use dynamo::preference::MemberIndex;
use dynamo::ring::RingView;

/// `ANNULUS CONSISTENCY | RING | WHERE key | HELP`: what needs no store. `None`: the store has to be asked.
pub(super) fn answer<K: KeyValue>(
    server: &Server<K>,
    session: &mut Session,
    arguments: &[Bytes],
) -> Option<Result<Reply, CommandError>> {
    let subcommand = arguments[1].to_ascii_lowercase();
    Some(match (subcommand.as_slice(), &arguments[2..]) {
        (b"consistency", options) => consistency(session, options),
        (b"ring", []) => ring(server),
        (b"where", [key]) => locate(server, key),
        (b"help", []) => Ok(help()),
        (b"get", [_]) => return None,
        (b"ring" | b"where" | b"help" | b"get", _) => Err(CommandError::subcommand_arity("annulus", &subcommand)),
        _ => Err(CommandError::UnknownSubcommand { subcommand: shown(arguments.get(1)), command: "ANNULUS" }),
    })
}

/// `ANNULUS GET key`: all concurrent values, and the context that covers them.
pub(super) async fn get<K: KeyValue>(store: &Store<'_, K>, key: &Bytes) -> Result<Reply, CommandError> {
    let found = store.read(key).await?;
    let siblings = found.object().siblings().map(|(_, value)| {
        Reply::Map(vec![
            (
                Reply::Word("value"),
                match &value.payload {
                    Payload::Bytes(bytes) => Reply::Bulk(bytes.clone()),
                    Payload::Tombstone => Reply::Null,
                },
            ),
            (Reply::Word("timestamp"), Reply::Text(value.timestamp.to_string())),
            (Reply::Word("expires-at-ms"), value.expires_at_ms.map_or(Reply::Null, number)),
        ])
    });
    let kind = found.visible().map_or("none", |visible| super::store::kind_name(visible.kind));
    Ok(Reply::Map(vec![
        (Reply::Word("type"), Reply::Word(kind)),
        (Reply::Word("siblings"), Reply::Array(siblings.collect())),
        (Reply::Word("context"), Reply::Bulk(found.object().context().encode())),
    ]))
}

/// `CONSISTENCY [DEFAULT | r w STRICT | SLOPPY]`
fn consistency(session: &mut Session, options: &[Bytes]) -> Result<Reply, CommandError> {
    match options {
        [] => {}
        [option] if option.eq_ignore_ascii_case(b"default") => session.consistency = Consistency::default(),
        [read, write, mode] => {
            let strict = match mode.to_ascii_lowercase().as_slice() {
                b"strict" => true,
                b"sloppy" => false,
                _ => return Err(CommandError::Syntax),
            };
            let replicas = |text: &Bytes| {
                let count = integer(text).and_then(|count| u8::try_from(count).ok()).filter(|&count| count > 0);
                count.map(Some).ok_or(CommandError::NotInteger)
            };
            session.consistency = Consistency {
                read: ReadOptions { replicas: replicas(read)?, strict },
                write: WriteOptions { replicas: replicas(write)?, strict, fenced: false },
            };
            return Ok(Reply::OK);
        }
        _ => return Err(CommandError::Syntax),
    }
    if !options.is_empty() {
        return Ok(Reply::OK);
    }
    let Consistency { read, write } = session.consistency;
    let replicas =
        |replicas: Option<u8>| replicas.map_or(Reply::Word("default"), |r| Reply::Integer(i64::from(r)));
    Ok(Reply::Array(vec![
        replicas(read.replicas),
        replicas(write.replicas),
        Reply::Word(if read.strict { "strict" } else { "default" }),
    ]))
}

fn ring<K: KeyValue>(server: &Server<K>) -> Result<Reply, CommandError> {
    let view = server.store.ring().ok_or(RequestError::NoRing)?;
    let ring = view.ring();
    let unreachable = server.store.overview().unreachable;
    let members = ring.members.iter().map(|member| {
        Reply::Map(vec![
            (Reply::Word("name"), Reply::Text(member.name.clone())),
            (Reply::Word("address"), Reply::Text(member.client_address.clone())),
            (Reply::Word("reachable"), Reply::Integer(i64::from(!unreachable.contains(&member.name)))),
        ])
    });
    let quorums = ring.quorums;
    Ok(Reply::Map(vec![
        (Reply::Word("epoch"), number(view.epoch())),
        (Reply::Word("partitions"), number(u64::from(view.count().get()))),
        (Reply::Word("n"), Reply::Integer(i64::from(quorums.n))),
        (Reply::Word("r"), Reply::Integer(i64::from(quorums.r))),
        (Reply::Word("w"), Reply::Integer(i64::from(quorums.w))),
        (Reply::Word("sloppy"), Reply::Integer(i64::from(quorums.sloppy))),
        (Reply::Word("members"), Reply::Array(members.collect())),
    ]))
}

fn locate<K: KeyValue>(server: &Server<K>, key: &Bytes) -> Result<Reply, CommandError> {
    let view = server.store.ring().ok_or(RequestError::NoRing)?;
    let token = view.token(key);
    let partition = view.partition(token);
    let placement = view.placement(partition);
    let preference = placement.map(|placement| placement.preference.clone()).unwrap_or_default();
    let also = placement.and_then(|placement| placement.also.as_ref()).map(|also| also.list.clone());
    Ok(Reply::Map(vec![
        (Reply::Word("token"), Reply::Text(format!("{:016x}", token.0))),
        (Reply::Word("slot"), Reply::Integer(i64::from(dynamo::token::slot(key)))),
        (Reply::Word("partition"), number(u64::from(partition))),
        (Reply::Word("preference-list"), names(&view, &preference)),
        (Reply::Word("moving"), names(&view, &also.unwrap_or_default())),
        (Reply::Word("fallbacks"), names(&view, &view.fallbacks(partition))),
    ]))
}

fn names(view: &RingView, members: &[MemberIndex]) -> Reply {
    let names = members.iter().filter_map(|&index| view.member(index)).map(|member| member.name.clone());
    Reply::Array(names.map(Reply::Text).collect())
}

fn number(number: u64) -> Reply {
    Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn help() -> Reply {
    let lines = [
        "ANNULUS CONSISTENCY [DEFAULT | r w STRICT | r w SLOPPY]: how this connection reads and writes.",
        "ANNULUS GET key: all concurrent values and their context.",
        "ANNULUS RING: epoch, quorums and members.",
        "ANNULUS WHERE key: partition, preference list and fallbacks.",
    ];
    Reply::Array(lines.into_iter().map(Reply::Word).collect())
}

//! CLIENT: what connections are open, and what they say of themselves.

use super::client_filter::ClientFilter;
use super::clients::Client;
use super::command_table::COMMANDS;
use super::connection::{Session, Silence};
use super::error::{CommandError, shown};
use super::reply::Reply;
use super::server::Server;
use crate::coordinator::KeyValue;
use bytes::Bytes;
use std::sync::atomic::Ordering::Relaxed;

/// `CLIENT subcommand …`
pub(super) fn answer<K: KeyValue>(
    server: &Server<K>,
    client: &Client,
    session: &mut Session,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let subcommand = arguments[1].to_ascii_lowercase();
    let now_ms = server.store.now_ms();
    match (subcommand.as_slice(), &arguments[2..]) {
        (b"id", []) => Ok(Reply::Integer(i64::try_from(client.id).unwrap_or(i64::MAX))),
        (b"info", []) => Ok(Reply::Verbatim(client.line(now_ms, "client|info") + "\n")),
        (b"list", filter) => list(server, client.id, filter, now_ms),
        (b"getname", []) => {
            let name = client.names.lock().name.clone();
            Ok(if name.is_empty() { Reply::Null } else { Reply::Text(name) })
        }
        (b"setname", [name]) => {
            client.names.lock().name = checked_name(name)?;
            Ok(Reply::OK)
        }
        (b"setinfo", [attribute, value]) => set_info(client, attribute, value),
        (b"no-evict" | b"no-touch", [switch]) => match switch.to_ascii_lowercase().as_slice() {
            b"on" | b"off" => Ok(Reply::OK),
            _ => Err(CommandError::Syntax),
        },
        (b"reply", [mode]) => reply_mode(session, mode),
        (b"kill", [address]) => match end(server, client.id, &ClientFilter::of_address(address), now_ms) {
            0 => Err(CommandError::Fixed("ERR No such client")),
            _ => Ok(Reply::OK),
        },
        (b"kill", filter @ [_, _, ..]) => {
            let filter = ClientFilter::parse(filter, "ERR client-id should be greater than 0")?;
            if let Some(user) = filter.user().filter(|user| !server.acl.has_user(user)) {
                return Err(CommandError::NoSuchUser(shown(Some(user))));
            }
            Ok(Reply::count(end(server, client.id, &filter, now_ms)))
        }
        // Nothing is tracked for anyone, and no command of any client blocks.
        (b"getredir", []) => Ok(Reply::Integer(-1)),
        (b"trackinginfo", []) => Ok(Reply::Map(vec![
            (Reply::Word("flags"), Reply::Set(vec![Reply::Word("off")])),
            (Reply::Word("redirect"), Reply::Integer(-1)),
            (Reply::Word("prefixes"), Reply::Array(Vec::new())),
        ])),
        (b"unblock", [_] | [_, _]) => Ok(Reply::Integer(0)),
        (b"tracking", [switch]) if switch.eq_ignore_ascii_case(b"off") => Ok(Reply::OK),
        (b"caching", [_]) => Err(CommandError::Fixed(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        )),
        // Nobody ever is.
        (b"unpause", []) => Ok(Reply::OK),
        (b"help", []) => Ok(help()),
        (b"tracking", [switch, ..]) if !switch.eq_ignore_ascii_case(b"on") => Err(CommandError::Syntax),
        (b"pause" | b"tracking", [_, ..]) => Err(CommandError::Unsupported {
            what: format!("client {}", shown(arguments.get(1)).to_ascii_lowercase()),
            reason: "is not offered: what one client asks for does not hold up others, and keys are not tracked",
        }),
        (
            b"kill" | b"pause" | b"unpause" | b"tracking" | b"caching" | b"id" | b"info" | b"getname" | b"setname"
            | b"setinfo" | b"no-evict" | b"no-touch" | b"reply" | b"help" | b"getredir" | b"trackinginfo"
            | b"unblock",
            _,
        ) => Err(CommandError::subcommand_arity("client", &subcommand)),
        _ => Err(CommandError::UnknownSubcommand { subcommand: shown(arguments.get(1)), command: "CLIENT" }),
    }
}

/// A name that CLIENT LIST can tell.
pub(super) fn checked_name(name: &Bytes) -> Result<String, CommandError> {
    printable(name)
        .ok_or(CommandError::Fixed("ERR Client names cannot contain spaces, newlines or special characters."))
}

fn printable(text: &Bytes) -> Option<String> {
    let printable = text.len() <= 256 && text.iter().all(u8::is_ascii_graphic);
    printable.then(|| String::from_utf8_lossy(text).into_owned())
}

fn list<K: KeyValue>(server: &Server<K>, own: u64, filter: &[Bytes], now_ms: u64) -> Result<Reply, CommandError> {
    let filter = ClientFilter::parse(filter, "ERR Invalid client ID")?;
    let mut clients = server.clients.all();
    clients.retain(|client| filter.includes(client, own, false, now_ms));
    let line =
        |client: &Client| if client.id == own { client.line(now_ms, "client|list") } else { line(client, now_ms) };
    Ok(Reply::Verbatim(clients.iter().map(|client| line(client) + "\n").collect()))
}

fn line(client: &Client, now_ms: u64) -> String {
    let command = COMMANDS.get(client.last_command.load(Relaxed)).map_or("NULL", |spec| spec.name);
    client.line(now_ms, command)
}

fn set_info(client: &Client, attribute: &Bytes, value: &Bytes) -> Result<Reply, CommandError> {
    let value = printable(value).ok_or(CommandError::Fixed(
        "ERR lib-name and lib-ver cannot contain spaces, newlines or special characters.",
    ))?;
    let mut names = client.names.lock();
    match attribute.to_ascii_lowercase().as_slice() {
        b"lib-name" => names.library = value,
        b"lib-ver" => names.library_version = value,
        _ => return Err(CommandError::Fixed("ERR Unrecognized option for CLIENT SETINFO")),
    }
    Ok(Reply::OK)
}

fn reply_mode(session: &mut Session, mode: &Bytes) -> Result<Reply, CommandError> {
    session.silence = match (mode.to_ascii_lowercase().as_slice(), session.silence) {
        (b"on", _) => Silence::None,
        (b"off", _) => Silence::All,
        (b"skip", Silence::All) => Silence::All,
        (b"skip", _) => Silence::ThisAndNext,
        _ => return Err(CommandError::Syntax),
    };
    Ok(Reply::OK)
}

/// Ends connections and tells how many.
fn end<K: KeyValue>(server: &Server<K>, own: u64, filter: &ClientFilter, now_ms: u64) -> usize {
    let mut clients = server.clients.all();
    clients.retain(|client| filter.includes(client, own, true, now_ms));
    clients.iter().for_each(|client| client.stop());
    clients.len()
}

fn help() -> Reply {
    let lines = [
        "CLIENT <subcommand> [<arg> ...]. Subcommands are:",
        "GETNAME, SETNAME <name>, SETINFO <LIB-NAME|LIB-VER> <value>",
        "    What this connection says of itself.",
        "ID, INFO, LIST [<filter> <value> ...]",
        "    This connection, and all of this node.",
        "KILL <ip:port>, KILL <filter> <value> [<filter> <value> ...]",
        "    End connections after the commands they have sent. Filters are ID, TYPE, USER, ADDR, LADDR, MAXAGE, SKIPME.",
        "NO-EVICT <ON|OFF>, NO-TOUCH <ON|OFF>",
        "    Accepted, without effect.",
        "REPLY <ON|OFF|SKIP>",
        "    Which replies are sent.",
    ];
    Reply::Array(lines.into_iter().map(Reply::Status).collect())
}

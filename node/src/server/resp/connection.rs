//! Commands that concern the connection alone: PING, ECHO, HELLO, AUTH, SELECT, RESET, QUIT and the like.

use super::acl::User;
use super::clients::Client;
use super::command_table::{Access, Id, Spec};
use super::error::{CommandError, shown};
use super::help;
use super::parse::integer;
use super::reply::{Protocol, Reply};
use super::server::Server;
use super::store::Consistency;
use super::{acl_command, annulus, client, cluster, command, config, info, latency, slot_keys, unsupported};
use crate::coordinator::KeyValue;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Version of Redis whose commands and replies are followed, told to clients that choose by it. Later ones have expiry of
/// single fields, which is not offered.
pub(super) const REDIS_VERSION: &str = "7.2.5";

/// What a connection has agreed with its client.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// How replies are encoded.
    pub(super) protocol: Protocol,
    /// Whether the client wants no more.
    pub(super) quit: bool,
    /// Which replies the client wants.
    pub(super) silence: Silence,
    /// How its reads and writes are done.
    pub(super) consistency: Consistency,
    /// Who it is; `None`: it has to say so first.
    pub(super) user: Option<Arc<User>>,
}

/// Which replies are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Silence {
    /// None.
    #[default]
    None,
    /// That of this command and of the next.
    ThisAndNext,
    /// That of this command.
    This,
    /// All.
    All,
}

impl Session {
    /// Whether the reply that is due now is left out.
    pub(super) fn take_silence(&mut self) -> bool {
        let silent = self.silence != Silence::None;
        self.silence = match self.silence {
            Silence::ThisAndNext => Silence::This,
            Silence::This | Silence::None => Silence::None,
            Silence::All => Silence::All,
        };
        silent
    }

    /// From now on the connection is this user's.
    pub(super) fn become_user(&mut self, user: Option<Arc<User>>, client: &Client) {
        client.names.lock().user = user.as_ref().map_or_else(String::new, |user| user.name.clone());
        self.user = user;
    }

    fn speak(&mut self, protocol: Protocol, client: &Client) {
        self.protocol = protocol;
        client.protocol.store(if protocol == Protocol::Resp3 { 3 } else { 2 }, Relaxed);
    }
}

/// Whether a command needs no store with these arguments.
pub(super) fn answers(spec: &Spec, arguments: &[Bytes]) -> bool {
    match spec.id {
        Id::Annulus => !(arguments.len() == 3 && arguments[1].eq_ignore_ascii_case(b"get")),
        Id::Cluster => !slot_keys::reads(arguments),
        _ => spec.access == Access::None,
    }
}

/// Answers a command that touches no key.
pub(super) fn answer<K: KeyValue>(
    server: &Server<K>,
    client: &Client,
    session: &mut Session,
    spec: &Spec,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    match spec.id {
        Id::Ping => ping(arguments),
        Id::Echo => Ok(Reply::Bulk(arguments[1].clone())),
        Id::Hello => hello(server, client, session, arguments),
        Id::Auth => auth(server, client, session, arguments),
        Id::Acl => acl_command::answer(server, session, arguments),
        Id::Role => Ok(Reply::Array(vec![Reply::Word("master"), Reply::Integer(0), Reply::Array(Vec::new())])),
        Id::Slowlog => server.slow_log.answer(arguments),
        Id::Latency => latency::answer(server, arguments),
        Id::Module => modules(arguments),
        Id::Function | Id::Script => scripts(spec.name, arguments),
        Id::Lastsave => Ok(Reply::Integer(i64::try_from(server.store.now_ms() / 1000).unwrap_or(i64::MAX))),
        Id::Select => select(&arguments[1]),
        Id::Reset => Ok(reset(server, client, session)),
        Id::Quit => {
            session.quit = true;
            Ok(Reply::OK)
        }
        Id::Annulus => annulus::answer(server, session, arguments)
            .unwrap_or_else(|| Err(CommandError::subcommand_arity("annulus", b"get"))),
        Id::Asking | Id::Readonly | Id::Readwrite => Ok(Reply::OK),
        Id::Client => client::answer(server, client, session, arguments),
        Id::Command => command::answer(arguments),
        Id::Cluster => cluster::answer(server, arguments),
        Id::Config => config::answer(server, arguments),
        Id::Info => Ok(info::answer(server, &arguments[1..])),
        Id::Time => Ok(time(server.store.now_ms())),
        Id::Wait => wait(server, arguments),
        Id::Waitaof => waitaof(server, arguments),
        _ => Err(CommandError::not_served(arguments)),
    }
}

fn ping(arguments: &[Bytes]) -> Result<Reply, CommandError> {
    match arguments {
        [_] => Ok(Reply::Status("PONG")),
        [_, message] => Ok(Reply::Bulk(message.clone())),
        _ => Err(CommandError::Arity(String::from("ping"))),
    }
}

/// `HELLO [protocol [AUTH user password] [SETNAME name]]`
fn hello<K: KeyValue>(
    server: &Server<K>,
    client: &Client,
    session: &mut Session,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let protocol = match arguments.get(1) {
        None => session.protocol,
        Some(version) => match integer(version) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(CommandError::Fixed("NOPROTO unsupported protocol version")),
            None => return Err(CommandError::Fixed("ERR Protocol version is not an integer or out of range")),
        },
    };
    let (mut name, mut user) = (None, session.user.clone());
    let mut options = arguments.get(2..).unwrap_or_default();
    while let [option, rest @ ..] = options {
        options = match (option.to_ascii_lowercase().as_slice(), rest) {
            (b"auth", [name, password, rest @ ..]) => {
                user = Some(server.acl.authenticate(name, password).ok_or(WRONG_PASSWORD)?);
                rest
            }
            (b"setname", [wanted, rest @ ..]) => {
                name = Some(client::checked_name(wanted)?);
                rest
            }
            _ => return Err(CommandError::HelloOption(shown(Some(option)))),
        };
    }
    if user.is_none() {
        return Err(CommandError::Fixed(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
             <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the \
             same time",
        ));
    }
    session.become_user(user, client);
    if let Some(name) = name {
        client.names.lock().name = name;
    }
    session.speak(protocol, client);
    let version = if protocol == Protocol::Resp3 { 3 } else { 2 };
    Ok(Reply::Map(vec![
        (Reply::Word("server"), Reply::Word("redis")),
        (Reply::Word("version"), Reply::Word(REDIS_VERSION)),
        (Reply::Word("proto"), Reply::Integer(version)),
        (Reply::Word("id"), Reply::Integer(i64::try_from(client.id).unwrap_or(i64::MAX))),
        (Reply::Word("mode"), Reply::Word("cluster")),
        (Reply::Word("role"), Reply::Word("master")),
        (Reply::Word("modules"), Reply::Array(Vec::new())),
    ]))
}

const WRONG_PASSWORD: CommandError =
    CommandError::Fixed("WRONGPASS invalid username-password pair or user is disabled.");

/// `AUTH [user] password`. A password that nothing checks is refused, lest someone believe that it protects.
fn auth<K: KeyValue>(
    server: &Server<K>,
    client: &Client,
    session: &mut Session,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let (user, password) = match arguments {
        [_, _] if !server.acl.is_configured() => {
            return Err(CommandError::Fixed(
                "ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            ));
        }
        [_, password] => (&Bytes::from_static(b"default"), password),
        [_, user, password] => (user, password),
        _ => return Err(CommandError::Syntax),
    };
    session.become_user(Some(server.acl.authenticate(user, password).ok_or(WRONG_PASSWORD)?), client);
    Ok(Reply::OK)
}

/// `FUNCTION FLUSH | LIST`, `SCRIPT FLUSH | EXISTS sha1 …`: there are none.
fn scripts(command: &'static str, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let subcommand = arguments[1].to_ascii_lowercase();
    match (command, subcommand.as_slice()) {
        (_, b"flush") => Ok(Reply::OK),
        ("function", b"help") => help::or_unknown("FUNCTION", arguments),
        ("function", b"list") => Ok(Reply::Array(Vec::new())),
        ("script", b"exists") if arguments.len() > 2 => {
            Ok(Reply::Array(arguments[2..].iter().map(|_| Reply::Integer(0)).collect()))
        }
        _ => Err(CommandError::Unsupported {
            what: format!("{command} {}", shown(arguments.get(1)).to_ascii_lowercase()),
            reason: unsupported::SCRIPTS,
        }),
    }
}

/// `MODULE LIST`: there are none.
fn modules(arguments: &[Bytes]) -> Result<Reply, CommandError> {
    match &arguments[1..] {
        [list] if list.eq_ignore_ascii_case(b"list") => Ok(Reply::Array(Vec::new())),
        [subcommand, ..] => Err(CommandError::Unsupported {
            what: format!("module {}", shown(Some(subcommand)).to_ascii_lowercase()),
            reason: "is not offered: a node runs no code but its own",
        }),
        [] => Err(CommandError::Syntax),
    }
}

fn select(database: &Bytes) -> Result<Reply, CommandError> {
    match integer(database).ok_or(CommandError::NotInteger)? {
        0 => Ok(Reply::OK),
        _ => {
            Err(CommandError::Fixed("ERR DB index is out of range: there is database 0 only, as in Redis Cluster"))
        }
    }
}

fn reset<K: KeyValue>(server: &Server<K>, client: &Client, session: &mut Session) -> Reply {
    *session = Session::default();
    session.become_user(server.acl.anonymous(), client);
    session.speak(Protocol::Resp2, client);
    client.names.lock().name.clear();
    Reply::Status("RESET")
}

fn time(now_ms: u64) -> Reply {
    Reply::Array(vec![Reply::Text((now_ms / 1000).to_string()), Reply::Text((now_ms % 1000 * 1000).to_string())])
}

/// `WAITAOF local replicas timeout`: a write was answered when w nodes had it on disk, of which one may be this node.
fn waitaof<K: KeyValue>(server: &Server<K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let local = integer(&arguments[1]).ok_or(CommandError::NotInteger)?;
    if !(0..=1).contains(&local) {
        return Err(CommandError::Fixed("ERR value is out of range, must be positive"));
    }
    let others = wait(server, &arguments[1..])?;
    Ok(Reply::Array(vec![Reply::Integer(1), others]))
}

/// `WAIT replicas timeout`: a write was answered when w nodes had it durably, so besides the first there are w − 1.
fn wait<K: KeyValue>(server: &Server<K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    integer(&arguments[1]).ok_or(CommandError::NotInteger)?;
    let timeout =
        integer(&arguments[2]).ok_or(CommandError::Fixed("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(CommandError::Fixed("ERR timeout is negative"));
    }
    let w = server.store.ring().map_or(0, |view| view.ring().quorums.w);
    Ok(Reply::Integer(i64::from(w.saturating_sub(1))))
}

//! ACL: what may be asked about the users of the file. Nothing about them is changed here.

use super::command;
use super::command_table::Spec;
use super::connection::Session;
use super::error::{CommandError, shown};
use super::help;
use super::parse::integer;
use super::reply::Reply;
use super::server::Server;
use crate::coordinator::KeyValue;
use bytes::Bytes;

/// Most bits of a password.
const PASSWORD_BITS_MAX: i64 = 4096;

/// `ACL WHOAMI | USERS | LIST | CAT [category] | GETUSER name | DRYRUN name command … | GENPASS [bits]`
pub(super) fn answer<K: KeyValue>(
    server: &Server<K>,
    session: &Session,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let subcommand = arguments[1].to_ascii_lowercase();
    let users = || server.acl.users();
    Ok(match (subcommand.as_slice(), &arguments[2..]) {
        (b"whoami", []) => Reply::Text(session.user.as_ref().map_or_else(String::new, |user| user.name.clone())),
        (b"users", []) => Reply::Array(users().keys().cloned().map(Reply::Text).collect()),
        (b"list", []) => Reply::Array(users().values().map(|user| Reply::Text(user.line())).collect()),
        (b"getuser", [name]) => {
            let users = users();
            std::str::from_utf8(name)
                .ok()
                .and_then(|name| users.get(name))
                .map_or(Reply::Null, |user| user.described())
        }
        (b"dryrun", [name, command @ ..]) if !command.is_empty() => dry_run(server, name, command)?,
        (b"genpass", []) => password(256),
        (b"genpass", [bits]) => {
            let bits = Some(integer(bits).ok_or(CommandError::NotInteger)?)
                .filter(|bits| (1..=PASSWORD_BITS_MAX).contains(bits));
            password(bits.and_then(|bits| usize::try_from(bits).ok()).ok_or(CommandError::Fixed(
                "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096",
            ))?)
        }
        (b"cat", []) => Reply::Array(command::CATEGORIES.iter().copied().map(Reply::Word).collect()),
        (b"cat", [category]) => {
            let lower = category.to_ascii_lowercase();
            if !command::CATEGORIES.iter().any(|known| known.as_bytes() == lower) {
                return Err(CommandError::UnknownCategory(shown(Some(category))));
            }
            command::of_category(&lower)
        }
        (b"whoami" | b"users" | b"list" | b"cat" | b"getuser" | b"dryrun" | b"genpass", _) => {
            return Err(CommandError::subcommand_arity("acl", &subcommand));
        }
        (b"setuser" | b"deluser" | b"load" | b"save" | b"log", _) => {
            return Err(CommandError::Unsupported {
                what: format!("acl {}", shown(arguments.get(1)).to_ascii_lowercase()),
                reason: "is not offered: users come from the file that the cluster's Secret holds",
            });
        }
        _ => return help::or_unknown("ACL", arguments),
    })
}

/// Whether a user might carry out a command.
fn dry_run<K: KeyValue>(server: &Server<K>, name: &Bytes, command: &[Bytes]) -> Result<Reply, CommandError> {
    let users = server.acl.users();
    let user = std::str::from_utf8(name).ok().and_then(|name| users.get(name));
    let user = user.ok_or_else(|| CommandError::UserNotFound(shown(Some(name))))?;
    let Some((index, spec)) = Spec::find(&command[0]) else {
        return Err(CommandError::CommandNotFound(shown(Some(&command[0]))));
    };
    if !spec.accepts(command.len()) {
        return Err(CommandError::Arity(spec.name.to_owned()));
    }
    Ok(match user.permits(index, spec, command) {
        Ok(()) => Reply::OK,
        Err(error) => Reply::Text(error.to_string().trim_start_matches("NOPERM ").to_owned()),
    })
}

/// Random hexadecimal digits with so many bits.
fn password(bits: usize) -> Reply {
    Reply::Text(
        (0..bits.div_ceil(4)).map(|_| char::from(b"0123456789abcdef"[rand::random_range(0..16)])).collect(),
    )
}

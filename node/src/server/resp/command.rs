//! COMMAND: the command table, as clients read it to find the keys of a command.

use super::command_table::{Access, COMMANDS, COUNTED_BEFORE, Spec};
use super::error::CommandError;
use super::glob;
use super::help;
use super::reply::Reply;
use bytes::Bytes;

/// `COMMAND [COUNT | INFO [name …] | DOCS [name …] | LIST [FILTERBY PATTERN pattern] | GETKEYS command …]`
pub(super) fn answer(arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let Some(subcommand) = arguments.get(1) else {
        return Ok(Reply::Array(COMMANDS.iter().map(described).collect()));
    };
    let lower = subcommand.to_ascii_lowercase();
    match (lower.as_slice(), &arguments[2..]) {
        (b"count", []) => Ok(Reply::count(COMMANDS.len())),
        (b"info", []) => Ok(Reply::Array(COMMANDS.iter().map(described).collect())),
        (b"info", names) => {
            let one = |name: &Bytes| Spec::find(name).map_or(Reply::Null, |(_, spec)| described(spec));
            Ok(Reply::Array(names.iter().map(one).collect()))
        }
        (b"docs", []) => Ok(Reply::Map(COMMANDS.iter().map(documented).collect())),
        (b"docs", names) => {
            let known = names.iter().filter_map(|name| Spec::find(name));
            Ok(Reply::Map(known.map(|(_, spec)| documented(spec)).collect()))
        }
        (b"list", []) => Ok(Reply::Array(COMMANDS.iter().map(|spec| Reply::Word(spec.name)).collect())),
        (b"list", [filter, kind, name]) if filter.eq_ignore_ascii_case(b"filterby") => {
            let kind = kind.to_ascii_lowercase();
            let category = name.to_ascii_lowercase();
            let wanted = |spec: &&Spec| match kind.as_slice() {
                b"pattern" => glob::matches(name, spec.name.as_bytes()),
                b"aclcat" => categories(spec).iter().any(|of| of.as_bytes() == category),
                // There are no modules.
                _ => false,
            };
            match kind.as_slice() {
                b"pattern" | b"aclcat" | b"module" => {
                    let names = COMMANDS.iter().filter(wanted).map(|spec| Reply::Word(spec.name));
                    Ok(Reply::Array(names.collect()))
                }
                _ => Err(CommandError::Syntax),
            }
        }
        (b"list", _) => Err(CommandError::Syntax),
        (b"getkeys", [_, ..]) => get_keys(&arguments[2..]),
        (b"count" | b"getkeys", _) => Err(CommandError::subcommand_arity("command", &lower)),
        _ => help::or_unknown("COMMAND", arguments),
    }
}

fn get_keys(command: &[Bytes]) -> Result<Reply, CommandError> {
    let (_, spec) = Spec::find(&command[0]).ok_or(CommandError::Fixed("ERR Invalid command specified"))?;
    if spec.keys.first == 0 {
        return Err(CommandError::Fixed("ERR The command has no key arguments"));
    }
    if !spec.accepts(command.len()) {
        return Err(CommandError::Fixed("ERR Invalid number of arguments specified for command"));
    }
    Ok(Reply::Array(spec.keys_of(command).map(|key| Reply::Bulk(key.clone())).collect()))
}

fn described(spec: &Spec) -> Reply {
    let position = |position: usize| Reply::count(position);
    Reply::Array(vec![
        Reply::Word(spec.name),
        Reply::Integer(spec.arity),
        Reply::Set(spec.flags().into_iter().map(Reply::Status).collect()),
        position(if spec.keys.last == COUNTED_BEFORE { 0 } else { spec.keys.first }),
        Reply::Integer(if spec.keys.last == COUNTED_BEFORE { 0 } else { spec.keys.last }),
        position(if spec.keys.last == COUNTED_BEFORE { 0 } else { spec.keys.step }),
        Reply::Set(categories(spec).into_iter().map(|name| Reply::Text(format!("@{name}"))).collect()),
        Reply::Array(Vec::new()),
        Reply::Array(key_specification(spec).into_iter().collect()),
        Reply::Array(Vec::new()),
    ])
}

/// Categories that commands are in, and `all`.
pub(super) const CATEGORIES: [&str; 13] = [
    "all",
    "admin",
    "bitmap",
    "connection",
    "dangerous",
    "fast",
    "hash",
    "keyspace",
    "read",
    "set",
    "slow",
    "string",
    "write",
];

/// Names of the commands of a category.
pub(super) fn of_category(category: &[u8]) -> Reply {
    let within = |spec: &&Spec| category == b"all" || categories(spec).iter().any(|of| of.as_bytes() == category);
    Reply::Array(COMMANDS.iter().filter(within).map(|spec| Reply::Word(spec.name)).collect())
}

/// Categories of a command, without their `@`.
pub(super) fn categories(spec: &Spec) -> Vec<&'static str> {
    let access = match spec.access {
        Access::None => None,
        Access::All if spec.is_flush() => Some("write"),
        Access::Read | Access::All => Some("read"),
        Access::Write => Some("write"),
    };
    let group = match spec.group {
        "generic" => "keyspace",
        "string" => "string",
        "set" => "set",
        "hash" => "hash",
        "bitmap" => "bitmap",
        "connection" | "cluster" => "connection",
        _ => "admin",
    };
    let speed = if spec.fast { "fast" } else { "slow" };
    let dangerous = spec.is_flush() || matches!(spec.name, "keys" | "client" | "config" | "slowlog" | "info");
    access.into_iter().chain([group, speed]).chain(dangerous.then_some("dangerous")).collect()
}

/// Where the keys are, in the terms of Redis 7.
fn key_specification(spec: &Spec) -> Option<Reply> {
    if spec.keys.first == 0 {
        return None;
    }
    let flags = if spec.access == Access::Write { ["RW", "UPDATE"] } else { ["RO", "ACCESS"] };
    let last = if spec.keys.last < 0 { -1 } else { 0 };
    let text = Reply::Word;
    Some(Reply::Map(vec![
        (text("flags"), Reply::Set(flags.into_iter().map(Reply::Status).collect())),
        (
            text("begin_search"),
            Reply::Map(vec![
                (text("type"), text("index")),
                (text("spec"), Reply::Map(vec![(text("index"), Reply::count(spec.keys.first))])),
            ]),
        ),
        (
            text("find_keys"),
            Reply::Map(vec![
                (text("type"), text("range")),
                (
                    text("spec"),
                    Reply::Map(vec![
                        (text("lastkey"), Reply::Integer(last)),
                        (text("keystep"), Reply::count(spec.keys.step)),
                        (text("limit"), Reply::Integer(0)),
                    ]),
                ),
            ]),
        ),
    ]))
}

fn documented(spec: &Spec) -> (Reply, Reply) {
    let documentation = vec![
        (Reply::Word("summary"), Reply::Word(spec.summary)),
        (Reply::Word("since"), Reply::Word("1.0.0")),
        (Reply::Word("group"), Reply::Word(spec.group)),
        (Reply::Word("arguments"), Reply::Array(Vec::new())),
    ];
    (Reply::Word(spec.name), Reply::Map(documentation))
}

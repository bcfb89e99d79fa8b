//! COMMAND: the command table, as clients read it to find the keys of a command.

use super::command_table::{Access, COMMANDS, COUNTED_BEFORE, Spec};
use super::error::CommandError;
use super::glob;
use super::help;
use super::key_access::key_flags;
use super::reply::Reply;
use super::subcommands;
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
        (b"list", []) => Ok(names(|_, _| true)),
        (b"list", [filter, kind, name]) if filter.eq_ignore_ascii_case(b"filterby") => {
            let kind = kind.to_ascii_lowercase();
            let category = name.to_ascii_lowercase();
            match kind.as_slice() {
                b"pattern" => Ok(names(|_, of| glob::matches(name, of.as_bytes()))),
                b"aclcat" => Ok(names(|spec, _| categories(spec).iter().any(|of| of.as_bytes() == category))),
                // There are no modules.
                b"module" => Ok(Reply::Array(Vec::new())),
                _ => Err(CommandError::Syntax),
            }
        }
        (b"list", _) => Err(CommandError::Syntax),
        (b"getkeys", command @ [_, ..]) => {
            let keys = keys_of(command)?.1.into_iter().map(Reply::Bulk);
            Ok(Reply::Array(keys.collect()))
        }
        (b"getkeysandflags", command @ [_, _, ..]) => {
            let (spec, keys) = keys_of(command)?;
            let flags = || key_flags(spec, command).iter().copied().map(Reply::Status).collect();
            let told = keys.into_iter().map(|key| Reply::Array(vec![Reply::Bulk(key), Reply::Set(flags())]));
            Ok(Reply::Array(told.collect()))
        }
        (b"count" | b"getkeys" | b"getkeysandflags", _) => Err(CommandError::subcommand_arity("command", &lower)),
        _ => help::or_unknown("COMMAND", arguments),
    }
}

/// Names of commands and of their subcommands that are wanted.
fn names(wanted: impl Fn(&Spec, &str) -> bool) -> Reply {
    let mut names = Vec::new();
    for spec in COMMANDS {
        let subcommands = subcommands::served(spec.name).map(|subcommand| format!("{}|{subcommand}", spec.name));
        let all = std::iter::once(spec.name.to_owned()).chain(subcommands);
        names.extend(all.filter(|name| wanted(spec, name)).map(Reply::Text));
    }
    Reply::Array(names)
}

fn keys_of(command: &[Bytes]) -> Result<(&'static Spec, Vec<Bytes>), CommandError> {
    let (_, spec) = Spec::find(&command[0]).ok_or(CommandError::Fixed("ERR Invalid command specified"))?;
    if spec.keys.first == 0 {
        return Err(CommandError::Fixed("ERR The command has no key arguments"));
    }
    if !spec.accepts(command.len()) {
        return Err(CommandError::Fixed("ERR Invalid number of arguments specified for command"));
    }
    Ok((spec, spec.keys_of(command).cloned().collect()))
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
    let counted = spec.keys.last == COUNTED_BEFORE;
    let flags = key_flags(spec, &[]).iter().copied();
    let text = Reply::Word;
    // The first key, or the number of keys before it.
    let first = if counted { spec.keys.first - 1 } else { spec.keys.first };
    let step = (text("keystep"), Reply::count(spec.keys.step));
    let (kind, places) = if counted {
        ("keynum", vec![(text("keynumidx"), Reply::Integer(0)), (text("firstkey"), Reply::Integer(1)), step])
    } else {
        let last = match spec.keys.last {
            last if last < 0 => last,
            last => last - i64::try_from(first).unwrap_or(0),
        };
        ("range", vec![(text("lastkey"), Reply::Integer(last)), step, (text("limit"), Reply::Integer(0))])
    };
    let search = |kind, places| Reply::Map(vec![(text("type"), text(kind)), (text("spec"), Reply::Map(places))]);
    Some(Reply::Map(vec![
        (text("flags"), Reply::Set(flags.map(Reply::Status).collect())),
        (text("begin_search"), search("index", vec![(text("index"), Reply::count(first))])),
        (text("find_keys"), search(kind, places)),
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

//! HELP of commands that are made of subcommands.

use super::error::{CommandError, shown};
use super::reply::Reply;
use bytes::Bytes;

/// Subcommands and what they do, by command.
const TOPICS: [(&str, &[&str]); 9] = [
    (
        "ACL",
        &[
            "WHOAMI, USERS, LIST, GETUSER <name>, CAT [<category>]",
            "    Who may do what, by the file of users.",
            "DRYRUN <name> <command> [<arg> ...]",
            "    Whether a user may carry out a command.",
            "GENPASS [<bits>]",
            "    A random password.",
        ],
    ),
    (
        "CLUSTER",
        &[
            "SLOTS, SHARDS, NODES, INFO, MYID, MYSHARDID, REPLICAS <node-id>",
            "    The ring in the terms of Redis Cluster.",
            "KEYSLOT <key>, COUNTKEYSINSLOT <slot>, GETKEYSINSLOT <slot> <count>",
            "    Hash slots and the keys in them, from wherever they are.",
        ],
    ),
    (
        "COMMAND",
        &[
            "(no subcommand), INFO [<name> ...], DOCS [<name> ...], COUNT",
            "    The commands that are served here.",
            "LIST [FILTERBY <MODULE <name>|ACLCAT <category>|PATTERN <pattern>>]",
            "    Their names.",
            "GETKEYS <command>, GETKEYSANDFLAGS <command>",
            "    The keys of a command, and what it does to them.",
        ],
    ),
    (
        "CONFIG",
        &[
            "GET <pattern> [<pattern> ...]",
            "    Settings that clients ask for.",
            "SET <name> <value> [<name> <value> ...]",
            "    SLOWLOG's settings of this node; others are accepted where it changes nothing.",
            "RESETSTAT",
            "    Begins this node's statistics anew.",
        ],
    ),
    ("FUNCTION", &["FLUSH, LIST", "    There are no functions."]),
    (
        "LATENCY",
        &[
            "HISTOGRAM [<command> ...]",
            "    How long commands took on this node.",
            "LATEST, HISTORY <event>, RESET [<event> ...]",
            "    Events are not monitored.",
        ],
    ),
    ("MEMORY", &["USAGE <key> [SAMPLES <count>]", "    Bytes of a key and its object, at one replica."]),
    (
        "OBJECT",
        &["ENCODING <key>, REFCOUNT <key>, FREQ <key>", "    What Redis would tell of the key by default."],
    ),
    (
        "SLOWLOG",
        &[
            "GET [<count>]",
            "    Commands that were slow on this node, the last first.",
            "LEN, RESET",
            "    How many are kept; forgets them.",
        ],
    ),
];

/// The answer to a subcommand that is none of a command's own: help if that was asked for.
///
/// # Errors
/// That there is no such subcommand.
pub(super) fn or_unknown(command: &'static str, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let topic = TOPICS.iter().find(|(name, _)| *name == command);
    match (topic, arguments) {
        (Some((name, lines)), [_, word]) if word.eq_ignore_ascii_case(b"help") => {
            let first = Reply::Text(format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
            let last = ["HELP", "    Print this help."];
            let lines = lines.iter().copied().chain(last).map(Reply::Word);
            Ok(Reply::Array(std::iter::once(first).chain(lines).collect()))
        }
        _ => Err(CommandError::UnknownSubcommand { subcommand: shown(arguments.get(1)), command }),
    }
}

//! What commands do to their keys, in the terms of Redis 7.

use super::command_table::{Access, Id, Spec};
use bytes::Bytes;

/// Flags of what a command does to each of its keys, as COMMAND GETKEYSANDFLAGS tells them.
pub(super) fn key_flags(spec: &Spec, arguments: &[Bytes]) -> &'static [&'static str] {
    let has = |word: &str| arguments.iter().skip(3).any(|argument| argument.eq_ignore_ascii_case(word.as_bytes()));
    match spec.id {
        Id::Set if has("get") => &["RW", "access", "update"],
        Id::Set | Id::Mset | Id::Msetex | Id::Setex | Id::Psetex => &["OW", "update"],
        Id::Setnx => &["OW", "insert"],
        Id::Del | Id::Unlink => &["RM", "delete"],
        Id::Getdel | Id::Spop | Id::Hgetdel => &["RW", "access", "delete"],
        Id::Delex | Id::Srem | Id::Hdel => &["RW", "delete"],
        Id::Append | Id::Sadd | Id::Hsetnx => &["RW", "insert"],
        Id::Setrange
        | Id::Hset
        | Id::Hmset
        | Id::Expire
        | Id::Pexpire
        | Id::Expireat
        | Id::Pexpireat
        | Id::Persist => &["RW", "update"],
        Id::Bitfield if !writes_bits(arguments) => &["RO", "access"],
        _ if spec.access == Access::Write => &["RW", "access", "update"],
        Id::Exists
        | Id::Type
        | Id::Touch
        | Id::Strlen
        | Id::Scard
        | Id::Sismember
        | Id::Hlen
        | Id::Hexists
        | Id::Hstrlen
        | Id::Object
        | Id::Memory => &["RO"],
        _ => &["RO", "access"],
    }
}

fn writes_bits(arguments: &[Bytes]) -> bool {
    let writes = |word: &Bytes| word.eq_ignore_ascii_case(b"set") || word.eq_ignore_ascii_case(b"incrby");
    arguments.iter().skip(2).any(writes)
}

/// Whether a command reads what its keys hold, and whether it writes to them.
pub(super) fn reads_and_writes(spec: &Spec, arguments: &[Bytes]) -> (bool, bool) {
    let flags = key_flags(spec, arguments);
    (flags.contains(&"access"), flags.iter().any(|flag| matches!(*flag, "insert" | "update" | "delete")))
}

//! Every command that is served: its arity, flags and keys, as `COMMAND` tells them.

use super::parse::integer;
use bytes::Bytes;

/// A served command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the command of that name")]
pub(super) enum Id {
    Acl,
    Annulus,
    Append,
    Asking,
    Auth,
    Bitcount,
    Bitfield,
    BitfieldRo,
    Bitpos,
    Client,
    Cluster,
    Command,
    Config,
    Dbsize,
    Decr,
    Decrby,
    Del,
    Delex,
    Digest,
    Echo,
    Exists,
    Expire,
    Expireat,
    Expiretime,
    Flushall,
    Flushdb,
    Function,
    Get,
    Getbit,
    Getdel,
    Getex,
    Getrange,
    Getset,
    Hdel,
    Hello,
    Hexists,
    Hget,
    Hgetall,
    Hgetdel,
    Hincrby,
    Hincrbyfloat,
    Hkeys,
    Hlen,
    Hmget,
    Hmset,
    Hrandfield,
    Hscan,
    Hset,
    Hsetnx,
    Hstrlen,
    Hvals,
    Incr,
    Incrby,
    Incrbyfloat,
    Info,
    Keys,
    Lastsave,
    Latency,
    Lcs,
    Memory,
    Mget,
    Module,
    Mset,
    Msetex,
    Object,
    Persist,
    Pexpire,
    Pexpireat,
    Pexpiretime,
    Ping,
    Psetex,
    Pttl,
    Quit,
    Randomkey,
    Readonly,
    Readwrite,
    Reset,
    Role,
    Sadd,
    Scan,
    Scard,
    Script,
    Sdiff,
    Select,
    Set,
    Setbit,
    Setex,
    Setnx,
    Setrange,
    Sinter,
    Sintercard,
    Sismember,
    Slowlog,
    Smembers,
    Smismember,
    Spop,
    Srandmember,
    Srem,
    Sscan,
    Strlen,
    Substr,
    Sunion,
    Time,
    Touch,
    Ttl,
    Type,
    Unlink,
    Wait,
    Waitaof,
}

/// What a command does to keys: decides what may run beside it on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Touches no key: answered at once by the connection.
    None,
    /// Reads its keys.
    Read,
    /// Writes its keys, and may read them.
    Write,
    /// Reads keys that it does not name.
    All,
}

/// What is fixed about a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    /// Name in lower case.
    pub(super) name: &'static str,
    /// Which one.
    pub(super) id: Id,
    /// Number of arguments, the name included; negative: at least so many.
    pub(super) arity: i64,
    /// What it does to keys.
    pub(super) access: Access,
    /// Whether it takes the same short time whatever the data.
    pub(super) fast: bool,
    /// Positions of its keys.
    pub(super) keys: Keys,
    /// Chapter of the Redis documentation.
    pub(super) group: &'static str,
    /// What it does, in one line.
    pub(super) summary: &'static str,
}

/// Which arguments are keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    /// Position of the first; 0: none.
    pub(super) first: usize,
    /// Position of the last; -1: the last argument; [`COUNTED_BEFORE`]: the argument before the first tells how many.
    pub(super) last: i64,
    /// Distance from one to the next.
    pub(super) step: usize,
}

/// See [`Keys::last`].
pub(super) const COUNTED_BEFORE: i64 = i64::MIN;

const NO_KEYS: Keys = Keys { first: 0, last: 0, step: 0 };
const ONE_KEY: Keys = Keys { first: 1, last: 1, step: 1 };
const ALL_ARGUMENTS: Keys = Keys { first: 1, last: -1, step: 1 };
const COUNTED_KEYS: Keys = Keys { first: 2, last: COUNTED_BEFORE, step: 1 };
const TWO_KEYS: Keys = Keys { first: 1, last: 2, step: 1 };
const COUNTED_PAIRS: Keys = Keys { first: 2, last: COUNTED_BEFORE, step: 2 };
const EVERY_OTHER: Keys = Keys { first: 1, last: -1, step: 2 };

impl Spec {
    /// Finds a command by its name, in whatever case.
    pub(super) fn find(name: &[u8]) -> Option<(usize, &'static Self)> {
        let mut lower = [0; 16];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        let index = COMMANDS.binary_search_by(|spec| spec.name.as_bytes().cmp(lower)).ok()?;
        Some((index, &COMMANDS[index]))
    }

    /// Whether so many arguments, the name included, can be right.
    pub(super) fn accepts(&self, arguments: usize) -> bool {
        let arguments = i64::try_from(arguments).unwrap_or(i64::MAX);
        if self.arity < 0 { arguments >= -self.arity } else { arguments == self.arity }
    }

    /// The keys among the arguments.
    pub(super) fn keys_of<'a>(&self, arguments: &'a [Bytes]) -> impl Iterator<Item = &'a Bytes> + use<'a> {
        let Keys { first, last, step } = self.keys;
        let counted = || {
            let count = arguments.get(first.saturating_sub(1)).and_then(|count| integer(count))?;
            Some(first.saturating_add(usize::try_from(count).ok()?.saturating_mul(step)))
        };
        let end = match last {
            COUNTED_BEFORE => counted().unwrap_or(0),
            last if last < 0 => arguments.len(),
            last => usize::try_from(last).unwrap_or(0) + 1,
        };
        let end = if first == 0 { 0 } else { end.min(arguments.len()) };
        arguments.get(first.min(end)..end).unwrap_or_default().iter().step_by(step.max(1))
    }

    /// Whether someone may send it who has not said who they are.
    pub(super) fn needs_no_user(&self) -> bool {
        matches!(self.id, Id::Auth | Id::Hello | Id::Quit | Id::Reset)
    }

    /// Whether it deletes all keys.
    pub(super) fn is_flush(&self) -> bool {
        matches!(self.id, Id::Flushall | Id::Flushdb)
    }

    /// Flags as `COMMAND` lists them.
    pub(super) fn flags(&self) -> Vec<&'static str> {
        let mut flags = match self.access {
            Access::None => vec!["loading", "stale"],
            Access::All if self.is_flush() => vec!["write"],
            Access::Read | Access::All => vec!["readonly"],
            Access::Write => vec!["write"],
        };
        if self.fast {
            flags.push("fast");
        }
        if self.needs_no_user() {
            flags.push("no_auth");
        }
        // Where its keys are depends on another argument.
        if self.keys.last == COUNTED_BEFORE {
            flags.push("movablekeys");
        }
        flags
    }
}

const fn row(
    name: &'static str,
    id: Id,
    arity: i64,
    (access, keys, fast): (Access, Keys, bool),
    group: &'static str,
    summary: &'static str,
) -> Spec {
    Spec { name, id, arity, access, fast, keys, group, summary }
}

const LOCAL: (Access, Keys, bool) = (Access::None, NO_KEYS, true);
const READ: (Access, Keys, bool) = (Access::Read, ONE_KEY, true);
/// A subcommand that may have a key behind it.
const SECOND: (Access, Keys, bool) = (Access::Read, Keys { first: 2, last: 2, step: 1 }, true);
const FLUSH: (Access, Keys, bool) = (Access::All, NO_KEYS, false);
const READ_SLOW: (Access, Keys, bool) = (Access::Read, ONE_KEY, false);
const READ_SETS: (Access, Keys, bool) = (Access::Read, ALL_ARGUMENTS, false);
/// The number of keys comes before them.
const COUNTED: (Access, Keys, bool) = (Access::Read, COUNTED_KEYS, false);
/// Carried out by the owner of the key's partition alone.
const OWNED: (Access, Keys, bool) = (Access::Write, ONE_KEY, true);
const WRITE: (Access, Keys, bool) = (Access::Write, ONE_KEY, true);
const WHOLE: (Access, Keys, bool) = (Access::All, NO_KEYS, false);
const READ_MANY: (Access, Keys, bool) = (Access::Read, ALL_ARGUMENTS, true);
const WRITE_MANY: (Access, Keys, bool) = (Access::Write, ALL_ARGUMENTS, false);

/// Every served command by name.
#[rustfmt::skip]
pub(super) static COMMANDS: &[Spec] = &[
    row("acl", Id::Acl, -2, LOCAL, "server", "Tells about users."),
    row("annulus", Id::Annulus, -2, SECOND, "server", "Offers what Redis has no command for."),
    row("append", Id::Append, 3, OWNED, "string", "Appends to a string, at the owner."),
    row("asking", Id::Asking, 1, LOCAL, "cluster", "Does nothing: every node serves every key."),
    row("auth", Id::Auth, -2, LOCAL, "connection", "Says who the client is."),
    row("bitcount", Id::Bitcount, -2, READ_SLOW, "bitmap", "Counts the bits that are set."),
    row("bitfield", Id::Bitfield, -2, OWNED, "bitmap", "Reads and writes integers within a string, at the owner."),
    row("bitfield_ro", Id::BitfieldRo, -2, READ, "bitmap", "Reads integers within a string."),
    row("bitpos", Id::Bitpos, -3, READ_SLOW, "bitmap", "Finds the first bit that is set, or that is not."),
    row("client", Id::Client, -2, LOCAL, "connection", "Tells and sets things about connections."),
    row("cluster", Id::Cluster, -2, LOCAL, "cluster", "Describes the ring in the terms of Redis Cluster."),
    row("command", Id::Command, -1, LOCAL, "server", "Describes the commands."),
    row("config", Id::Config, -2, LOCAL, "server", "Tells settings; sets none."),
    row("dbsize", Id::Dbsize, 1, WHOLE, "server", "Counts the keys of the cluster."),
    row("decr", Id::Decr, 2, WRITE, "string", "Takes one from a counter."),
    row("decrby", Id::Decrby, 3, WRITE, "string", "Takes a number from a counter."),
    row("del", Id::Del, -2, WRITE_MANY, "generic", "Deletes keys, each for itself."),
    row("delex", Id::Delex, -2, OWNED, "string", "Deletes a string if it is what the client takes it for, at the owner."),
    row("digest", Id::Digest, 2, READ, "string", "Returns the hash of a string."),
    row("echo", Id::Echo, 2, LOCAL, "connection", "Returns its argument."),
    row("exists", Id::Exists, -2, READ_MANY, "generic", "Counts those of the keys that exist."),
    row("expire", Id::Expire, -3, WRITE, "generic", "Sets a key's time to live in seconds."),
    row("expireat", Id::Expireat, -3, WRITE, "generic", "Sets when a key expires, in seconds since 1970."),
    row("expiretime", Id::Expiretime, 2, READ, "generic", "Tells when a key expires, in seconds since 1970."),
    row("flushall", Id::Flushall, -1, FLUSH, "server", "Deletes all keys, if the node allows it."),
    row("flushdb", Id::Flushdb, -1, FLUSH, "server", "Deletes all keys, if the node allows it."),
    row("function", Id::Function, -2, LOCAL, "scripting", "Tells that there are no functions."),
    row("get", Id::Get, 2, READ, "string", "Returns a key's value."),
    row("getbit", Id::Getbit, 3, READ, "bitmap", "Returns a bit of a string."),
    row("getdel", Id::Getdel, 2, WRITE, "string", "Returns a key's value and deletes the key."),
    row("getex", Id::Getex, -2, WRITE, "string", "Returns a key's value and sets when it expires."),
    row("getrange", Id::Getrange, 4, READ, "string", "Returns a part of a key's value."),
    row("getset", Id::Getset, 3, WRITE, "string", "Sets a key's value and returns the one read just before."),
    row("hdel", Id::Hdel, -3, WRITE, "hash", "Removes fields of a hash."),
    row("hello", Id::Hello, -1, LOCAL, "connection", "Chooses the version of the protocol."),
    row("hexists", Id::Hexists, 3, READ, "hash", "Tells whether a hash has a field."),
    row("hget", Id::Hget, 3, READ, "hash", "Returns the value of a field."),
    row("hgetall", Id::Hgetall, 2, READ_SLOW, "hash", "Returns all fields of a hash and their values."),
    row("hgetdel", Id::Hgetdel, -5, OWNED, "hash", "Returns fields of a hash and removes them, at the owner."),
    row("hincrby", Id::Hincrby, 4, WRITE, "hash", "Adds to a field as to a counter."),
    row("hincrbyfloat", Id::Hincrbyfloat, 4, OWNED, "hash", "Adds to a field that is a floating point number, at the owner."),
    row("hkeys", Id::Hkeys, 2, READ_SLOW, "hash", "Returns all fields of a hash."),
    row("hlen", Id::Hlen, 2, READ, "hash", "Counts the fields of a hash."),
    row("hmget", Id::Hmget, -3, READ, "hash", "Returns the values of fields."),
    row("hmset", Id::Hmset, -4, WRITE, "hash", "Sets fields of a hash."),
    row("hrandfield", Id::Hrandfield, -2, READ_SLOW, "hash", "Returns some fields of a hash."),
    row("hscan", Id::Hscan, -3, READ_SLOW, "hash", "Returns fields of a hash and their values."),
    row("hset", Id::Hset, -4, WRITE, "hash", "Sets fields of a hash."),
    row("hsetnx", Id::Hsetnx, 4, OWNED, "hash", "Sets a field that is not there, at the owner."),
    row("hstrlen", Id::Hstrlen, 3, READ, "hash", "Returns the length of a field's value."),
    row("hvals", Id::Hvals, 2, READ_SLOW, "hash", "Returns all values of a hash."),
    row("incr", Id::Incr, 2, WRITE, "string", "Adds one to a counter."),
    row("incrby", Id::Incrby, 3, WRITE, "string", "Adds a number to a counter."),
    row("incrbyfloat", Id::Incrbyfloat, 3, OWNED, "string", "Adds to a floating point number, at the owner."),
    row("info", Id::Info, -1, LOCAL, "server", "Tells about this node."),
    row("keys", Id::Keys, 2, WHOLE, "generic", "Returns all keys that match a pattern."),
    row("lastsave", Id::Lastsave, 1, LOCAL, "server", "Returns this node's clock: what was answered is on disk."),
    row("latency", Id::Latency, -2, LOCAL, "server", "Tells of latency events, of which there are none."),
    row("lcs", Id::Lcs, -3, (Access::Read, TWO_KEYS, false), "string", "Finds what two strings have in common."),
    row("memory", Id::Memory, -2, SECOND, "server", "Tells how large a key is."),
    row("mget", Id::Mget, -2, READ_MANY, "string", "Returns the values of keys."),
    row("module", Id::Module, -2, LOCAL, "server", "Tells that there are no modules."),
    row("mset", Id::Mset, -3, (Access::Write, EVERY_OTHER, false), "string", "Sets keys, each for itself."),
    row("msetex", Id::Msetex, -4, (Access::Write, COUNTED_PAIRS, false), "string", "Sets keys and when they expire, each for itself."),
    row("object", Id::Object, -2, SECOND, "generic", "Tells how Redis would keep a key."),
    row("persist", Id::Persist, 2, WRITE, "generic", "Takes away a key's expiry."),
    row("pexpire", Id::Pexpire, -3, WRITE, "generic", "Sets a key's time to live in milliseconds."),
    row("pexpireat", Id::Pexpireat, -3, WRITE, "generic", "Sets when a key expires, in milliseconds since 1970."),
    row("pexpiretime", Id::Pexpiretime, 2, READ, "generic", "Tells when a key expires, in milliseconds since 1970."),
    row("ping", Id::Ping, -1, LOCAL, "connection", "Returns PONG or its argument."),
    row("psetex", Id::Psetex, 4, WRITE, "string", "Sets a key's value and its time to live in milliseconds."),
    row("pttl", Id::Pttl, 2, READ, "generic", "Returns a key's time to live in milliseconds."),
    row("quit", Id::Quit, -1, LOCAL, "connection", "Closes the connection."),
    row("randomkey", Id::Randomkey, 1, WHOLE, "generic", "Returns some key."),
    row("readonly", Id::Readonly, 1, LOCAL, "cluster", "Does nothing: every node serves every key."),
    row("readwrite", Id::Readwrite, 1, LOCAL, "cluster", "Does nothing: every node serves every key."),
    row("reset", Id::Reset, 1, LOCAL, "connection", "Puts the connection back to how it began."),
    row("role", Id::Role, 1, LOCAL, "server", "Tells that this node takes writes."),
    row("sadd", Id::Sadd, -3, WRITE, "set", "Puts members into a set."),
    row("scan", Id::Scan, -2, WHOLE, "generic", "Returns keys of the cluster, part by part."),
    row("scard", Id::Scard, 2, READ, "set", "Counts the members of a set."),
    row("script", Id::Script, -2, LOCAL, "scripting", "Tells that there are no scripts."),
    row("sdiff", Id::Sdiff, -2, READ_SETS, "set", "Returns the members of the first set that no other set has."),
    row("select", Id::Select, 2, LOCAL, "connection", "Chooses database 0, the only one."),
    row("set", Id::Set, -3, WRITE, "string", "Sets a key's value."),
    row("setbit", Id::Setbit, 4, OWNED, "bitmap", "Sets a bit of a string, at the owner."),
    row("setex", Id::Setex, 4, WRITE, "string", "Sets a key's value and its time to live in seconds."),
    row("setnx", Id::Setnx, 3, OWNED, "string", "Sets a key that is not there, at the owner."),
    row("setrange", Id::Setrange, 4, OWNED, "string", "Overwrites a part of a string, at the owner."),
    row("sinter", Id::Sinter, -2, READ_SETS, "set", "Returns the members that all sets have."),
    row("sintercard", Id::Sintercard, -3, COUNTED, "set", "Counts the members that all sets have."),
    row("sismember", Id::Sismember, 3, READ, "set", "Tells whether a set has a member."),
    row("slowlog", Id::Slowlog, -2, LOCAL, "server", "Tells which commands took long here."),
    row("smembers", Id::Smembers, 2, READ_SLOW, "set", "Returns the members of a set."),
    row("smismember", Id::Smismember, -3, READ, "set", "Tells which members a set has."),
    row("spop", Id::Spop, -2, OWNED, "set", "Takes some members out of a set, at the owner."),
    row("srandmember", Id::Srandmember, -2, READ_SLOW, "set", "Returns some members of a set."),
    row("srem", Id::Srem, -3, WRITE, "set", "Takes members out of a set."),
    row("sscan", Id::Sscan, -3, READ_SLOW, "set", "Returns members of a set."),
    row("strlen", Id::Strlen, 2, READ, "string", "Returns the length of a key's value."),
    row("substr", Id::Substr, 4, READ, "string", "Is the older name of GETRANGE."),
    row("sunion", Id::Sunion, -2, READ_SETS, "set", "Returns the members that any set has."),
    row("time", Id::Time, 1, LOCAL, "server", "Returns this node's clock."),
    row("touch", Id::Touch, -2, READ_MANY, "generic", "Counts those of the keys that exist."),
    row("ttl", Id::Ttl, 2, READ, "generic", "Returns a key's time to live in seconds."),
    row("type", Id::Type, 2, READ, "generic", "Returns the type of a key: string or none."),
    row("unlink", Id::Unlink, -2, WRITE_MANY, "generic", "Deletes keys, each for itself."),
    row("wait", Id::Wait, 3, LOCAL, "generic", "Tells how many replicas have every answered write."),
    row("waitaof", Id::Waitaof, 4, LOCAL, "generic", "Tells how many nodes have every answered write on disk."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_name_is_found() {
        assert!(COMMANDS.is_sorted_by(|a, b| a.name < b.name));
        for spec in COMMANDS {
            let found = Spec::find(spec.name.to_uppercase().as_bytes()).map(|(_, found)| found.id);
            assert_eq!(found, Some(spec.id));
        }
        assert!(Spec::find(b"").is_none() && Spec::find(b"sets").is_none() && Spec::find(&[b'x'; 99]).is_none());
    }

    /// The table "Served" of docs/redis.md names in its first column every command, and no other.
    #[test]
    fn the_documentation_names_every_command() {
        let path = "../docs/redis.md";
        let text = std::fs::read_to_string(path).unwrap();
        let (_, served) = text.split_once("### Served\n").unwrap();
        let (served, _) = served.split_once("### Refused").unwrap();
        let mut documented = std::collections::BTreeSet::new();
        for row in served.lines().filter(|line| line.starts_with("| `")) {
            let names = row.split('|').nth(1).unwrap();
            // What stands in backticks: a command, or a command with options or subcommands, or one of these alone.
            let words: Vec<String> = names.split('`').skip(1).step_by(2).map(str::to_lowercase).collect();
            assert!(
                Spec::find(words[0].split(' ').next().unwrap().as_bytes()).is_some(),
                "no such command: {row}"
            );
            let commands = words.iter().filter_map(|word| word.split(' ').next());
            documented.extend(commands.filter_map(|word| Spec::find(word.as_bytes())).map(|(_, spec)| spec.name));
        }
        let missing: Vec<_> = COMMANDS.iter().filter(|spec| !documented.contains(spec.name)).collect();
        assert!(missing.is_empty(), "not in docs/redis.md: {missing:?}");
    }

    #[test]
    fn keys_are_found() {
        let keys = |line: &str| {
            let arguments: Vec<Bytes> = line.split(' ').map(|word| Bytes::from(word.to_owned())).collect();
            let (_, spec) = Spec::find(&arguments[0]).unwrap();
            spec.keys_of(&arguments)
                .map(|key| String::from_utf8_lossy(key).into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(keys("mset a 1 b 2"), "a b");
        assert_eq!(keys("del a b c"), "a b c");
        assert_eq!(keys("set a b EX 1"), "a");
        assert_eq!(keys("ping a"), "");
        assert_eq!(keys("get"), "");
    }
}

//! CONFIG: settings that clients ask for, as they are here; few can be set.

use super::error::{CommandError, shown};
use super::glob;
use super::help;
use super::parse::integer;
use super::reply::Reply;
use super::server::Server;
use super::slow_log::SlowLog;
use crate::coordinator::KeyValue;
use bytes::Bytes;

/// `CONFIG GET pattern [pattern …]`
pub(super) fn answer<K: KeyValue>(server: &Server<K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let subcommand = arguments[1].to_ascii_lowercase();
    match (subcommand.as_slice(), &arguments[2..]) {
        (b"get", patterns @ [_, ..]) => {
            let wanted = |name: &str| {
                let matches = |pattern: &Bytes| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes());
                patterns.iter().any(matches)
            };
            let settings = settings(server).into_iter().filter(|(name, _)| wanted(name));
            Ok(Reply::Map(settings.map(|(name, value)| (Reply::Word(name), Reply::Text(value))).collect()))
        }
        (b"get", []) => Err(CommandError::subcommand_arity("config", &subcommand)),
        (b"set", [_, ..]) if arguments.len().is_multiple_of(2) => set(server, &arguments[2..]),
        (b"resetstat", []) => {
            server.metrics.reset_statistics();
            server.errors.reset();
            Ok(Reply::OK)
        }
        (b"resetstat", _) => Err(CommandError::subcommand_arity("config", &subcommand)),
        (b"set" | b"rewrite", _) => Err(CommandError::Unsupported {
            what: format!("config {}", shown(arguments.get(1)).to_ascii_lowercase()),
            reason: CONFIGURED_ELSEWHERE,
        }),
        _ => help::or_unknown("CONFIG", arguments),
    }
}

/// What is so already can be set, what tells Redis how to keep small collections, which are kept otherwise here, and
/// what this node notes as slow. All of it is set or nothing.
fn set<K: KeyValue>(server: &Server<K>, pairs: &[Bytes]) -> Result<Reply, CommandError> {
    let settings = settings(server);
    let mut noted = Vec::new();
    for pair in pairs.chunks_exact(2) {
        let name = pair[0].to_ascii_lowercase();
        let Some((name, value)) = settings.iter().find(|(known, _)| known.as_bytes() == name) else {
            return Err(elsewhere(&shown(Some(&pair[0])).to_ascii_lowercase()));
        };
        if noted.iter().any(|(before, _)| before == name) {
            return Err(CommandError::ConfigTwice(name));
        }
        let number = integer(&pair[1]).ok_or(CommandError::ConfigNotInteger(name));
        match *name {
            SLOWER_THAN => noted.push((SLOWER_THAN, number?)),
            SLOW_LOG_LENGTH => {
                let length = Some(number?).filter(|&length| SlowLog::may_keep(length));
                noted.push((SLOW_LOG_LENGTH, length.ok_or_else(|| elsewhere(name))?));
            }
            _ if WITHOUT_EFFECT.iter().any(|(known, _)| known == name) => drop(number?),
            _ if value.as_bytes() != pair[1] => return Err(elsewhere(name)),
            _ => {}
        }
    }
    for (name, number) in noted {
        match name {
            SLOWER_THAN => server.slow_log.set_slow_after_micros(number),
            _ => server.slow_log.keep(usize::try_from(number).unwrap_or(0)),
        }
    }
    Ok(Reply::OK)
}

fn elsewhere(name: &str) -> CommandError {
    CommandError::Unsupported { what: format!("config set {name}"), reason: CONFIGURED_ELSEWHERE }
}

/// Settings of SLOWLOG, which hold for this node until it restarts.
const SLOWER_THAN: &str = "slowlog-log-slower-than";
const SLOW_LOG_LENGTH: &str = "slowlog-max-len";

const CONFIGURED_ELSEWHERE: &str = "is not offered: a cluster is configured by its KeyValueCluster resource";

/// Settings of how Redis keeps small collections, with its defaults.
const WITHOUT_EFFECT: [(&str, &str); 14] = [
    ("hash-max-listpack-entries", "128"),
    ("hash-max-listpack-value", "64"),
    ("hash-max-ziplist-entries", "128"),
    ("hash-max-ziplist-value", "64"),
    ("list-compress-depth", "0"),
    ("list-max-listpack-size", "-2"),
    ("list-max-ziplist-size", "-2"),
    ("set-max-intset-entries", "512"),
    ("set-max-listpack-entries", "128"),
    ("set-max-listpack-value", "64"),
    ("zset-max-listpack-entries", "128"),
    ("zset-max-listpack-value", "64"),
    ("zset-max-ziplist-entries", "128"),
    ("zset-max-ziplist-value", "64"),
];

fn settings<K: KeyValue>(server: &Server<K>) -> Vec<(&'static str, String)> {
    let limits = server.store.limits();
    let mut settings = vec![
        // Every write is on disk before it is answered.
        ("appendfsync", String::from("always")),
        ("appendonly", String::from("yes")),
        ("cluster-enabled", String::from("yes")),
        ("databases", String::from("1")),
        ("latency-monitor-threshold", String::from("0")),
        ("maxclients", limits.connections_max.to_string()),
        ("maxmemory", String::from("0")),
        ("maxmemory-policy", String::from("noeviction")),
        ("notify-keyspace-events", String::new()),
        ("proto-max-bulk-len", limits.value_bytes_max.max(limits.key_bytes_max).to_string()),
        ("replicaof", String::new()),
        ("replica-read-only", String::from("no")),
        ("save", String::new()),
        ("slaveof", String::new()),
        ("slave-read-only", String::from("no")),
        (SLOWER_THAN, server.slow_log.slow_after_micros().to_string()),
        (SLOW_LOG_LENGTH, server.slow_log.entries_max().to_string()),
        ("timeout", String::from("0")),
    ];
    settings.extend(WITHOUT_EFFECT.map(|(name, value)| (name, value.to_owned())));
    settings
}

//! CONFIG: settings that clients ask for, as they are here; few can be set.

use super::error::{CommandError, shown};
use super::glob;
use super::help;
use super::parse::integer;
use super::reply::Reply;
use super::slow_log::{ENTRIES_MAX, SLOW_AFTER};
use crate::config::Limits;
use bytes::Bytes;

/// `CONFIG GET pattern [pattern …]`
pub(super) fn answer(limits: &Limits, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let subcommand = arguments[1].to_ascii_lowercase();
    match (subcommand.as_slice(), &arguments[2..]) {
        (b"get", patterns @ [_, ..]) => {
            let wanted = |name: &str| {
                let matches = |pattern: &Bytes| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes());
                patterns.iter().any(matches)
            };
            let settings = settings(limits).into_iter().filter(|(name, _)| wanted(name));
            Ok(Reply::Map(settings.map(|(name, value)| (Reply::Word(name), Reply::Text(value))).collect()))
        }
        (b"get", []) => Err(CommandError::subcommand_arity("config", &subcommand)),
        (b"set", [_, ..]) if arguments.len().is_multiple_of(2) => set(limits, &arguments[2..]),
        (b"set" | b"rewrite" | b"resetstat", _) => Err(CommandError::Unsupported {
            what: format!("config {}", shown(arguments.get(1)).to_ascii_lowercase()),
            reason: CONFIGURED_ELSEWHERE,
        }),
        _ => help::or_unknown("CONFIG", arguments),
    }
}

/// What is so already can be set, and what tells Redis how to keep small collections, which are kept otherwise here.
fn set(limits: &Limits, pairs: &[Bytes]) -> Result<Reply, CommandError> {
    let settings = settings(limits);
    for pair in pairs.chunks_exact(2) {
        let name = pair[0].to_ascii_lowercase();
        let Some((name, value)) = settings.iter().find(|(known, _)| known.as_bytes() == name) else {
            return Err(CommandError::Unsupported {
                what: format!("config set {}", shown(Some(&pair[0])).to_ascii_lowercase()),
                reason: CONFIGURED_ELSEWHERE,
            });
        };
        let without_effect = WITHOUT_EFFECT.iter().any(|(known, _)| known == name);
        if !without_effect && value.as_bytes() != pair[1] {
            return Err(CommandError::Unsupported {
                what: format!("config set {name}"),
                reason: CONFIGURED_ELSEWHERE,
            });
        }
        if without_effect && integer(&pair[1]).is_none() {
            return Err(CommandError::ConfigNotInteger(name));
        }
    }
    Ok(Reply::OK)
}

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

fn settings(limits: &Limits) -> Vec<(&'static str, String)> {
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
        ("replica-read-only", String::from("no")),
        ("save", String::new()),
        ("slave-read-only", String::from("no")),
        ("slowlog-log-slower-than", SLOW_AFTER.as_micros().to_string()),
        ("slowlog-max-len", ENTRIES_MAX.to_string()),
        ("timeout", String::from("0")),
    ];
    settings.extend(WITHOUT_EFFECT.map(|(name, value)| (name, value.to_owned())));
    settings
}

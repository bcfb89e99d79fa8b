//! CONFIG GET: settings that clients ask for, as they are here.

use super::error::{CommandError, shown};
use super::glob;
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
        (b"set" | b"rewrite" | b"resetstat", _) => Err(CommandError::Unsupported {
            what: format!("config {}", shown(arguments.get(1)).to_ascii_lowercase()),
            reason: "is not offered: a cluster is configured by its KeyValueCluster resource",
        }),
        _ => Err(CommandError::UnknownSubcommand { subcommand: shown(arguments.get(1)), command: "CONFIG" }),
    }
}

fn settings(limits: &Limits) -> Vec<(&'static str, String)> {
    vec![
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
    ]
}

//! INFO: this node, in the sections that tools for Redis read, and one of its own.

use super::cluster::{host_and_port, node_id};
use super::connection::REDIS_VERSION;
use super::reply::Reply;
use super::server::Server;
use crate::coordinator::{KeyValue, Overview};
use bytes::Bytes;
use std::fmt::Write as _;

/// `INFO [section …]`
pub(super) fn answer<K: KeyValue>(server: &Server<K>, wanted: &[Bytes]) -> Reply {
    let all = |wanted: &Bytes| {
        [&b"all"[..], b"default", b"everything"].iter().any(|name| wanted.eq_ignore_ascii_case(name))
    };
    let whole = wanted.is_empty() || wanted.iter().any(all);
    let overview = server.store.overview();
    let mut text = String::new();
    let mut section = |name: &str, lines: String| {
        let separator = if text.is_empty() { "" } else { "\r\n" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}# {name}\r\n{lines}");
    };
    let asked = |names: &[&str]| {
        wanted.iter().any(|wanted| names.iter().any(|name| wanted.eq_ignore_ascii_case(name.as_bytes())))
    };
    for (name, fields) in sections(server, &overview) {
        if whole || asked(&[name]) {
            section(name, fields.iter().map(|(field, value)| format!("{field}:{value}\r\n")).collect());
        }
    }
    if whole || asked(&["errorstats"]) {
        section("Errorstats", server.errors.lines());
    }
    // By default Redis leaves this one out, since it is long.
    if asked(&["all", "everything", "commandstats"]) {
        section("Commandstats", server.metrics.command_stats());
    }
    Reply::Verbatim(text)
}

type Fields = Vec<(&'static str, String)>;

fn sections<K: KeyValue>(server: &Server<K>, overview: &Overview) -> Vec<(&'static str, Fields)> {
    vec![
        ("Server", identity(server, overview)),
        ("Clients", clients(server)),
        ("Memory", memory(server.memory.held_bytes())),
        ("Persistence", persistence(server)),
        ("Stats", counters(server)),
        ("Replication", replication(overview)),
        ("CPU", processor_seconds()),
        ("Cluster", vec![("cluster_enabled", String::from("1"))]),
        ("Annulus", annulus(overview)),
        ("Keyspace", keyspace(overview)),
    ]
}

fn identity<K: KeyValue>(server: &Server<K>, overview: &Overview) -> Fields {
    let uptime_seconds = server.store.now_ms().saturating_sub(server.started_ms) / 1000;
    vec![
        ("redis_version", REDIS_VERSION.to_owned()),
        ("server_name", String::from("annulus")),
        ("annulus_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("redis_mode", String::from("cluster")),
        ("os", std::env::consts::OS.to_owned()),
        ("arch_bits", usize::BITS.to_string()),
        ("process_id", std::process::id().to_string()),
        ("run_id", node_id(overview.incarnation)),
        ("tcp_port", port(server, overview).to_string()),
        ("server_time_usec", (server.store.now_ms() * 1000).to_string()),
        ("uptime_in_seconds", uptime_seconds.to_string()),
        ("uptime_in_days", (uptime_seconds / 86_400).to_string()),
    ]
}

fn clients<K: KeyValue>(server: &Server<K>) -> Fields {
    vec![
        ("connected_clients", server.clients.count().to_string()),
        ("maxclients", server.store.limits().connections_max.to_string()),
        // No command waits for another client.
        ("blocked_clients", String::from("0")),
    ]
}

fn memory(client_bytes: usize) -> Fields {
    let resident_bytes = resident_bytes().unwrap_or(0);
    vec![
        ("used_memory", resident_bytes.to_string()),
        ("used_memory_human", human(resident_bytes)),
        ("used_memory_rss", resident_bytes.to_string()),
        ("used_memory_rss_human", human(resident_bytes)),
        // The data is on disk: there is no limit at which keys would be evicted.
        ("mem_clients_normal", client_bytes.to_string()),
        ("maxmemory", String::from("0")),
        ("maxmemory_policy", String::from("noeviction")),
    ]
}

fn persistence<K: KeyValue>(server: &Server<K>) -> Fields {
    vec![
        ("loading", u8::from(server.store.ring().is_none()).to_string()),
        // Every write is on disk before it is answered, and there are no snapshots.
        ("aof_enabled", String::from("1")),
        ("rdb_bgsave_in_progress", String::from("0")),
    ]
}

fn counters<K: KeyValue>(server: &Server<K>) -> Fields {
    let totals = server.metrics.totals();
    vec![
        ("total_connections_received", totals.accepted.to_string()),
        ("total_commands_processed", totals.commands.to_string()),
        ("total_net_input_bytes", totals.bytes_in.to_string()),
        ("total_net_output_bytes", totals.bytes_out.to_string()),
        ("rejected_connections", totals.turned_away.to_string()),
        // Nothing is evicted for want of memory.
        ("evicted_keys", String::from("0")),
        ("total_error_replies", server.errors.total().to_string()),
    ]
}

/// There is no leader: every node takes writes, which is what clients mean by master, and none follows another.
fn replication(overview: &Overview) -> Fields {
    vec![
        ("role", String::from("master")),
        ("connected_slaves", String::from("0")),
        ("master_replid", node_id(overview.incarnation)),
        ("master_repl_offset", String::from("0")),
    ]
}

/// The port that clients are told, and until there is a ring the usual one.
fn port<K: KeyValue>(server: &Server<K>, overview: &Overview) -> u16 {
    let view = server.store.ring();
    let member = view.as_ref().and_then(|view| view.ring().member_by_incarnation(overview.incarnation));
    member.map_or(6379, |member| host_and_port(&member.client_address).1)
}

fn annulus(overview: &Overview) -> Fields {
    vec![
        ("annulus_name", overview.name.clone()),
        ("annulus_incarnation", overview.incarnation.to_string()),
        ("annulus_ready", u8::from(overview.ready).to_string()),
        ("annulus_epoch", overview.epoch.to_string()),
        ("annulus_keys_stored", overview.keys.to_string()),
        ("annulus_bytes_stored", overview.bytes.to_string()),
        ("annulus_hints", overview.hints.to_string()),
        ("annulus_hint_bytes", overview.hint_bytes.to_string()),
        ("annulus_copying_partitions", overview.copying_partitions.to_string()),
        ("annulus_moved_bytes", overview.moved_bytes.to_string()),
        ("annulus_unreachable", overview.unreachable.join(",")),
        ("annulus_disk_bytes_free", overview.disk_bytes_free.to_string()),
        ("annulus_disk_bytes_total", overview.disk_bytes_total.to_string()),
    ]
}

/// Keys that this node stores, as a replica or as an owner: as a node of Redis Cluster, it tells of itself. DBSIZE
/// counts the cluster.
fn keyspace(overview: &Overview) -> Fields {
    if overview.keys == 0 {
        return Vec::new();
    }
    vec![("db0", format!("keys={},expires=0,avg_ttl=0", overview.keys))]
}

/// Memory of this process in bytes, where the system tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = status.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// Bytes as Redis writes them for people.
fn human(bytes: u64) -> String {
    let units = [("G", 30), ("M", 20), ("K", 10)];
    let unit = units.into_iter().find(|(_, power)| bytes >> power > 0);
    unit.map_or_else(
        || format!("{bytes}B"),
        |(unit, power)| format!("{:.2}{unit}", bytes as f64 / f64::from(1u32 << power)),
    )
}

/// Processor time of this process, where the system tells.
fn processor_seconds() -> Fields {
    const TICKS_A_SECOND: f64 = 100.0;
    let Ok(status) = std::fs::read_to_string("/proc/self/stat") else { return Vec::new() };
    // The second field is a name in parentheses that may hold spaces; those wanted are the 14th and 15th.
    let Some((_, fields)) = status.rsplit_once(") ") else { return Vec::new() };
    let ticks: Vec<f64> = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    let [user, system] = ticks[..] else { return Vec::new() };
    vec![
        ("used_cpu_sys", format!("{:.6}", system / TICKS_A_SECOND)),
        ("used_cpu_user", format!("{:.6}", user / TICKS_A_SECOND)),
    ]
}

//! CLUSTER: the ring in the terms of Redis Cluster.
//!
//! Partition p of Q covers 16384 / Q hash slots. The first reachable member of its preference list is told as the
//! master of those slots and the others as its replicas, so that a cluster client sends a key straight to a node that
//! stores it. Any node serves any key all the same, so a client that acts on an old ring is never wrong, and is never
//! sent a MOVED.

use super::error::{CommandError, shown};
use super::help;
use super::reply::Reply;
use super::server::Server;
use crate::coordinator::{KeyValue, RequestError};
use bytes::{Bytes, BytesMut};
use dynamo::preference::MemberIndex;
use dynamo::ring::{Member, RingView};
use dynamo::token::{SLOTS, slot};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use uuid::Uuid;

/// `CLUSTER subcommand …`
pub(super) fn answer<K: KeyValue>(server: &Server<K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let subcommand = arguments[1].to_ascii_lowercase();
    let ring = || server.store.ring().ok_or(RequestError::NoRing);
    match (subcommand.as_slice(), &arguments[2..]) {
        (b"slots", []) => Ok(Reply::Encoded(server.slots.get(&*ring()?, &server.store.overview().unreachable))),
        (b"shards", []) => Ok(shards(&*ring()?, &server.store.overview().unreachable)),
        (b"nodes", []) => {
            let overview = server.store.overview();
            Ok(Reply::Verbatim(nodes(&*ring()?, &overview.unreachable, overview.incarnation)))
        }
        (b"info", []) => Ok(Reply::Verbatim(state(server))),
        (b"myid", []) => Ok(Reply::Text(node_id(server.store.overview().incarnation))),
        (b"keyslot", [key]) => Ok(Reply::Integer(i64::from(slot(key)))),
        // There is one shard for each member that owns partitions.
        (b"myshardid", []) => Ok(Reply::Text(node_id(server.store.overview().incarnation))),
        // All members are told as masters by NODES.
        (b"replicas" | b"slaves", [id]) => {
            let known = ring()?.ring().members.iter().any(|member| node_id(member.incarnation).as_bytes() == id);
            if known { Ok(Reply::Array(Vec::new())) } else { Err(CommandError::UnknownNode(shown(Some(id)))) }
        }
        (
            b"slots" | b"shards" | b"nodes" | b"info" | b"myid" | b"myshardid" | b"keyslot" | b"replicas"
            | b"slaves" | b"countkeysinslot" | b"getkeysinslot",
            _,
        ) => Err(CommandError::subcommand_arity("cluster", &subcommand)),
        (b"links" | b"slot-stats" | b"count-failure-reports", _) => Err(CommandError::Unsupported {
            what: format!("cluster {}", shown(arguments.get(1)).to_ascii_lowercase()),
            reason: "is not offered: /metrics and /ui tell about the ring and who can be reached",
        }),
        (
            b"addslots" | b"addslotsrange" | b"bumpepoch" | b"delslots" | b"delslotsrange" | b"failover"
            | b"flushslots" | b"forget" | b"meet" | b"replicate" | b"reset" | b"saveconfig" | b"set-config-epoch"
            | b"setslot",
            _,
        ) => Err(CommandError::Unsupported {
            what: format!("cluster {}", shown(arguments.get(1)).to_ascii_lowercase()),
            reason: "is not offered: the ring is made by the operator, from the KeyValueCluster resource",
        }),
        _ => help::or_unknown("CLUSTER", arguments),
    }
}

/// The reply to CLUSTER SLOTS, kept for as long as it is the same: clients ask for it whenever they connect.
#[derive(Debug, Default)]
pub(super) struct SlotsCache {
    kept: Mutex<Option<(u64, Vec<String>, Bytes)>>,
}

impl SlotsCache {
    fn get(&self, view: &RingView, unreachable: &[String]) -> Bytes {
        let mut kept = self.kept.lock();
        if let Some((epoch, missing, reply)) = &*kept
            && *epoch == view.epoch()
            && missing == unreachable
        {
            return reply.clone();
        }
        let reply = slots(view, unreachable);
        *kept = Some((view.epoch(), unreachable.to_vec(), reply.clone()));
        reply
    }
}

/// A run of hash slots and the members that serve them, the master first.
struct SlotRange {
    first: u32,
    last: u32,
    members: Vec<MemberIndex>,
}

fn ranges(view: &RingView, unreachable: &[String]) -> Vec<SlotRange> {
    let width = u32::from(SLOTS) / view.count().get();
    let reachable =
        |index: &MemberIndex| view.member(*index).is_some_and(|member| !unreachable.contains(&member.name));
    let mut ranges: Vec<SlotRange> = Vec::new();
    for (partition, placement) in (0..).zip(&view.ring().partitions) {
        let mut members: Vec<MemberIndex> = placement.preference.iter().copied().filter(reachable).collect();
        if members.is_empty() {
            members.clone_from(&placement.preference);
        }
        let (first, last) = (partition * width, (partition + 1) * width - 1);
        match ranges.last_mut().filter(|range| range.members == members) {
            Some(range) => range.last = last,
            None => ranges.push(SlotRange { first, last, members }),
        }
    }
    ranges
}

fn slots(view: &RingView, unreachable: &[String]) -> Bytes {
    let ranges = ranges(view, unreachable);
    let mut reply = BytesMut::new();
    // Writing to a buffer in memory cannot fail.
    let _ = write!(reply, "*{}\r\n", ranges.len());
    for range in ranges {
        let members: Vec<&Member> = range.members.iter().filter_map(|&index| view.member(index)).collect();
        let _ = write!(reply, "*{}\r\n:{}\r\n:{}\r\n", members.len() + 2, range.first, range.last);
        for member in members {
            let (host, port) = host_and_port(&member.client_address);
            let id = node_id(member.incarnation);
            let _ = write!(reply, "*4\r\n${}\r\n{host}\r\n:{port}\r\n$40\r\n{id}\r\n*0\r\n", host.len());
        }
    }
    reply.freeze()
}

/// One shard for each master: clients that key shards by their master would lose those told twice. Whoever is in a
/// list with it is told as its replica.
fn shards(view: &RingView, unreachable: &[String]) -> Reply {
    let mut shards: BTreeMap<MemberIndex, (Vec<Reply>, Vec<MemberIndex>)> = BTreeMap::new();
    for range in ranges(view, unreachable) {
        let Some((&master, replicas)) = range.members.split_first() else { continue };
        let (slots, known) = shards.entry(master).or_default();
        slots.extend([Reply::Integer(i64::from(range.first)), Reply::Integer(i64::from(range.last))]);
        for &replica in replicas {
            if !known.contains(&replica) {
                known.push(replica);
            }
        }
    }
    let shard = |(master, (slots, replicas)): (MemberIndex, (Vec<Reply>, Vec<MemberIndex>))| {
        let members =
            [(master, "master")].into_iter().chain(replicas.into_iter().map(|replica| (replica, "replica")));
        let nodes = members.filter_map(|(index, role)| Some(shard_node(view.member(index)?, role, unreachable)));
        Reply::Map(vec![
            (Reply::Word("slots"), Reply::Array(slots)),
            (Reply::Word("nodes"), Reply::Array(nodes.collect())),
        ])
    };
    Reply::Array(shards.into_iter().map(shard).collect())
}

fn shard_node(member: &Member, role: &'static str, unreachable: &[String]) -> Reply {
    let (host, port) = host_and_port(&member.client_address);
    let health = if unreachable.contains(&member.name) { "failed" } else { "online" };
    Reply::Map(vec![
        (Reply::Word("id"), Reply::Text(node_id(member.incarnation))),
        (Reply::Word("port"), Reply::Integer(i64::from(port))),
        (Reply::Word("ip"), Reply::Text(host.to_owned())),
        (Reply::Word("endpoint"), Reply::Text(host.to_owned())),
        (Reply::Word("role"), Reply::Word(role)),
        (Reply::Word("replication-offset"), Reply::Integer(0)),
        (Reply::Word("health"), Reply::Word(health)),
    ])
}

/// One line for each member; all are masters, since all own partitions and none only follows.
fn nodes(view: &RingView, unreachable: &[String], myself: Uuid) -> String {
    let mut slots: BTreeMap<MemberIndex, String> = BTreeMap::new();
    for range in ranges(view, unreachable) {
        let Some(master) = range.members.first() else { continue };
        let text = slots.entry(*master).or_default();
        // Writing to a string cannot fail.
        let _ = if range.first == range.last {
            write!(text, " {}", range.first)
        } else {
            write!(text, " {}-{}", range.first, range.last)
        };
    }
    let mut text = String::new();
    for member in &view.ring().members {
        let (host, port) = host_and_port(&member.client_address);
        let myself = if member.incarnation == myself { "myself," } else { "" };
        let (flags, link) = if unreachable.contains(&member.name) {
            ("master,fail?", "disconnected")
        } else {
            ("master", "connected")
        };
        let slots = slots.get(&member.index).map_or("", String::as_str);
        let _ = writeln!(
            text,
            "{} {host}:{port}@{port} {myself}{flags} - 0 0 {} {link}{slots}",
            node_id(member.incarnation),
            view.epoch(),
        );
    }
    text
}

fn state<K: KeyValue>(server: &Server<K>) -> String {
    let view = server.store.ring();
    let (state, slots) = if view.is_some() { ("ok", SLOTS) } else { ("fail", 0) };
    let members = view.as_ref().map_or(0, |view| view.ring().members.len());
    let owners = view.as_ref().map_or(0, |view| {
        let owners: std::collections::BTreeSet<MemberIndex> = view.ring().owners().into_iter().collect();
        owners.len()
    });
    let epoch = view.as_ref().map_or(0, |view| view.epoch());
    format!(
        "cluster_state:{state}\r\ncluster_slots_assigned:{slots}\r\ncluster_slots_ok:{slots}\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:{members}\r\ncluster_size:{owners}\r\n\
         cluster_current_epoch:{epoch}\r\ncluster_my_epoch:{epoch}\r\n"
    )
}

/// Redis names nodes by 40 hexadecimal digits; an incarnation has 32.
pub(super) fn node_id(incarnation: Uuid) -> String {
    format!("{}00000000", incarnation.simple())
}

/// Host, without the brackets of an IPv6 address, and port; port 0 when there is none.
pub(super) fn host_and_port(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (host, port.parse().unwrap_or(0))
}

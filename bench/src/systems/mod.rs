//! The systems compared, each started on loopback with data directories of its own on the same disk.

mod annulus;
mod etcd;
mod program;
mod redis;

use crate::load::KeySpace;
use anyhow::{Context, bail};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

pub use annulus::{Annulus, node_program};
use program::READY_MAX;
pub use program::{Process, until_ready};

/// Name of Redis Cluster in tables.
pub const REDIS: &str = "Redis Cluster";
/// Its name when clients send `WAIT` along with the write.
pub const REDIS_ALONG: &str = "Redis Cluster, WAIT along";

/// Batches that servers have made durable, and changes in them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Commits {
    /// Batches, each with a flush of the disk.
    pub commits: u64,
    /// Changes in them: one for a write of one object.
    pub changes: u64,
}

impl Commits {
    /// What came after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self { commits: self.commits - earlier.commits, changes: self.changes - earlier.changes }
    }

    /// Changes that shared a flush of the disk, on average.
    #[must_use]
    pub fn changes_each(self) -> f64 {
        self.changes as f64 / self.commits.max(1) as f64
    }
}

/// The body of a page.
fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(READY_MAX))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    Ok(body.to_owned())
}

/// A running system.
pub struct System {
    /// Name in tables.
    pub name: &'static str,
    /// How it is reached.
    pub target: Target,
    /// Processes whose time and memory count; others only start and watch them.
    servers: Vec<u32>,
    /// Where servers tell Prometheus what they do, as `host:port`, if they do.
    metrics: Vec<String>,
    /// They end with the system.
    _processes: Vec<Process>,
}

/// How a system is reached.
pub enum Target {
    /// By the Redis protocol.
    Resp(RespTarget),
    /// By etcd's gRPC: the URLs of its members.
    Etcd(Vec<String>),
}

/// A cluster that speaks Redis.
#[derive(Clone, Debug)]
pub struct RespTarget {
    /// `host:port` of the nodes that slots belong to.
    pub addresses: Vec<String>,
    /// Which of them each key of the run belongs to.
    pub nodes_of_keys: Arc<[u8]>,
    /// The `WAIT` behind each write, or batch of writes.
    pub wait: Wait,
}

/// How a client waits for a replica to have what it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: the answer to the write says so already.
    No,
    /// By a `WAIT 1` once the write is answered, as a program with one call after the other does.
    After,
    /// By a `WAIT 1` sent along with the write, which saves a round trip.
    Along,
}

impl System {
    /// The same servers with clients that wait in another way. They end with the system that this was called on.
    #[must_use]
    pub fn waiting(&self, wait: Wait, name: &'static str) -> Self {
        let target = match &self.target {
            Target::Resp(target) => Target::Resp(RespTarget { wait, ..target.clone() }),
            Target::Etcd(endpoints) => Target::Etcd(endpoints.clone()),
        };
        Self { name, target, servers: self.servers.clone(), metrics: Vec::new(), _processes: Vec::new() }
    }

    /// What all servers have committed since they started; nothing for those that do not tell.
    ///
    /// # Errors
    /// When one that tells does not answer.
    pub fn commits(&self) -> anyhow::Result<Commits> {
        let mut all = Commits::default();
        for address in &self.metrics {
            let text = get(address, "/metrics")?;
            let counter = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|rest| rest.trim().parse::<u64>().ok()).with_context(|| format!("no {name}"))
            };
            all.commits += counter("annulus_commits_total ")?;
            all.changes += counter("annulus_committed_changes_total ")?;
        }
        Ok(all)
    }

    /// Ids of the processes that serve.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.servers.clone()
    }
}

/// Redis Cluster: three primaries with a replica each, `appendfsync always`, and `WAIT 1` behind each write.
///
/// # Errors
/// When it cannot be started.
pub fn redis_cluster(directory: &Path, keys: &KeySpace) -> anyhow::Result<System> {
    redis::start(&directory.join("redis"), keys)
}

/// etcd: three members.
///
/// # Errors
/// When it cannot be started.
pub fn etcd(directory: &Path) -> anyhow::Result<System> {
    etcd::start(&directory.join("etcd"))
}

/// Asks a cluster which of its nodes each key belongs to.
fn resp_target(seed: &str, keys: &KeySpace, wait: Wait) -> anyhow::Result<RespTarget> {
    let mut connection = ::redis::Client::open(format!("redis://{seed}"))?.get_connection()?;
    let value: ::redis::Value = ::redis::cmd("CLUSTER").arg("SLOTS").query(&mut connection)?;
    let ranges = slots(&value).context("reading CLUSTER SLOTS")?;
    let mut addresses: Vec<String> = Vec::new();
    let mut slots = vec![u8::MAX; 16384];
    for (first, last, nodes) in ranges {
        let (host, port) = nodes.first().context("a slot without a node")?;
        let address = format!("{host}:{port}");
        let node = addresses.iter().position(|known| *known == address).unwrap_or_else(|| {
            addresses.push(address);
            addresses.len() - 1
        });
        slots[usize::from(first)..=usize::from(last)].fill(u8::try_from(node)?);
    }
    if slots.contains(&u8::MAX) {
        bail!("some slots have no node");
    }
    let node_of = |key: u32| {
        let slot = dynamo::token::slot(KeySpace::key(key).as_bytes());
        slots[usize::from(slot)]
    };
    let nodes_of_keys = (0..keys.count() as u32).map(node_of).collect();
    Ok(RespTarget { addresses, nodes_of_keys, wait })
}

/// First slot, last slot, and the hosts and ports of the nodes that have them.
type SlotRange = (u16, u16, Vec<(String, u16)>);

fn slots(value: &::redis::Value) -> Option<Vec<SlotRange>> {
    use ::redis::Value;
    let items = |value: &Value| match value {
        Value::Array(items) => Some(items.clone()),
        _ => None,
    };
    let number = |value: &Value| match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        _ => None,
    };
    let text = |value: &Value| match value {
        Value::BulkString(text) => String::from_utf8(text.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    };
    let node = |value: &Value| {
        let node = items(value)?;
        Some((text(node.first()?)?, number(node.get(1)?)?))
    };
    let range = |value: &Value| {
        let range = items(value)?;
        let nodes = range.get(2..)?.iter().map(node).collect::<Option<Vec<_>>>()?;
        Some((number(range.first()?)?, number(range.get(1)?)?, nodes))
    };
    items(value)?.iter().map(range).collect()
}

//! Clients of the Redis protocol: the `redis` crate's cluster client, one to a thread.

use super::{Draw, KeySpace, MEASURING, STOPPED, Shared, Tally};
use crate::systems::{RespTarget, Wait};
use anyhow::{Context, bail};
use redis::cluster::{ClusterClient, ClusterConnection};
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{Cmd, ConnectionLike, Value};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::task::JoinHandle;

/// Writes sent at once while filling.
const FILL_BATCH: usize = 128;

/// Connects all clients and starts them.
pub(super) fn start(
    shared: &Arc<Shared>,
    target: &RespTarget,
    clients: usize,
) -> anyhow::Result<Vec<JoinHandle<anyhow::Result<()>>>> {
    let connections: Vec<ClusterConnection> =
        (0..clients).map(|_| connect(target)).collect::<anyhow::Result<_>>()?;
    let start = |(client, connection)| {
        let draw = Draw::new(shared.keys.clone(), shared.workload, client, Some(target));
        let (shared, target) = (shared.clone(), target.clone());
        tokio::task::spawn_blocking(move || work(&shared, &target, draw, connection))
    };
    Ok(connections.into_iter().enumerate().map(start).collect())
}

fn connect(target: &RespTarget) -> anyhow::Result<ClusterConnection> {
    let client = ClusterClient::new(target.addresses.iter().map(|address| format!("redis://{address}")))?;
    client.get_connection().context("connecting to the cluster")
}

fn work(
    shared: &Shared,
    target: &RespTarget,
    mut draw: Draw,
    mut connection: ClusterConnection,
) -> anyhow::Result<()> {
    let mut tally = Tally::new()?;
    let mut batch = Vec::new();
    let mut request = Request::default();
    let batch_operations = shared.workload.pipelined as u64;
    loop {
        draw.batch(&mut batch);
        request.clear();
        let writes = draw.writes();
        for &key in &batch {
            if writes { request.put(key, draw.value()) } else { request.get(key) }
        }
        // A batch that goes out at once takes its WAIT along.
        let wait = if batch.len() > 1 && target.wait == Wait::After { Wait::Along } else { target.wait };
        if writes && wait == Wait::Along {
            request.wait();
        }
        let asked = Instant::now();
        let mut answer = request.send(&mut connection, shared.keys.value_bytes());
        if writes && wait == Wait::After && answer.is_ok() {
            answer = wait_at(&mut connection, batch[0]);
        }
        match shared.phase.load(Ordering::Relaxed) {
            MEASURING => tally.count(batch_operations, asked, answer),
            STOPPED => break,
            _ => {}
        }
    }
    shared.tallies.lock().push(tally);
    Ok(())
}

/// Writes every key once, node by node.
pub(super) fn fill(keys: &KeySpace, target: &RespTarget) -> anyhow::Result<()> {
    let mut connection = connect(target)?;
    let mut of_nodes: Vec<Vec<u32>> = vec![Vec::new(); target.addresses.len().max(1)];
    for key in 0..keys.count() as u32 {
        let node = target.nodes_of_keys.get(key as usize).copied().unwrap_or(0);
        of_nodes[usize::from(node)].push(key);
    }
    let mut request = Request::default();
    for batch in of_nodes.iter().flat_map(|keys| keys.chunks(FILL_BATCH)) {
        request.clear();
        batch.iter().for_each(|&key| request.put(key, keys.value(u64::from(key))));
        if target.wait != Wait::No {
            request.wait();
        }
        if let Err(error) = request.send(&mut connection, keys.value_bytes()) {
            bail!("filling: {error}");
        }
    }
    Ok(())
}

/// For one replica, for at most five seconds.
fn wait_command() -> Cmd {
    let mut command = redis::cmd("WAIT");
    command.arg(1).arg(5000);
    command
}

/// Waits at the node that has a key.
fn wait_at(connection: &mut ClusterConnection, key: u32) -> Result<(), String> {
    let route = Route::new(dynamo::token::slot(KeySpace::key(key).as_bytes()), SlotAddr::Master);
    let routing = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route));
    match connection.route_command(&wait_command(), routing) {
        Ok(Value::Int(1..)) => Ok(()),
        Ok(reply) => Err(format!("unexpected reply {reply:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Commands that go out together and what is expected of their replies.
#[derive(Default)]
struct Request {
    packed: Vec<u8>,
    expected: Vec<Expected>,
}

#[derive(Clone, Copy)]
enum Expected {
    Okay,
    Value,
    Replica,
}

impl Request {
    fn clear(&mut self) {
        self.packed.clear();
        self.expected.clear();
    }

    fn put(&mut self, key: u32, value: &[u8]) {
        Cmd::set(KeySpace::key(key), value).write_packed_command(&mut self.packed);
        self.expected.push(Expected::Okay);
    }

    fn get(&mut self, key: u32) {
        Cmd::get(KeySpace::key(key)).write_packed_command(&mut self.packed);
        self.expected.push(Expected::Value);
    }

    /// Waits for a replica to have what was written before.
    fn wait(&mut self) {
        wait_command().write_packed_command(&mut self.packed);
        self.expected.push(Expected::Replica);
    }

    /// One round trip. An answer that is not as it should be is an error.
    fn send(&self, connection: &mut ClusterConnection, value_bytes: usize) -> Result<(), String> {
        let replies = connection.req_packed_commands(&self.packed, 0, self.expected.len());
        let replies = replies.map_err(|error| error.to_string())?;
        if replies.len() != self.expected.len() {
            return Err(format!("{} replies to {} commands", replies.len(), self.expected.len()));
        }
        for (reply, expected) in replies.iter().zip(&self.expected) {
            match (expected, reply) {
                (Expected::Okay, Value::Okay) => {}
                (Expected::Value, Value::BulkString(value)) if value.len() == value_bytes => {}
                (Expected::Replica, Value::Int(1..)) => {}
                _ => return Err(format!("unexpected reply {reply:.100?}")),
            }
        }
        Ok(())
    }
}

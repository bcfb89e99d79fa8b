//! A node that forgets what it wrote never names two writes alike (Riak's kv679): by gRPC, which shows siblings. A write
//! named like an earlier one would pass for seen wherever that is known, and be lost without a trace.

use super::{Found, Scenario, seconds};
use crate::cluster::{Cluster, Under};
use crate::load::Outcome;
use annulus_proto::v1::key_value_client::KeyValueClient;
use annulus_proto::v1::{DeleteRequest, GetRequest, PutRequest, Quorum};
use anyhow::{Context, ensure};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

const KEYS: usize = 300;
/// How long it may take until nothing is left of keys that were deleted.
const REAPED_MAX: Duration = Duration::from_secs(60);

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenario =
        |name, about, nodes, run| Scenario { name, about, nodes, short: false, stale_reads: false, run };
    vec![
        scenario(
            "dots-lost-disk",
            "blind writes at a node before and after it has lost its disk are siblings",
            3,
            |cluster| Box::pin(forgotten(cluster, true)),
        ),
        scenario(
            "dots-rolled-back",
            "blind writes at a node before and after its disk went back in time are siblings",
            3,
            |cluster| Box::pin(forgotten(cluster, false)),
        ),
        scenario(
            "dots-recreated",
            "keys are deleted while a hint for them is away, made again, reaped, and made again",
            5,
            |cluster| Box::pin(recreated(cluster)),
        ),
    ]
}

/// What clients have to find: the values of each key.
type Expected = BTreeMap<String, BTreeSet<String>>;

/// A client that remembers what each key is to hold.
struct Client {
    node: KeyValueClient<Channel>,
    contexts: BTreeMap<String, Bytes>,
    requests: u64,
}

impl Client {
    async fn of(cluster: &Cluster, ordinal: usize) -> anyhow::Result<Self> {
        let url = format!("http://{}:7379", cluster.nodes[ordinal].net.address);
        let node = KeyValueClient::connect(url).await?;
        Ok(Self { node, contexts: BTreeMap::new(), requests: 0 })
    }

    /// Writes `value` to all keys, in the place of what this client wrote or read before, or blindly.
    async fn write(&mut self, value: &str, blind: bool) -> anyhow::Result<()> {
        for key in keys() {
            let context = self.contexts.get(&key).filter(|_| !blind).cloned().unwrap_or_default();
            let value = Bytes::from(value.to_owned());
            let request = PutRequest { key: key.clone().into(), value, context, ..PutRequest::default() };
            let answer = self.node.put(request).await.with_context(|| format!("writing {key}"))?;
            self.contexts.insert(key, answer.into_inner().context);
            self.requests += 1;
        }
        Ok(())
    }

    /// Deletes what this client knows of.
    async fn delete(&mut self) -> anyhow::Result<()> {
        for key in keys() {
            let context = self.contexts.get(&key).cloned().unwrap_or_default();
            self.node.delete(DeleteRequest { key: key.into(), context, ..DeleteRequest::default() }).await?;
            self.requests += 1;
        }
        Ok(())
    }

    /// Reads all keys from `replicas` each: how many lack a value that they are to have, and how many have another.
    async fn judge(&mut self, replicas: u32, expected: &Expected) -> anyhow::Result<(u64, u64)> {
        let (mut lost, mut invented) = (0, 0);
        for (key, expected) in expected {
            let quorum = Some(Quorum { replicas, strict: false });
            let request = GetRequest { key: key.clone().into(), quorum };
            let answer = self.node.get(request).await?.into_inner();
            let values =
                answer.siblings.iter().map(|sibling| String::from_utf8_lossy(&sibling.value).into_owned());
            let values: BTreeSet<String> = values.collect();
            lost += u64::from(!values.is_superset(expected));
            invented += u64::from(!values.is_subset(expected));
            self.contexts.insert(key.clone(), answer.context);
            self.requests += 1;
        }
        Ok((lost, invented))
    }
}

fn keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(|number| format!("dotted-{number}"))
}

fn all_hold(values: &[&str]) -> Expected {
    keys().map(|key| (key, values.iter().map(|&value| value.to_owned()).collect())).collect()
}

/// A node takes writes that replace each other, forgets them or some of them, and takes one that replaces nothing.
async fn forgotten(cluster: &mut Cluster, all: bool) -> anyhow::Result<Found> {
    let mut client = Client::of(cluster, 2).await?;
    for value in ["first", "second"] {
        client.write(value, false).await?;
    }
    cluster.kill(2)?;
    if !all {
        cluster.nodes[2].disk.snapshot()?;
    }
    cluster.spawn(2, &Under::Nothing)?;
    cluster.settle().await?;
    let mut again = Client { contexts: client.contexts, ..Client::of(cluster, 2).await? };
    for value in ["third", "fourth"] {
        again.write(value, false).await?;
    }
    cluster.kill(2)?;
    if all {
        cluster.nodes[2].disk.replace()?
    } else {
        cluster.nodes[2].disk.roll_back()?
    }
    cluster.spawn(2, &Under::Nothing)?;
    cluster.settle().await?;
    let mut after = Client::of(cluster, 2).await?;
    after.write("blind", true).await?;
    cluster.settle().await?;
    let (lost, invented) = after.judge(3, &all_hold(&["fourth", "blind"])).await?;
    let requests = client.requests + again.requests + after.requests;
    found(requests, lost, invented, format!("{KEYS} keys, each with exactly two siblings"))
}

/// n = 3 of five nodes: hints for one that is away are held by others, of which one goes with them.
async fn recreated(cluster: &mut Cluster) -> anyhow::Result<Found> {
    cluster.kill(4)?;
    seconds(2.0).await;
    let mut client = Client::of(cluster, 0).await?;
    client.write("old", false).await?;
    let hints = cluster.status(3).await?.hints;
    ensure!(hints > 0, "the node that goes away with its hints has none");
    cluster.kill(3)?;
    cluster.spawn(4, &Under::Nothing)?;
    seconds(2.0).await;
    client.delete().await?;
    // Longer than the pause between two collections: as long as one node is away, nothing may be collected.
    seconds(8.0).await;
    client.write("new", true).await?;
    cluster.spawn(3, &Under::Nothing)?;
    cluster.settle().await?;
    let mut found_wrong = client.judge(3, &all_hold(&["new"])).await?;
    client.delete().await?;
    let reaped = reaped(cluster).await?;
    client.write("newer", true).await?;
    let (lost, invented) = client.judge(3, &all_hold(&["newer"])).await?;
    found_wrong = (found_wrong.0 + lost, found_wrong.1 + invented);
    let note = format!(
        "{hints} hints were away; everything was reaped {:.1} s after it was deleted",
        reaped.as_secs_f64()
    );
    found(client.requests, found_wrong.0, found_wrong.1, note)
}

/// Waits until nothing is left at any node of what was deleted.
async fn reaped(cluster: &Cluster) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let mut bytes = 0;
        for ordinal in 0..cluster.nodes.len() {
            bytes += cluster.status(ordinal).await?.bytes;
        }
        if bytes == 0 {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < REAPED_MAX, "{bytes} bytes are left of keys that were deleted");
        seconds(0.2).await;
    }
}

fn found(requests: u64, lost: u64, invented: u64, note: String) -> anyhow::Result<Found> {
    let acknowledged = KEYS as u64;
    Ok(Found { outcome: Outcome { requests, acknowledged, lost, invented, ..Outcome::default() }, note })
}

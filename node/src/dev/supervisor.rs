//! The supervisor's loop: observe the nodes, take the next step of the moves, publish, start and stop processes.

use super::files::{Directory, NodeLine, Settings, Status, Wish as Ask};
use super::process::Node;
use annulus_proto::v1::NodeStatus;
use annulus_proto::{certificate, report, uuid_from};
use anyhow::{Context, bail};
use dynamo::moves::{self, Pace, Reports, Step, Wanted, Wish};
use dynamo::ring::{Quorums, Ring, from_json, to_json};
use dynamo::token::{HashKey, PartitionCount};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

/// A node that ends this often before there is a ring will not start at all.
const EARLY_ENDS_MAX: u32 = 3;
const TICK: Duration = Duration::from_millis(300);

/// A running dev ring.
struct Supervisor {
    directory: Directory,
    settings: Settings,
    pace: Pace,
    nodes: BTreeMap<usize, Node>,
    ring: Option<Ring>,
    /// When a ring was last published.
    published: Option<Instant>,
    gone: BTreeSet<Uuid>,
    /// How often nodes had to be started again before all had answered once.
    early_ends: u32,
    at_target: AtTarget,
}

/// How things were when the current target was set: what the minimum is reckoned from.
#[derive(Clone, Copy, Default)]
struct AtTarget {
    since: u64,
    /// Bytes of all replicas that serve.
    bytes: u64,
    /// How many replicas of partitions there were.
    replicas: u64,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(directory: Directory, settings: Settings, parallel_moves: usize) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ring = match directory.ring()? {
        Some(json) => Some(from_json(&json).context("reading the ring kept in the directory")?),
        None => None,
    };
    let pace = Pace { parallel_moves };
    let (nodes, gone) = (BTreeMap::new(), BTreeSet::new());
    let (published, early_ends, at_target) = (None, 0, AtTarget::default());
    let mut supervisor =
        Supervisor { directory, settings, pace, nodes, ring, published, gone, early_ends, at_target };
    let mut said_ready = false;
    let result = loop {
        match supervisor.tick().await {
            Ok(ready) if ready && !said_ready => {
                said_ready = true;
                println!("ready");
                supervisor.print_ports();
            }
            Ok(_) => {}
            Err(error) => break Err(error),
        }
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            () = tokio::time::sleep(TICK) => {}
        }
    };
    let stops = std::mem::take(&mut supervisor.nodes).into_values().map(Node::stop);
    for stopped in futures::future::join_all(stops).await {
        stopped?;
    }
    result
}

impl Supervisor {
    /// One look and one step. Returns whether every wanted node serves.
    async fn tick(&mut self) -> anyhow::Result<bool> {
        let n = self.settings.n;
        let wish = self.directory.wish().unwrap_or(Ask { nodes: usize::from(n), n });
        self.start_nodes(wish.nodes)?;
        let statuses = self.observe().await;
        let waiting = self.step(wish, &statuses).await?;
        self.stop_nodes(wish.nodes, &statuses).await?;
        let status = self.status(wish, &statuses, waiting);
        let ready =
            self.ring.is_some() && status.nodes.iter().take(wish.nodes).all(|node| node.answers && node.epoch > 0);
        self.directory.set_status(&status)?;
        Ok(ready)
    }

    fn start_nodes(&mut self, wish: usize) -> anyhow::Result<()> {
        // A node that is leaving and was restarted with the supervisor is still needed.
        let named = self.ring.iter().flat_map(|ring| &ring.members).filter_map(|member| ordinal(&member.name));
        let wanted: BTreeSet<usize> = (0..wish).chain(named).collect();
        for ordinal in wanted {
            match self.nodes.get_mut(&ordinal) {
                Some(node) => {
                    if node.keep_running(&self.directory, &self.settings)? {
                        eprintln!("{} had ended and was started again", node.name());
                        self.early_ends += u32::from(self.ring.is_none());
                        if self.early_ends > EARLY_ENDS_MAX {
                            let (name, log) = (node.name(), self.directory.node_log(ordinal));
                            bail!("{name} does not start; are its ports in use? See {}", log.display());
                        }
                    }
                }
                None => {
                    let node = Node::start(&self.directory, &self.settings, ordinal)?;
                    self.nodes.insert(ordinal, node);
                }
            }
        }
        Ok(())
    }

    async fn observe(&self) -> BTreeMap<usize, NodeStatus> {
        let asked = self.nodes.values().map(|node| async { (node.ordinal, node.status().await) });
        let answers = futures::future::join_all(asked).await;
        answers.into_iter().filter_map(|(ordinal, status)| Some((ordinal, status?))).collect()
    }

    /// Publishes the next ring if there is one; else says what is waited for.
    async fn step(&mut self, wish: Ask, statuses: &BTreeMap<usize, NodeStatus>) -> anyhow::Result<Vec<String>> {
        let Some(wanted) = self.wish(wish, statuses)? else {
            return Ok(vec![String::from("nodes that have yet to answer")]);
        };
        let next = match &self.ring {
            None => moves::create(self.settings.cluster, HashKey(rand::random()), &wanted)?,
            Some(ring) => {
                let reports: Reports = statuses
                    .values()
                    .filter_map(|status| {
                        Some((uuid_from("incarnation", &status.incarnation).ok()?, report(status)))
                    })
                    .collect();
                let spacing = Duration::from_secs(moves::spacing(&reports).into());
                let too_soon = self.published.is_some_and(|at| at.elapsed() < spacing);
                let waiting = match moves::advance(ring, &wanted, &reports, self.pace)? {
                    Step::Publish(..) if too_soon => vec![format!("{spacing:?} since the ring before")],
                    Step::Publish(next, change) => {
                        if change.retargeted {
                            let replicas =
                                ring.partitions.iter().map(|placement| placement.preference.len() as u64);
                            self.at_target = AtTarget {
                                since: ring.epoch + 1,
                                bytes: statuses.values().map(|status| status.serving_bytes).sum(),
                                replicas: replicas.sum(),
                            };
                        }
                        return self.publish(*next, statuses).await;
                    }
                    Step::Wait(reasons) => reasons.iter().map(ToString::to_string).collect(),
                    Step::Settled => Vec::new(),
                };
                self.push(statuses).await;
                return Ok(waiting);
            }
        };
        self.publish(next, statuses).await
    }

    /// Keeps a ring and hands it to everyone; nothing is waited for.
    async fn publish(
        &mut self,
        ring: Ring,
        statuses: &BTreeMap<usize, NodeStatus>,
    ) -> anyhow::Result<Vec<String>> {
        self.directory.set_ring(&to_json(&ring))?;
        self.ring = Some(ring);
        self.published = Some(Instant::now());
        self.push(statuses).await;
        Ok(Vec::new())
    }

    /// Hands the ring to everyone who has an older one.
    async fn push(&self, statuses: &BTreeMap<usize, NodeStatus>) {
        let Some(ring) = &self.ring else { return };
        let json = to_json(ring);
        let behind = self
            .nodes
            .values()
            .filter(|node| statuses.get(&node.ordinal).is_some_and(|status| status.epoch < ring.epoch));
        futures::future::join_all(behind.map(|node| node.install(&json))).await;
    }

    /// Who should hold data; `None` while a node that should has never answered.
    fn wish(&self, ask: Ask, statuses: &BTreeMap<usize, NodeStatus>) -> anyhow::Result<Option<Wish>> {
        let mut members = Vec::with_capacity(ask.nodes);
        for ordinal in 0..ask.nodes {
            let name = format!("node-{ordinal}");
            let answered = statuses.get(&ordinal).and_then(|s| uuid_from("incarnation", &s.incarnation).ok());
            let known = self.ring.iter().flat_map(|ring| &ring.members).find(|member| member.name == name);
            let Some(incarnation) = answered.or(known.map(|member| member.incarnation)) else { return Ok(None) };
            let ports = self.settings.ports(ordinal)?;
            members.push(Wanted {
                incarnation,
                name,
                peer_address: ports.peer.to_string(),
                client_address: ports.resp.to_string(),
                zone: None,
                weight: 1,
            });
        }
        // A name that answers with another incarnation has lost its directory: the one before is gone for certain.
        let lost = self.ring.iter().flat_map(|ring| &ring.members).filter(|member| {
            let status = ordinal(&member.name).and_then(|ordinal| statuses.get(&ordinal));
            let answered = status.and_then(|status| uuid_from("incarnation", &status.incarnation).ok());
            answered.is_some_and(|incarnation| incarnation != member.incarnation)
        });
        let gone = self.gone.iter().copied().chain(lost.map(|member| member.incarnation)).collect();
        let Settings { n, r, w, .. } = self.settings;
        let (r, w) = Quorums { n, r, w, sloppy: true }.of_list(usize::from(ask.n));
        let quorums = Quorums { n: ask.n, r: u8::try_from(r)?, w: u8::try_from(w)?, sloppy: true };
        Ok(Some(Wish { partitions: PartitionCount::new(self.settings.partitions)?, quorums, members, gone }))
    }

    /// Ends nodes that are not wanted any more and have proven that nothing depends on them.
    async fn stop_nodes(&mut self, wish: usize, statuses: &BTreeMap<usize, NodeStatus>) -> anyhow::Result<()> {
        let Some(ring) = &self.ring else { return Ok(()) };
        let leaving: Vec<usize> = self.nodes.keys().copied().filter(|&ordinal| ordinal >= wish).collect();
        for ordinal in leaving {
            let Some(says) = statuses.get(&ordinal).and_then(|status| certificate(status).ok()) else { continue };
            if moves::may_go(ring, says.incarnation, &says).is_err() {
                continue;
            }
            if let Some(node) = self.nodes.remove(&ordinal) {
                node.stop().await?;
                std::fs::remove_dir_all(self.directory.node(ordinal))?;
                self.gone.insert(says.incarnation);
            }
        }
        Ok(())
    }

    fn status(&self, wish: Ask, statuses: &BTreeMap<usize, NodeStatus>, waiting: Vec<String>) -> Status {
        let progress = self.ring.as_ref().map(moves::progress).unwrap_or_default();
        let target = self.ring.as_ref().and_then(|ring| ring.target.as_ref());
        let since = target.map_or(self.at_target.since, |target| target.since);
        let moved = statuses.values().filter_map(|status| status.moved.as_ref());
        let bytes_moved = moved.filter(|moved| moved.since == since).map(|moved| moved.bytes).sum();
        let minimum = target.map_or(0, |target| u64::from(target.replica_moves_min));
        Status {
            pid: std::process::id(),
            settled: self.nodes.len() == wish.nodes
                && self.ring.as_ref().is_some_and(|ring| is_as_wished(ring, wish)),
            wish: Some(wish),
            epoch: self.ring.as_ref().map_or(0, |ring| ring.epoch),
            partitions_left: progress.left,
            filling: progress.filling,
            retiring: progress.retiring,
            bytes_moved,
            bytes_minimum: self.at_target.bytes.saturating_mul(minimum) / self.at_target.replicas.max(1),
            waiting,
            nodes: self.nodes.values().map(|node| line(node, statuses.get(&node.ordinal))).collect(),
        }
    }

    fn print_ports(&self) {
        for node in self.nodes.values() {
            let ports = node.ports;
            println!("{}: RESP {}, gRPC {}, HTTP http://{}/ui", node.name(), ports.resp, ports.grpc, ports.http);
        }
    }
}

fn is_as_wished(ring: &Ring, wish: Ask) -> bool {
    ring.target.is_none() && ring.members.len() == wish.nodes && ring.quorums.n == wish.n
}

fn line(node: &Node, status: Option<&NodeStatus>) -> NodeLine {
    let base = NodeLine {
        name: node.name(),
        pid: node.pid(),
        resp: node.ports.resp.to_string(),
        grpc: node.ports.grpc.to_string(),
        http: node.ports.http.to_string(),
        ..NodeLine::default()
    };
    let Some(status) = status else { return base };
    NodeLine {
        answers: true,
        epoch: status.epoch,
        keys: status.keys,
        bytes: status.bytes,
        hints: status.hints,
        listed_partitions: status.listed_partitions,
        ..base
    }
}

fn ordinal(name: &str) -> Option<usize> {
    name.strip_prefix("node-")?.parse().ok()
}

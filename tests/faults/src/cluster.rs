//! A ring of real nodes in the sandbox, started and ended by hand; this program stands in for the operator.

use crate::process;
use crate::sandbox::{self, Disk, Net};
use annulus_proto::v1::control_client::ControlClient;
use annulus_proto::v1::{InstallRingRequest, NodeStatus, StatusRequest};
use annulus_proto::{report, uuid_from};
use anyhow::{Context, bail, ensure};
use dynamo::moves::{self, Pace, Reports, Step, Wanted, Wish};
use dynamo::ring::{Quorums, Ring, from_json, to_json};
use dynamo::token::{HashKey, PartitionCount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tonic::transport::Endpoint;
use uuid::Uuid;

const CLUSTER: Uuid = Uuid::from_u128(7);
const PARTITIONS: u32 = 64;
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a ring may take to be whole again after the last fault.
const SETTLE_MAX: Duration = Duration::from_secs(90);
/// Small, for disks that are.
const DISK_RESERVE_BYTES: &str = "33554432";

/// What all scenarios share.
pub struct Site {
    /// The node's program.
    pub program: PathBuf,
    /// A bug that it is told to have.
    pub planted: Option<String>,
    /// By ordinal. Made once: a network of a node that was killed is gone only some time after.
    pub nets: Vec<Rc<Net>>,
}

impl Site {
    /// Has whole networks for so many nodes.
    ///
    /// # Errors
    /// Those of `ip` and `iptables`.
    pub fn prepare(&mut self, nodes: usize) -> anyhow::Result<()> {
        while self.nets.len() < nodes {
            self.nets.push(Rc::new(Net::new(self.nets.len())?));
        }
        self.nets.iter().try_for_each(|net| net.heal())
    }
}

/// What a node is started under.
#[derive(Clone, Debug, Default)]
pub enum Under {
    /// Nothing.
    #[default]
    Nothing,
    /// `strace`, which does this to system calls of the node: an expression for `--inject`.
    Strace(String),
    /// A wall clock that [`Cluster::set_clock`] sets.
    Clock,
}

/// One node.
pub struct Node {
    name: String,
    /// Its network.
    pub net: Rc<Net>,
    /// Its disk.
    pub disk: Disk,
    child: Option<Child>,
}

impl Node {
    /// Where the program that [appends](crate::plain) does so.
    #[must_use]
    pub fn plain_file(&self) -> PathBuf {
        self.disk.mount.join("plain")
    }
}

/// The ring.
pub struct Cluster {
    program: PathBuf,
    planted: Option<String>,
    place: PathBuf,
    /// By ordinal.
    pub nodes: Vec<Node>,
    ring: Option<Ring>,
    gone: BTreeSet<Uuid>,
}

impl Cluster {
    /// Starts so many nodes with n = 3, r = w = 2, and waits until they serve.
    ///
    /// # Errors
    /// When they do not come up.
    pub async fn start(site: &Site, place: &Path, nodes: usize) -> anyhow::Result<Self> {
        let node = |ordinal: usize| {
            let (net, disk) = (site.nets[ordinal].clone(), Disk::new(place, ordinal)?);
            anyhow::Ok(Node { name: format!("node-{ordinal}"), net, disk, child: None })
        };
        let nodes = (0..nodes).map(node).collect::<anyhow::Result<_>>()?;
        let (program, planted, place) = (site.program.clone(), site.planted.clone(), place.to_owned());
        let mut cluster = Self { program, planted, place, nodes, ring: None, gone: BTreeSet::new() };
        for ordinal in 0..cluster.nodes.len() {
            cluster.spawn(ordinal, &Under::Nothing)?;
        }
        cluster.settle().await?;
        Ok(cluster)
    }

    /// `host:port` for Redis clients of some nodes.
    #[must_use]
    pub fn addresses(&self, ordinals: &[usize]) -> Vec<String> {
        ordinals.iter().map(|&ordinal| format!("{}:6379", self.nodes[ordinal].net.address)).collect()
    }

    /// Starts a node's process.
    ///
    /// # Errors
    /// When it runs already, or cannot be started.
    pub fn spawn(&mut self, ordinal: usize, under: &Under) -> anyhow::Result<()> {
        let node = &mut self.nodes[ordinal];
        ensure!(node.child.is_none(), "{} runs already", node.name);
        let mut command = match under {
            Under::Strace(inject) => {
                let mut command = node.net.command("strace");
                // -D: the node is this program's child, not strace's.
                command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"]);
                command.arg(format!("--inject={inject}")).arg(&self.program);
                command
            }
            Under::Clock => {
                let mut command = node.net.command(&self.program.to_string_lossy());
                command.env("LD_PRELOAD", sandbox::clock_library()?).env("FAKETIME_NO_CACHE", "1");
                command.env("FAKETIME_TIMESTAMP_FILE", clock_of(&self.place, &node.name));
                // Timers and time-outs go on as they were; libfaketime calls it by either name.
                command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
                command
            }
            Under::Nothing => node.net.command(&self.program.to_string_lossy()),
        };
        if let Some(bug) = &self.planted {
            command.env("ANNULUS_PLANTED", bug);
        }
        node.child = Some(serve(&mut command, node, &self.place)?);
        Ok(())
    }

    /// Starts, in a node's place, a program that [appends](crate::plain) to a file on the node's disk. Returns what it says.
    ///
    /// # Errors
    /// When something runs there already, or it cannot be started.
    pub fn spawn_plain(&mut self, ordinal: usize) -> anyhow::Result<ChildStdout> {
        let node = &mut self.nodes[ordinal];
        ensure!(node.child.is_none(), "{} runs already", node.name);
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--append").arg(node.plain_file()).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = node.child.insert(command.stderr(Stdio::null()).spawn()?);
        child.stdout.take().context("its output is not at hand")
    }

    /// From now on the wall clock of a node that was started [under](Under::Clock) this one is off by so many seconds.
    ///
    /// # Errors
    /// Those of writing a file.
    pub fn set_clock(&self, ordinal: usize, seconds: i64) -> anyhow::Result<()> {
        Ok(std::fs::write(clock_of(&self.place, &self.nodes[ordinal].name), format!("{seconds:+}\n"))?)
    }

    /// Sends a signal to a node's process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, ordinal: usize, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(self.pid(ordinal)?, signal)?)
    }

    fn pid(&self, ordinal: usize) -> anyhow::Result<Pid> {
        let child = self.nodes[ordinal].child.as_ref().context("the node does not run")?;
        Ok(Pid::from_raw(i32::try_from(child.id())?))
    }

    /// Ends a node's process without a warning.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, ordinal: usize) -> anyhow::Result<()> {
        let mut child = self.nodes[ordinal].child.take().context("the node does not run")?;
        // It may have ended by itself.
        let _ = child.kill();
        child.wait()?;
        Ok(())
    }

    /// The power of these nodes fails, and comes back: their processes are gone, and on their disks is what was synced.
    ///
    /// # Errors
    /// When one of them does not run, and those of their disks.
    pub fn lose_power(&mut self, ordinals: &[usize]) -> anyhow::Result<()> {
        // Who has no power is told nothing any more. Taking a disk down takes some milliseconds, and a sync that is under
        // way meanwhile may end well without its data being on the disk.
        for &ordinal in ordinals {
            self.signal(ordinal, Signal::SIGSTOP)?;
        }
        for &ordinal in ordinals {
            process::until_it_stands_still(self.pid(ordinal)?)?;
            self.nodes[ordinal].disk.lose_power()?;
        }
        for &ordinal in ordinals {
            self.kill(ordinal)?;
            self.nodes[ordinal].disk.restore_power()?;
        }
        Ok(())
    }

    /// Waits until a node's process has ended by itself.
    ///
    /// # Errors
    /// When it has not for half a minute.
    pub async fn ended(&mut self, ordinal: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(30) {
            let child = self.nodes[ordinal].child.as_mut().context("the node does not run")?;
            if child.try_wait()?.is_some() {
                self.nodes[ordinal].child = None;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("{} goes on", self.nodes[ordinal].name)
    }

    /// What a node says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self, ordinal: usize) -> anyhow::Result<NodeStatus> {
        Ok(self.control(ordinal).await?.status(StatusRequest {}).await?.into_inner())
    }

    async fn control(&self, ordinal: usize) -> anyhow::Result<ControlClient<tonic::transport::Channel>> {
        let url = format!("http://{}:7400", self.nodes[ordinal].net.address);
        let endpoint = Endpoint::from_shared(url)?.connect_timeout(CALL_TIMEOUT).timeout(CALL_TIMEOUT);
        Ok(ControlClient::new(endpoint.connect().await?).max_decoding_message_size(64 << 20))
    }

    /// Waits until all nodes have the same ring, reach each other, owe each other nothing, and hold what the ring says;
    /// publishes what has to be published for that, as the operator would.
    ///
    /// # Errors
    /// When that takes too long; with what is missing.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let Err(missing) = self.step().await else { return Ok(()) };
            if began.elapsed() > SETTLE_MAX {
                return Err(missing.context("the ring has not become whole again"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// One look, and the next ring if one is due; an error names what is missing still.
    async fn step(&mut self) -> anyhow::Result<()> {
        let mut statuses = Vec::new();
        for ordinal in 0..self.nodes.len() {
            statuses.push(self.status(ordinal).await.with_context(|| format!("node-{ordinal}"))?);
        }
        let wish = self.wish(&statuses)?;
        let newest = statuses.iter().map(|status| status.epoch).max().unwrap_or(0);
        let next = match &self.ring {
            None => Some(moves::create(CLUSTER, HashKey([3; 16]), &wish)?),
            Some(ring) => {
                let reports = statuses.iter().zip(&wish.members);
                let reports: Reports =
                    reports.map(|(status, member)| (member.incarnation, report(status))).collect();
                match moves::advance(ring, &wish, &reports, Pace::default())? {
                    Step::Publish(next, _) => Some(*next),
                    Step::Wait(_) | Step::Settled => None,
                }
            }
        };
        let published = next.is_some();
        if let Some(next) = next {
            std::fs::write(self.place.join("ring.json"), to_json(&next))?;
            self.ring = Some(next);
        }
        let ring = self.ring.as_ref().context("no ring")?;
        for ordinal in (0..self.nodes.len()).filter(|&ordinal| statuses[ordinal].epoch < ring.epoch) {
            let request = InstallRingRequest { ring: to_json(ring).into() };
            self.control(ordinal).await?.install_ring(request).await?;
        }
        ensure!(!published && newest == ring.epoch, "a ring is being published");
        ensure!(ring.target.is_none(), "data moves");
        for (ordinal, status) in statuses.iter().enumerate() {
            ensure!(status.epoch == ring.epoch, "node-{ordinal} has an old ring");
            ensure!(status.unreachable.is_empty(), "node-{ordinal} does not reach all others");
            ensure!(status.hints == 0, "node-{ordinal} holds {} hints", status.hints);
        }
        Ok(())
    }

    fn wish(&mut self, statuses: &[NodeStatus]) -> anyhow::Result<Wish> {
        let mut members = Vec::new();
        for (node, status) in self.nodes.iter().zip(statuses) {
            let incarnation = uuid_from("incarnation", &status.incarnation)?;
            // A name that answers as another has lost its disk: the one before is gone for certain.
            let before = self.ring.iter().flat_map(|ring| &ring.members).filter(|member| member.name == node.name);
            self.gone.extend(before.map(|member| member.incarnation).filter(|&before| before != incarnation));
            members.push(Wanted {
                incarnation,
                name: node.name.clone(),
                peer_address: format!("{}:7400", node.net.address),
                client_address: format!("{}:6379", node.net.address),
                zone: None,
                weight: 1,
            });
        }
        Ok(Wish {
            partitions: PartitionCount::new(PARTITIONS)?,
            quorums: Quorums { n: 3, r: 2, w: 2, sloppy: true },
            members,
            gone: self.gone.clone(),
        })
    }

    /// The ring that was published last.
    ///
    /// # Errors
    /// When there is none.
    pub fn published(&self) -> anyhow::Result<Ring> {
        Ok(from_json(&std::fs::read(self.place.join("ring.json"))?)?)
    }

    /// The last lines of a node's log.
    #[must_use]
    pub fn log(&self, ordinal: usize) -> String {
        let text = std::fs::read_to_string(log_of(&self.place, &self.nodes[ordinal].name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn clock_of(place: &Path, name: &str) -> PathBuf {
    place.join(format!("{name}.clock"))
}

fn log_of(place: &Path, name: &str) -> PathBuf {
    place.join(format!("{name}.log"))
}

fn serve(command: &mut Command, node: &Node, place: &Path) -> anyhow::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(log_of(place, &node.name))?;
    let address = &node.net.address;
    command.arg("serve").arg("--data-dir").arg(node.disk.mount.join("data"));
    command.args(["--cluster", &CLUSTER.to_string(), "--name", &node.name]);
    command.arg("--ring-file").arg(place.join("ring.json"));
    for (name, port) in [("resp", 6379), ("grpc", 7379), ("peer", 7400), ("http", 9090)] {
        command.arg(format!("--{name}")).arg(format!("{address}:{port}"));
    }
    command.args(["--disk-reserve-bytes", DISK_RESERVE_BYTES]).env("TOKIO_WORKER_THREADS", "1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().with_context(|| format!("starting {}", node.name))
}

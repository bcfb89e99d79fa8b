//! A ring of `annulus-node dev` that is changed while it runs.

use crate::process::processor_time;
use crate::systems::{Process, node_program, until_ready};
use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a change may take.
const CHANGE_MAX: Duration = Duration::from_secs(600);

/// Nodes that take less than a tenth of a processor over so long are idle.
const IDLE_WINDOW: Duration = Duration::from_secs(2);

/// A running ring.
pub(super) struct Ring {
    directory: PathBuf,
    _supervisor: Process,
}

/// What the supervisor says last.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Status {
    settled: bool,
    wish: Option<Wish>,
    epoch: u64,
    pub(super) bytes_moved: u64,
    bytes_minimum: u64,
    pub(super) nodes: Vec<NodeLine>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
struct Wish {
    nodes: usize,
    n: u8,
}

/// One node.
#[derive(Debug, serde::Deserialize)]
pub(super) struct NodeLine {
    pub(super) name: String,
    pub(super) pid: Option<u32>,
    pub(super) resp: String,
    http: String,
    pub(super) answers: bool,
    pub(super) bytes: u64,
}

/// What a change came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// Bytes that nodes have received.
    pub(super) moved: u64,
    /// The least that could have been moved, at the time that the change began.
    pub(super) minimum: u64,
    pub(super) seconds: f64,
}

impl Ring {
    /// Starts a ring of so many nodes with so many replicas.
    pub(super) fn start(
        directory: PathBuf,
        (nodes, n): (usize, u8),
        port: u16,
        partitions: u32,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let mut command = Command::new(node_program()?);
        command.arg("dev").arg("--dir").arg(&directory);
        command.args(["--nodes", &nodes.to_string(), "--resp-port", &port.to_string()]);
        command.args(["--replication-factor", &n.to_string(), "--partitions", &partitions.to_string()]);
        let mut supervisor = Process::start(&command, &directory.join("supervisor.log"))?;
        supervisor.until_ready("the ring", || {
            let status = Self::status_in(&directory)?;
            ensure!(status.settled && status.nodes.iter().all(|node| node.answers), "it has not settled");
            Ok(())
        })?;
        Ok(Self { directory, _supervisor: supervisor })
    }

    pub(super) fn status(&self) -> anyhow::Result<Status> {
        Self::status_in(&self.directory)
    }

    fn status_in(directory: &Path) -> anyhow::Result<Status> {
        Ok(serde_json::from_slice(&std::fs::read(directory.join("status.json"))?)?)
    }

    /// Waits until the nodes do next to nothing.
    pub(super) fn until_idle(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let pids: Vec<u32> = self.status()?.nodes.iter().filter_map(|node| node.pid).collect();
        while began.elapsed() < CHANGE_MAX {
            let before = processor_time(&pids)?;
            std::thread::sleep(IDLE_WINDOW);
            if processor_time(&pids)?.saturating_sub(before) < IDLE_WINDOW / 10 {
                return Ok(());
            }
        }
        bail!("the nodes have not come to rest within {CHANGE_MAX:?}")
    }

    /// Asks for so many nodes and replicas; returns the epoch before.
    pub(super) fn begin(&self, nodes: usize, n: u8) -> anyhow::Result<u64> {
        let epoch = self.status()?.epoch;
        let mut command = Command::new(node_program()?);
        command.args(["dev", "scale", &nodes.to_string(), "--replication-factor", &n.to_string(), "--no-wait"]);
        let output = command.arg("--dir").arg(&self.directory).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(epoch)
    }

    /// Waits until the ring is as asked; `look` sees every status meanwhile.
    pub(super) fn settle(
        &self,
        nodes: usize,
        n: u8,
        epoch_before: u64,
        mut look: impl FnMut(&Status) -> anyhow::Result<()>,
    ) -> anyhow::Result<Change> {
        let began = Instant::now();
        let (mut moved, mut minimum) = (0, 0);
        while began.elapsed() < CHANGE_MAX {
            let status = self.status()?;
            if status.wish == Some(Wish { nodes, n }) {
                look(&status)?;
                moved = status.bytes_moved.max(moved);
                minimum = status.bytes_minimum.max(minimum);
                if status.settled && status.epoch > epoch_before {
                    return Ok(Change { moved, minimum, seconds: began.elapsed().as_secs_f64() });
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the ring has not settled within {CHANGE_MAX:?}: {:?}", self.status()?)
    }

    /// Has a node end in some way; returns the process that it was.
    pub(super) fn end(node: &NodeLine, signal: Signal) -> anyhow::Result<u32> {
        let pid = node.pid.context("it does not run")?;
        kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
        Ok(pid)
    }

    /// Ends these nodes one after the other, each once the one before is back; returns the seconds that it took.
    pub(super) fn restart(&self, nodes: &[usize]) -> anyhow::Result<f64> {
        let began = Instant::now();
        for &node in nodes {
            let find = || anyhow::Ok(self.status()?.nodes.into_iter().nth(node).context("no such node")?);
            let before = Self::end(&find()?, Signal::SIGTERM)?;
            until_ready("the node to be back", || {
                let now = find()?;
                ensure!(now.answers && now.pid.is_some_and(|pid| pid != before), "it is not back");
                Ok(())
            })?;
        }
        Ok(began.elapsed().as_secs_f64())
    }

    /// One of the numbers that a node tells Prometheus.
    pub(super) fn metric(node: &NodeLine, name: &str) -> anyhow::Result<u64> {
        let mut stream = TcpStream::connect(&node.http)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok()).with_context(|| format!("{} tells no {name}", node.name))
    }

    /// Bytes that all nodes have handed out to others since they started.
    pub(super) fn handed_out(&self) -> anyhow::Result<u64> {
        let nodes = self.status()?.nodes;
        let one = |node: &NodeLine| until_ready("a node", || Self::metric(node, "annulus_handed_out_bytes"));
        nodes.iter().map(one).sum()
    }
}

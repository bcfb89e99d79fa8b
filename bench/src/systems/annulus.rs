//! A ring of Annulus nodes by `annulus-node dev`.

use super::{Process, System, Target, Wait, resp_target};
use crate::load::KeySpace;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Ports for Prometheus are so much above those for Redis clients.
const HTTP_PORT_OFFSET: u16 = 3000;

/// How a ring is to be run.
#[derive(Clone, Debug)]
pub struct Annulus {
    /// Where its data goes.
    pub directory: PathBuf,
    /// How many nodes.
    pub nodes: usize,
    /// RESP port of the first; gRPC, peers and HTTP are 1000, 2000 and 3000 above.
    pub port: u16,
    /// Replicas that a read asks.
    pub r: u8,
    /// Replicas of an item; more than half of them take a write.
    pub n: u8,
    /// Name in tables.
    pub name: &'static str,
}

#[derive(serde::Deserialize)]
struct Status {
    settled: bool,
    nodes: Vec<NodeLine>,
}

#[derive(serde::Deserialize)]
struct NodeLine {
    pid: Option<u32>,
    resp: String,
    answers: bool,
}

impl Annulus {
    /// Starts the ring; data that is in the directory already is served on.
    ///
    /// # Errors
    /// When the ring does not settle.
    pub fn start(&self, keys: &KeySpace) -> anyhow::Result<System> {
        std::fs::create_dir_all(&self.directory)?;
        // What a ring before this one has said last is not this one's word.
        let _ = std::fs::remove_file(self.directory.join("status.json"));
        let mut command = Command::new(node_program()?);
        command.arg("dev").arg("--dir").arg(&self.directory);
        command.args(["--nodes", &self.nodes.to_string(), "--resp-port", &self.port.to_string()]);
        let w = self.n / 2 + 1;
        command.args(["--read", &self.r.to_string(), "--write", &w.to_string()]);
        command.args(["--replication-factor", &self.n.to_string()]);
        let mut supervisor = Process::start(&command, &self.directory.join("supervisor.log"))?;
        let status = supervisor.until_ready("the Annulus ring", || self.status())?;
        let servers = status.nodes.iter().filter_map(|node| node.pid).collect();
        let ports = (self.port + HTTP_PORT_OFFSET..).take(self.nodes);
        let metrics = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        let seed = status.nodes.first().context("a ring without nodes")?;
        let target = supervisor.until_ready("Annulus to serve", || {
            let mut connection = redis::Client::open(format!("redis://{}", seed.resp))?.get_connection()?;
            redis::cmd("SET").arg("ready").arg("1").query::<()>(&mut connection)?;
            resp_target(&seed.resp, keys, Wait::No)
        })?;
        Ok(System {
            name: self.name,
            target: Target::Resp(target),
            servers,
            metrics,
            _processes: vec![supervisor],
        })
    }

    fn status(&self) -> anyhow::Result<Status> {
        let status: Status = serde_json::from_slice(&std::fs::read(self.directory.join("status.json"))?)?;
        if !status.settled || status.nodes.len() != self.nodes || !status.nodes.iter().all(|node| node.answers) {
            bail!("it has not settled");
        }
        Ok(status)
    }
}

/// The node's program: what `ANNULUS_NODE` names, else the one built beside this.
///
/// # Errors
/// When it is not there.
pub fn node_program() -> anyhow::Result<PathBuf> {
    let program = match std::env::var_os("ANNULUS_NODE") {
        Some(program) => PathBuf::from(program),
        None => std::env::current_exe()?.with_file_name("annulus-node"),
    };
    if !Path::new(&program).exists() {
        bail!("{} is missing; build it: cargo build --profile fast -p annulus-node", program.display());
    }
    Ok(program)
}

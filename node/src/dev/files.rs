//! What a dev ring keeps in its directory.

use annulus_node::config::Limits;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use uuid::Uuid;

/// Settings of a ring that stay as they are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    pub cluster: Uuid,
    pub resp_port: u16,
    pub partitions: u32,
    /// Replication factor to begin with, and the quorums that go with it.
    pub n: u8,
    pub r: u8,
    pub w: u8,
    /// What the nodes are told about the Redis interface.
    #[serde(default)]
    pub flush_allowed: bool,
    #[serde(default)]
    pub acl_file: Option<PathBuf>,
}

/// What people want of a ring, and may change while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// How many nodes.
    pub nodes: usize,
    /// Replication factor.
    pub n: u8,
}

/// The supervisor's last words.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    pub pid: u32,
    pub settled: bool,
    pub wish: Option<Wish>,
    pub epoch: u64,
    pub partitions_left: usize,
    pub filling: usize,
    pub retiring: usize,
    pub bytes_moved: u64,
    pub bytes_minimum: u64,
    pub waiting: Vec<String>,
    pub nodes: Vec<NodeLine>,
}

/// One node, as its supervisor sees it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodeLine {
    pub name: String,
    pub pid: Option<u32>,
    pub resp: String,
    pub grpc: String,
    pub http: String,
    pub answers: bool,
    pub epoch: u64,
    pub keys: u64,
    pub bytes: u64,
    pub hints: u64,
    pub listed_partitions: u32,
}

/// Ports of one node.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub resp: SocketAddr,
    pub grpc: SocketAddr,
    pub peer: SocketAddr,
    pub http: SocketAddr,
}

impl Settings {
    /// Where node `ordinal` listens.
    pub fn ports(&self, ordinal: usize) -> anyhow::Result<Ports> {
        let at = |offset: usize| {
            let port = usize::from(self.resp_port) + offset + ordinal;
            let port = u16::try_from(port).context("the ports of the nodes do not fit below 65536")?;
            anyhow::Ok(SocketAddr::from(([127, 0, 0, 1], port)))
        };
        Ok(Ports { resp: at(0)?, grpc: at(1000)?, peer: at(2000)?, http: at(3000)? })
    }
}

/// The directory of a dev ring.
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn create(root: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&root)?;
        Ok(Self { root: root.canonicalize()? })
    }

    /// One supervisor for each directory.
    pub fn lock(&self) -> anyhow::Result<fs::File> {
        let file = fs::File::create(self.root.join("lock"))?;
        if file.try_lock().is_err() {
            bail!("a ring already runs in {}", self.root.display());
        }
        Ok(file)
    }

    pub fn node(&self, ordinal: usize) -> PathBuf {
        self.root.join(format!("node-{ordinal}"))
    }

    pub fn node_log(&self, ordinal: usize) -> PathBuf {
        self.root.join(format!("node-{ordinal}.log"))
    }

    pub fn ring_file(&self) -> PathBuf {
        self.root.join("ring.json")
    }

    /// The settings kept here, or these from now on.
    pub fn settings_or(&self, new: Settings) -> anyhow::Result<Settings> {
        let path = self.root.join("settings.json");
        if !path.exists() {
            self.replace("settings.json", &serde_json::to_vec_pretty(&new)?)?;
            return Ok(new);
        }
        let kept: Settings = serde_json::from_slice(&fs::read(&path)?)
            .with_context(|| format!("{} is not readable", path.display()))?;
        let (r, w) = (new.r.min(kept.n), new.w.min(kept.n));
        Ok(Settings { cluster: kept.cluster, partitions: kept.partitions, n: kept.n, r, w, ..new })
    }

    pub fn wish(&self) -> Option<Wish> {
        serde_json::from_slice(&fs::read(self.root.join("wish.json")).ok()?).ok()
    }

    pub fn set_wish(&self, wish: Wish) -> anyhow::Result<()> {
        self.replace("wish.json", &serde_json::to_vec(&wish)?)
    }

    pub fn ring(&self) -> anyhow::Result<Option<Vec<u8>>> {
        match fs::read(self.ring_file()) {
            Ok(json) => Ok(Some(json)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub fn set_ring(&self, json: &str) -> anyhow::Result<()> {
        self.replace("ring.json", json.as_bytes())
    }

    pub fn status(&self) -> anyhow::Result<Status> {
        let path = self.root.join("status.json");
        let text = fs::read(&path).with_context(|| format!("no ring runs in {}", self.root.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    pub fn set_status(&self, status: &Status) -> anyhow::Result<()> {
        self.replace("status.json", &serde_json::to_vec_pretty(status)?)
    }

    /// Never half written: to the side, synced, then renamed.
    fn replace(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let aside = self.root.join(format!("{name}.new"));
        fs::write(&aside, content)?;
        fs::File::open(&aside)?.sync_all()?;
        fs::rename(&aside, self.root.join(name))?;
        fs::File::open(&self.root)?.sync_all()?;
        Ok(())
    }
}

/// Bytes that messages between supervisor and nodes may have.
pub fn message_bytes_max() -> usize {
    Limits::default().value_bytes_max.max(16 << 20)
}

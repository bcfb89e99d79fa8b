//! One node's process: started, watched, ended.

use super::files::{Directory, Ports, Settings, message_bytes_max};
use annulus_proto::v1::control_client::ControlClient;
use annulus_proto::v1::{InstallRingRequest, NodeStatus, StatusRequest};
use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};

const CALL_TIMEOUT: Duration = Duration::from_secs(2);
const STOP_MAX: Duration = Duration::from_secs(25);

/// A node of the ring.
pub struct Node {
    pub ordinal: usize,
    pub ports: Ports,
    child: Option<Child>,
    channel: Channel,
}

impl Node {
    /// Starts the node's process.
    pub fn start(directory: &Directory, settings: &Settings, ordinal: usize) -> anyhow::Result<Self> {
        let ports = settings.ports(ordinal)?;
        let channel = Endpoint::from_shared(format!("http://{}", ports.peer))?
            .connect_timeout(CALL_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .connect_lazy();
        let mut node = Self { ordinal, ports, child: None, channel };
        node.spawn(directory, settings)?;
        Ok(node)
    }

    pub fn name(&self) -> String {
        format!("node-{}", self.ordinal)
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Starts the process again if it has ended, as a kubelet would. Returns whether it did.
    pub fn keep_running(&mut self, directory: &Directory, settings: &Settings) -> anyhow::Result<bool> {
        if let Some(child) = &mut self.child
            && child.try_wait()?.is_none()
        {
            return Ok(false);
        }
        self.spawn(directory, settings)?;
        Ok(true)
    }

    fn spawn(&mut self, directory: &Directory, settings: &Settings) -> anyhow::Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(directory.node_log(self.ordinal))?;
        let child = Command::new(std::env::current_exe()?)
            .env("TOKIO_WORKER_THREADS", worker_threads(directory).to_string())
            .arg("serve")
            .arg("--data-dir")
            .arg(directory.node(self.ordinal))
            .arg("--ring-file")
            .arg(directory.ring_file())
            .args(["--cluster", &settings.cluster.to_string(), "--name", &self.name(), "--end-with-stdin"])
            .args(["--resp", &self.ports.resp.to_string(), "--grpc", &self.ports.grpc.to_string()])
            .args(["--peer", &self.ports.peer.to_string(), "--http", &self.ports.http.to_string()])
            .args(settings.flush_allowed.then_some("--flush-allowed"))
            .args(settings.acl_file.iter().flat_map(|path| [OsStr::new("--acl-file"), path.as_os_str()]))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // Signals from the terminal go to the supervisor alone, which ends the nodes in good order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", self.name()))?;
        self.child = Some(child);
        Ok(())
    }

    fn client(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone())
            .max_decoding_message_size(message_bytes_max())
            .max_encoding_message_size(message_bytes_max())
    }

    /// What the node says of itself; `None` if it does not answer.
    pub async fn status(&self) -> Option<NodeStatus> {
        let answer = tokio::time::timeout(CALL_TIMEOUT, self.client().status(StatusRequest {}).boxed()).await;
        answer.ok()?.ok().map(tonic::Response::into_inner)
    }

    /// Hands the node a ring. One that does not answer gets it from its peers, or from the file when it starts.
    pub async fn install(&self, json: &str) {
        let request = InstallRingRequest { ring: json.to_owned().into() };
        let _ = tokio::time::timeout(CALL_TIMEOUT, self.client().install_ring(request).boxed()).await;
    }

    /// Asks the process to end and waits until it has.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).context("ending a node")?;
        }
        if tokio::time::timeout(STOP_MAX, child.wait()).await.is_err() {
            child.kill().await?;
        }
        Ok(())
    }
}

/// A node's share of the processors, at least one: threads beyond that only wake each other. What the environment says
/// comes first.
fn worker_threads(directory: &Directory) -> usize {
    let told = std::env::var("TOKIO_WORKER_THREADS").ok().and_then(|told| told.parse().ok());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    told.unwrap_or(processors / directory.wish().map_or(1, |wish| wish.nodes.max(1))).max(1)
}

/// Calls on a temporary client, boxed so that the client lives as long as the call.
trait Boxed: Future + Sized {
    fn boxed<'a>(self) -> std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>
    where
        Self: Send + 'a,
    {
        Box::pin(self)
    }
}

impl<F: Future> Boxed for F {}

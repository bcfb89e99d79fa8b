//! A real node process under clients that ask for much and take little: its memory stays within bounds.

use annulus_tests::kvc::sibling_binary;
use anyhow::{Context, ensure};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const RESP_PORT: u16 = 21_800;
const MEBIBYTE: u64 = 1 << 20;

/// The first node of a ring, ended with SIGTERM when dropped.
struct Node {
    supervisor: Child,
    pid: u64,
    _dir: tempfile::TempDir,
}

impl Node {
    fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().display().to_string();
        let mut supervisor = Command::new(sibling_binary("annulus-node")?)
            .args([
                "dev",
                "--nodes",
                "3",
                "--partitions",
                "16",
                "--resp-port",
                &RESP_PORT.to_string(),
                "--dir",
                &path,
            ])
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = supervisor.stdout.take().context("no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = lines.next().context("it ended before it was ready")??;
        ensure!(first == "ready", "it said {first:?}");
        std::thread::spawn(move || lines.for_each(drop));
        let status = Command::new(sibling_binary("annulus-node")?)
            .args(["dev", "status", "--json", "--dir", &path])
            .output()?;
        let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
        let pid = status["nodes"][0]["pid"].as_u64().context("the node has no process")?;
        Ok(Self { supervisor, pid, _dir: dir })
    }

    /// Resident memory now, in bytes.
    fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kibibytes << 10)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.supervisor.id()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.supervisor.wait();
    }
}

async fn connect() -> anyhow::Result<TcpStream> {
    Ok(TcpStream::connect(("127.0.0.1", RESP_PORT)).await?)
}

/// Sends a command and reads what the reply must be, as far as it is that.
async fn expect(connection: &mut TcpStream, command: &[u8], reply: &[u8]) -> anyhow::Result<()> {
    connection.write_all(command).await?;
    let mut read = Vec::with_capacity(reply.len());
    while read.len() < reply.len() {
        let came = tokio::time::timeout(Duration::from_secs(20), connection.read_buf(&mut read)).await;
        let came = came.with_context(|| format!("nothing more than {} bytes has come", read.len()))??;
        let shown = &read[..read.len().min(200)];
        ensure!(came > 0 && reply.starts_with(&read), "{:?}", String::from_utf8_lossy(shown));
    }
    Ok(())
}

async fn highest_resident(node: &Node, during: Duration) -> anyhow::Result<u64> {
    let (began, mut highest) = (Instant::now(), 0);
    while began.elapsed() < during {
        highest = highest.max(node.resident()?);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(highest)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_and_clients_that_never_read_stay_within_the_bound() -> anyhow::Result<()> {
    let node = Node::start()?;
    let before = node.resident()?;
    // 9,000 connections (this process and the node have 20,000 descriptors each at most), each with half a command.
    let mut idle = Vec::new();
    for number in 0..9_000u32 {
        let mut connection = connect().await?;
        connection.write_all(format!("*3\r\n$3\r\nSET\r\n$6\r\nkey{number}").as_bytes()).await?;
        idle.push(connection);
    }
    let with_idle = highest_resident(&node, Duration::from_secs(2)).await?;
    println!("{} MiB at first, {} MiB with 9,000 connections", before / MEBIBYTE, with_idle / MEBIBYTE);
    ensure!(with_idle < before + 256 * MEBIBYTE, "{} MiB", with_idle / MEBIBYTE);
    let mut connection = connect().await?;
    expect(&mut connection, b"PING\r\n", b"+PONG\r\n").await?;

    // A mebibyte, asked for two thousand times by each of two hundred clients, of which none reads.
    let value = vec![b'x'; 1 << 20];
    let mut set = format!("*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n${}\r\n", value.len()).into_bytes();
    set.extend_from_slice(&value);
    set.extend_from_slice(b"\r\n");
    expect(&mut connection, &set, b"+OK\r\n").await?;
    let asked = b"GET large\r\n".repeat(2_000);
    let mut hoarders = Vec::new();
    for _ in 0..200 {
        let mut hoarder = connect().await?;
        hoarder.write_all(&asked).await?;
        hoarders.push(hoarder);
    }
    let with_hoarders = highest_resident(&node, Duration::from_secs(10)).await?;
    println!("{} MiB with 200 clients that never read", with_hoarders / MEBIBYTE);
    ensure!(with_hoarders < with_idle + 900 * MEBIBYTE, "{} MiB", with_hoarders / MEBIBYTE);
    // Whoever does read is served meanwhile.
    let began = Instant::now();
    let mut reply = b"$1048576\r\n".to_vec();
    reply.extend_from_slice(&value);
    reply.extend_from_slice(b"\r\n");
    for _ in 0..20 {
        expect(&mut connection, b"GET large\r\n", &reply).await?;
    }
    println!("20 reads of a mebibyte meanwhile in {:?}", began.elapsed());
    drop((hoarders, idle));
    Ok(())
}

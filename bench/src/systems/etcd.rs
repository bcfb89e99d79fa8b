//! etcd, from the distribution's package.

use super::{Process, System, Target};
use anyhow::{Context, bail};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Client port of the first member; the peers' is 10 above.
const PORT: u16 = 23710;
const MEMBERS: u16 = 3;

/// Starts three members. etcd syncs its log before it answers unless it is told not to.
pub(super) fn start(directory: &Path) -> anyhow::Result<System> {
    let peer = |member: u16| format!("http://127.0.0.1:{}", PORT + 10 + member);
    let client = |member: u16| format!("http://127.0.0.1:{}", PORT + member);
    let cluster: Vec<String> = (0..MEMBERS).map(|member| format!("m{member}={}", peer(member))).collect();
    let mut processes = Vec::new();
    for member in 0..MEMBERS {
        let place = directory.join(format!("member-{member}"));
        std::fs::create_dir_all(&place)?;
        let mut command = Command::new("etcd");
        command.args(["--name", &format!("m{member}"), "--data-dir"]).arg(place.join("data"));
        command.args(["--listen-peer-urls", &peer(member), "--initial-advertise-peer-urls", &peer(member)]);
        command.args(["--listen-client-urls", &client(member), "--advertise-client-urls", &client(member)]);
        command.args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"]);
        command.args(["--log-level", "error"]);
        processes.push(Process::start(&command, &place.join("log"))?);
    }
    for (process, member) in processes.iter_mut().zip(0..MEMBERS) {
        process.until_ready("etcd", || is_healthy(PORT + member))?;
    }
    let servers = processes.iter().map(Process::pid).collect();
    let target = Target::Etcd((0..MEMBERS).map(client).collect());
    Ok(System { name: "etcd", target, servers, metrics: Vec::new(), _processes: processes })
}

fn is_healthy(port: u16) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("reading etcd's health")?;
    if !answer.contains("\"health\":\"true\"") {
        bail!("etcd says {answer}");
    }
    Ok(())
}

//! Redis Cluster, from the distribution's package.

use super::{Process, System, Target, Wait, resp_target};
use crate::load::KeySpace;
use anyhow::{Context, bail};
use std::path::Path;
use std::process::Command;

/// Port of the first node; the cluster bus is 10,000 above. None is one that the kernel gives to a connection that
/// goes out, which would keep a node from listening there.
const PORT: u16 = 22101;
const NODES: u16 = 6;

/// Starts three primaries and three replicas.
pub(super) fn start(directory: &Path, keys: &KeySpace) -> anyhow::Result<System> {
    let addresses: Vec<String> = (0..NODES).map(|node| format!("127.0.0.1:{}", PORT + node)).collect();
    let mut processes = Vec::new();
    for node in 0..NODES {
        let place = directory.join(format!("node-{node}"));
        std::fs::create_dir_all(&place)?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &(PORT + node).to_string(), "--bind", "127.0.0.1"]).arg("--dir").arg(&place);
        command.args(["--cluster-enabled", "yes", "--appendonly", "yes", "--appendfsync", "always"]);
        // Snapshots besides the log are not what is compared.
        command.args(["--save", ""]);
        processes.push(Process::start(&command, &place.join("log"))?);
    }
    for (process, address) in processes.iter_mut().zip(&addresses) {
        process.until_ready("Redis", || ask(address, &["PING"]).map(drop))?;
    }
    let created = Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(&addresses)
        .args(["--cluster-replicas", "1", "--cluster-yes"])
        .output()
        .context("running redis-cli")?;
    if !created.status.success() {
        bail!("creating the Redis cluster: {}", String::from_utf8_lossy(&created.stdout));
    }
    for (process, address) in processes.iter_mut().zip(&addresses) {
        process.until_ready("the Redis cluster", || is_ready(address))?;
    }
    let target = resp_target(&addresses[0], keys, Wait::After)?;
    let servers = processes.iter().map(Process::pid).collect();
    Ok(System {
        name: super::REDIS,
        target: Target::Resp(target),
        servers,
        metrics: Vec::new(),
        _processes: processes,
    })
}

/// Every node knows the cluster, primaries have their replica, and replicas their primary.
fn is_ready(address: &str) -> anyhow::Result<()> {
    let cluster = ask(address, &["CLUSTER", "INFO"])?;
    let replication = ask(address, &["INFO", "replication"])?;
    let linked = replication.contains("master_link_status:up") || replication.contains("state=online");
    if !cluster.contains("cluster_state:ok") || !linked {
        bail!("{address} is not ready");
    }
    Ok(())
}

fn ask(address: &str, command: &[&str]) -> anyhow::Result<String> {
    let mut connection = redis::Client::open(format!("redis://{address}"))?.get_connection()?;
    let mut request = redis::cmd(command[0]);
    request.arg(&command[1..]);
    Ok(request.query(&mut connection)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_node_listens_where_a_connection_may_have_gone_out() {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        let last_bus = PORT + 10_000 + NODES - 1;
        assert!(last_bus < first, "the bus of the last node is at {last_bus}, connections go out from {first} on");
    }
}

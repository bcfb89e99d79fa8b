//! `annulus-node dev`: a ring of real processes on loopback, scaled and hurt under load.

use annulus_tests::kvc::sibling_binary;
use annulus_tests::workload::{self, Counters, Shape, Workload};
use anyhow::{Context, ensure};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const SHAPE: Shape = Shape { writers: 4, keys: 2_000, value_bytes: 1_000 };
const LIMIT: Duration = Duration::from_secs(120);

/// A running ring; ended with SIGTERM when dropped.
struct Ring {
    supervisor: Child,
    dir: tempfile::TempDir,
    resp_port: u16,
}

impl Ring {
    fn start(resp_port: u16) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let supervisor = supervise(dir.path(), resp_port, &["--nodes", "3", "--partitions", "256"])?;
        Ok(Self { supervisor, dir, resp_port })
    }

    fn address(&self, node: u16) -> String {
        format!("127.0.0.1:{}", self.resp_port + node)
    }

    fn scale(&self, nodes: usize) -> anyhow::Result<()> {
        let (nodes, dir) = (nodes.to_string(), self.dir.path().display().to_string());
        let status = Command::new(sibling_binary("annulus-node")?)
            .args(["dev", "scale", &nodes, "--dir", &dir])
            .status()?;
        ensure!(status.success(), "dev scale failed");
        Ok(())
    }

    fn status(&self) -> anyhow::Result<serde_json::Value> {
        let dir = self.dir.path().display().to_string();
        let output = Command::new(sibling_binary("annulus-node")?)
            .args(["dev", "status", "--json", "--dir", &dir])
            .output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn pid_of(&self, node: usize) -> anyhow::Result<i32> {
        let status = self.status()?;
        let pid = status["nodes"][node]["pid"].as_i64().context("the node has no process")?;
        Ok(i32::try_from(pid)?)
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        signal(i32::try_from(self.supervisor.id())?, nix::sys::signal::Signal::SIGTERM)?;
        let ended = self.supervisor.wait()?;
        ensure!(ended.success(), "the supervisor ended with {ended}");
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Ok(None) = self.supervisor.try_wait() {
            let _ = self.stop();
        }
    }
}

fn supervise(dir: &Path, resp_port: u16, more: &[&str]) -> anyhow::Result<Child> {
    let mut supervisor = Command::new(sibling_binary("annulus-node")?)
        .args(["dev", "--resp-port", &resp_port.to_string(), "--dir", &dir.display().to_string()])
        .args(more)
        .env("RUST_LOG", "info,annulus_node::ring_state=debug")
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = supervisor.stdout.take().context("no output")?;
    let mut lines = BufReader::new(stdout).lines();
    let first = lines.next().context("it ended before it was ready")??;
    ensure!(first == "ready", "it said {first:?} instead of ready");
    // Whatever it says later must not fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Ok(supervisor)
}

fn signal(pid: i32, signal: nix::sys::signal::Signal) -> anyhow::Result<()> {
    Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal)?)
}

async fn under_load(ring: &Ring) -> anyhow::Result<(Vec<String>, Workload)> {
    let addresses: Vec<String> = (0..3).map(|node| ring.address(node)).collect();
    let ledgers = workload::load(&addresses, SHAPE, &Arc::new(Counters::default())).await?;
    let workload = Workload::start(&addresses, SHAPE, ledgers, Duration::from_millis(2)).await?;
    Ok((addresses, workload))
}

async fn verify(addresses: &[String], workload: Workload, failures_allowed: bool) -> anyhow::Result<()> {
    let counters = workload.counters.clone();
    let ledger = workload.stop().await?;
    let tally = workload::verify(addresses, &ledger).await?;
    println!("{tally:?} {counters:?}");
    ensure!(tally.acknowledged as usize >= SHAPE.keys, "{tally:?}");
    ensure!(tally.lost == 0 && tally.wrong == 0, "{tally:?}");
    ensure!(counters.bad_reads.load(Ordering::Relaxed) == 0, "{counters:?}");
    ensure!(failures_allowed || counters.failed.load(Ordering::Relaxed) == 0, "{counters:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn scaled_out_and_in_under_load_nothing_is_lost() -> anyhow::Result<()> {
    let mut ring = Ring::start(21_100)?;
    let (addresses, workload) = under_load(&ring).await?;
    for nodes in [5, 3, 4] {
        ring.scale(nodes)?;
        let status = ring.status()?;
        println!("{} bytes moved, at least {}", status["bytes_moved"], status["bytes_minimum"]);
        ensure!(status["nodes"].as_array().is_some_and(|running| running.len() == nodes), "{status}");
    }
    verify(&addresses, workload, false).await?;
    ring.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_loses_nothing_and_catches_up() -> anyhow::Result<()> {
    let mut ring = Ring::start(21_200)?;
    let (addresses, workload) = under_load(&ring).await?;
    for node in [2, 1] {
        signal(ring.pid_of(node)?, nix::sys::signal::Signal::SIGKILL)?;
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    let drained = Instant::now();
    while ring.status()?["nodes"].as_array().is_some_and(|nodes| nodes.iter().any(|node| node["hints"] != 0)) {
        ensure!(drained.elapsed() < LIMIT, "hints are not delivered: {}", ring.status()?);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    verify(&addresses, workload, true).await?;
    ring.stop()
}

/// Of some items two of the three replicas are gone for good, and with them any quorum of those who had it.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_lose_their_disks_at_once_are_filled_from_who_is_left() -> anyhow::Result<()> {
    let mut ring = Ring::start(21_900)?;
    ring.scale(4)?;
    let (addresses, workload) = under_load(&ring).await?;
    let ledger = workload.stop().await?;
    // What was acknowledged is on its way to the third replica, too.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let epoch = ring.status()?["epoch"].as_u64();
    for node in [2, 3] {
        signal(ring.pid_of(node)?, nix::sys::signal::Signal::SIGKILL)?;
        let place = |name: &str| ring.dir.path().join(format!("{name}-{node}"));
        std::fs::rename(place("node"), place("lost"))?;
    }
    let lost = Instant::now();
    let settled = |status: &serde_json::Value| status["settled"] == true && status["epoch"].as_u64() > epoch;
    while !settled(&ring.status()?) {
        ensure!(lost.elapsed() < LIMIT, "they are not filled: {}", ring.status()?);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let tally = workload::verify(&addresses, &ledger).await?;
    ensure!(tally.lost == 0 && tally.wrong == 0 && tally.acknowledged as usize >= SHAPE.keys, "{tally:?}");
    ring.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_started_again_has_its_data() -> anyhow::Result<()> {
    let mut ring = Ring::start(21_300)?;
    let (addresses, workload) = under_load(&ring).await?;
    let ledger = workload.stop().await?;
    ring.stop()?;
    ring.supervisor = supervise(ring.dir.path(), ring.resp_port, &[])?;
    let tally = workload::verify(&addresses, &ledger).await?;
    ensure!(tally.lost == 0 && tally.wrong == 0 && tally.acknowledged as usize >= SHAPE.keys, "{tally:?}");
    let log = std::fs::read_to_string(ring.dir.path().join("node-0.log"))?;
    ensure!(log.contains("DEBUG annulus_node::ring_state"), "nodes do not log as RUST_LOG says");
    ring.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_at_a_node_that_was_away_shows_what_was_written_meanwhile() -> anyhow::Result<()> {
    use nix::sys::signal::Signal::{SIGKILL, SIGSTOP};
    const KEYS: usize = 2_000;
    let mut ring = Ring::start(21_400)?;
    let connect = |node| anyhow::Ok(redis::Client::open(format!("redis://{}/", ring.address(node)))?);
    let away = ring.pid_of(2)?;
    signal(away, SIGSTOP)?;
    let mut other = connect(0)?.get_connection()?;
    for number in 0..KEYS {
        redis::cmd("SET").arg(format!("walked-{number}")).arg("x").query::<()>(&mut other)?;
    }
    // What has been sent to it is gone with it, and anti-entropy has yet to begin when it is back.
    signal(away, SIGKILL)?;
    let back = Instant::now();
    let mut returned = loop {
        let answers = connect(2)?.get_connection().and_then(|mut connection| {
            redis::cmd("GET").arg("walked-0").query::<Option<String>>(&mut connection).map(|_| connection)
        });
        match answers {
            Ok(connection) => break connection,
            Err(error) => ensure!(back.elapsed() < LIMIT, "the node does not come back: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let mut walk = redis::cmd("SCAN");
    let found = walk.cursor_arg(0).arg("COUNT").arg(1000).clone().iter::<String>(&mut returned)?;
    let found: std::collections::BTreeSet<String> = found.collect::<Result<_, _>>()?;
    ensure!(found.len() == KEYS, "{} of {KEYS} keys are shown", found.len());
    ring.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_left_serves_on_until_maps_of_the_ring_are_made_anew() -> anyhow::Result<()> {
    let mut ring = Ring::start(21_500)?;
    ring.scale(4)?;
    let mut leaver = redis::Client::open(format!("redis://{}/", ring.address(3)))?.get_connection()?;
    let mut other = redis::Client::open(format!("redis://{}/", ring.address(0)))?.get_connection()?;
    redis::cmd("SET").arg("kept").arg("x").query::<()>(&mut other)?;
    let port = ring.resp_port + 3;
    let slots: redis::Value = redis::cmd("CLUSTER").arg("SLOTS").query(&mut other)?;
    ensure!(format!("{slots:?}").contains(&format!("int({port})")), "it is not in the map at first: {slots:?}");
    let answers_since = std::thread::scope(|scope| {
        let scaled = scope.spawn(|| ring.scale(3));
        let began = Instant::now();
        let mut left = None;
        while left.is_none_or(|left: Instant| left.elapsed() < Duration::from_secs(8)) {
            ensure!(began.elapsed() < LIMIT, "the node does not leave");
            let value = redis::cmd("GET").arg("kept").query::<String>(&mut leaver);
            let after = left.map(|left: Instant| left.elapsed());
            ensure!(value.as_deref() == Ok("x"), "{after:?} after it had left: {value:?}");
            let slots: redis::Value = redis::cmd("CLUSTER").arg("SLOTS").query(&mut other)?;
            if left.is_none() && !format!("{slots:?}").contains(&format!("int({port})")) {
                left = Some(Instant::now());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(leaver);
        scaled.join().map_err(|_| anyhow::anyhow!("scaling panicked"))??;
        Ok(left)
    })?;
    ensure!(answers_since.is_some(), "the node has never left");
    ring.stop()
}

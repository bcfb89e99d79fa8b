//! Processes that end, or stand still.

use super::{Found, Scenario, seconds};
use crate::cluster::{Cluster, Under};
use crate::load::Load;
use anyhow::ensure;
use nix::sys::signal::Signal;

/// While a node stands still, the longest request of the others' clients: to notice takes a second at most, and the
/// machine is busy.
const NOTICED_MS_MAX: f64 = 2000.0;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "kill",
            about: "kill -9 of one node after the other, each started again",
            nodes: 3,
            short: true,
            stale_reads: false,
            run: |cluster| Box::pin(killed(cluster)),
        },
        Scenario {
            name: "kill-all",
            about: "kill -9 of all nodes at once, twice",
            nodes: 3,
            short: false,
            stale_reads: false,
            run: |cluster| Box::pin(all_killed(cluster)),
        },
        Scenario {
            name: "pause",
            about: "SIGSTOP of a node for 30 s: routed around, and back without stale ownership",
            nodes: 3,
            short: false,
            stale_reads: false,
            run: |cluster| Box::pin(paused(cluster)),
        },
        Scenario {
            name: "two-of-three",
            about: "five nodes, n = 3: two are killed and stay away for 5 s; writes go on at fallbacks",
            nodes: 5,
            short: true,
            stale_reads: true,
            run: |cluster| Box::pin(two_away(cluster)),
        },
    ]
}

async fn killed(cluster: &mut Cluster) -> anyhow::Result<Found> {
    let load = Load::start(cluster, &[0, 1, 2]).await?;
    for ordinal in 0..3 {
        seconds(0.7).await;
        cluster.kill(ordinal)?;
        seconds(0.7).await;
        cluster.spawn(ordinal, &Under::Nothing)?;
        cluster.settle().await?;
    }
    Ok(Found { outcome: load.judge(cluster).await?, note: String::new() })
}

async fn all_killed(cluster: &mut Cluster) -> anyhow::Result<Found> {
    let load = Load::start(cluster, &[0, 1, 2]).await?;
    for _ in 0..2 {
        seconds(1.5).await;
        (0..3).try_for_each(|ordinal| cluster.kill(ordinal))?;
        (0..3).try_for_each(|ordinal| cluster.spawn(ordinal, &Under::Nothing))?;
        cluster.settle().await?;
    }
    Ok(Found { outcome: load.judge(cluster).await?, note: String::new() })
}

async fn paused(cluster: &mut Cluster) -> anyhow::Result<Found> {
    let load = Load::start(cluster, &[0, 1]).await?;
    seconds(1.0).await;
    let before = load.longest_ms();
    cluster.signal(2, Signal::SIGSTOP)?;
    seconds(30.0).await;
    let during = load.longest_ms();
    cluster.signal(2, Signal::SIGCONT)?;
    seconds(3.0).await;
    let after = load.longest_ms();
    let outcome = load.judge(cluster).await?;
    ensure!(outcome.failed == 0, "{} requests of the others' clients failed", outcome.failed);
    ensure!(during < NOTICED_MS_MAX, "a request took {during:.0} ms while the node stood still");
    let note = format!("longest request {before:.0} ms before, {during:.0} ms during, {after:.0} ms after");
    Ok(Found { outcome, note })
}

async fn two_away(cluster: &mut Cluster) -> anyhow::Result<Found> {
    let load = Load::start(cluster, &[0, 1, 2]).await?;
    seconds(1.0).await;
    cluster.kill(3)?;
    cluster.kill(4)?;
    // What was under way when they died may take as long as it takes to notice.
    seconds(1.5).await;
    let (noticing, before) = (load.longest_ms(), load.requests());
    seconds(5.0).await;
    let (during, requests) = (load.longest_ms(), load.requests() - before);
    let hints: u64 = {
        let mut hints = 0;
        for ordinal in 0..3 {
            hints += cluster.status(ordinal).await?.hints;
        }
        hints
    };
    for ordinal in [3, 4] {
        cluster.spawn(ordinal, &Under::Nothing)?;
    }
    let outcome = load.judge(cluster).await?;
    ensure!(outcome.failed == 0, "{} requests of the others' clients failed", outcome.failed);
    ensure!(requests > 0 && hints > 0, "nothing was written meanwhile, or no fallback stood in");
    let note = format!(
        "longest request {noticing:.0} ms while it was noticed, {during:.0} ms then; {hints} hints held and delivered"
    );
    Ok(Found { outcome, note })
}

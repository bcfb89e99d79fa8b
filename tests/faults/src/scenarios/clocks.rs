//! Clocks that are off by a day.

use super::{Found, Scenario, connection, seconds};
use crate::cluster::{Cluster, Under};
use crate::load::Load;
use anyhow::ensure;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario {
        name: "clock",
        about: "one clock jumps a day ahead and one a day back, then they change places, then both are right again",
        nodes: 3,
        short: false,
        stale_reads: false,
        run: |cluster| Box::pin(off_by_a_day(cluster)),
    }]
}

const DAY_SECONDS: i64 = 86_400;

async fn off_by_a_day(cluster: &mut Cluster) -> anyhow::Result<Found> {
    for ordinal in [1, 2] {
        cluster.kill(ordinal)?;
        cluster.set_clock(ordinal, 0)?;
        cluster.spawn(ordinal, &Under::Clock)?;
    }
    cluster.settle().await?;
    // Each client writes at another node, also at those whose clocks are off; keys are read back everywhere.
    let load = Load::start(cluster, &[0, 1, 2]).await?;
    for (ahead, behind) in [(1, 2), (2, 1)] {
        seconds(1.0).await;
        cluster.set_clock(ahead, DAY_SECONDS)?;
        cluster.set_clock(behind, -DAY_SECONDS)?;
        seconds(2.0).await;
        for (ordinal, expected) in [(ahead, DAY_SECONDS), (behind, -DAY_SECONDS)] {
            let off = off_seconds(cluster, ordinal)?;
            ensure!(
                (off - expected).abs() < 60,
                "the clock of node {ordinal} is off by {off} s, not by {expected} s"
            );
        }
    }
    (1..3).try_for_each(|ordinal| cluster.set_clock(ordinal, 0))?;
    let outcome = load.judge(cluster).await?;
    ensure!(outcome.failed == 0, "{} requests failed, though nothing but clocks was wrong", outcome.failed);
    Ok(Found { outcome, note: String::new() })
}

/// By how much the clock of a node is off from this one's.
fn off_seconds(cluster: &Cluster, ordinal: usize) -> anyhow::Result<i64> {
    let (seconds, _): (String, String) = redis::cmd("TIME").query(&mut connection(cluster, ordinal)?)?;
    let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    Ok(seconds.parse::<i64>()? - i64::try_from(here)?)
}

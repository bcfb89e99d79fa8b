//! Clocks that are off by a day.

use super::{Found, Scenario, seconds};
use crate::cluster::{Cluster, Under};
use crate::load::Load;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario {
        name: "clock",
        about: "a node restarts with its clock a day ahead, then a day behind, then right, and takes writes meanwhile",
        nodes: 3,
        short: false,
        stale_reads: false,
        run: |cluster| Box::pin(off_by_a_day(cluster)),
    }]
}

async fn off_by_a_day(cluster: &mut Cluster) -> anyhow::Result<Found> {
    // Each client writes at another node, also at the one whose clock is off; keys are read back everywhere.
    let load = Load::start(cluster, &[0, 1, 2]).await?;
    for clock in [Under::Clock("+24h".to_owned()), Under::Clock("-24h".to_owned()), Under::Nothing] {
        seconds(1.0).await;
        cluster.kill(1)?;
        cluster.spawn(1, &clock)?;
        cluster.settle().await?;
        seconds(1.5).await;
    }
    Ok(Found { outcome: load.judge(cluster).await?, note: String::new() })
}

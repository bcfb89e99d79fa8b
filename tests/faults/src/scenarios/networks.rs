//! Networks that fall apart: in halves, one way, with a bridge between, and again and again.

use super::{Found, Scenario, seconds};
use crate::cluster::Cluster;
use crate::load::Load;
use anyhow::ensure;

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenario = |name, about, short, run| Scenario { name, about, nodes: 3, short, stale_reads: false, run };
    vec![
        scenario("halves", "one node is cut off from the two others for 5 s", true, |cluster| {
            Box::pin(cut(cluster, &[(2, 0), (2, 1), (0, 2), (1, 2)], 5.0))
        }),
        scenario("one-way", "nothing that one node sends to another arrives, for 5 s", false, |cluster| {
            Box::pin(cut(cluster, &[(0, 2)], 5.0))
        }),
        scenario("bridge", "two nodes see each other only through the third, for 5 s", false, |cluster| {
            Box::pin(cut(cluster, &[(0, 1), (1, 0)], 5.0))
        }),
        scenario("flapping", "one node is cut off and back, six times, a second each", false, |cluster| {
            Box::pin(flapping(cluster))
        }),
    ]
}

/// Between whom nothing arrives: (at whom, from whom).
fn cut_off(cluster: &Cluster, cuts: &[(usize, usize)]) -> anyhow::Result<()> {
    cuts.iter().try_for_each(|&(at, from)| cluster.nodes[at].net.refuse(&cluster.nodes[from].net.address))
}

fn heal(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.nodes.iter().try_for_each(|node| node.net.heal())
}

async fn cut(cluster: &mut Cluster, cuts: &[(usize, usize)], lasts: f64) -> anyhow::Result<Found> {
    let load = Load::start(cluster, &[0, 1]).await?;
    seconds(1.0).await;
    let before = load.longest_ms();
    cut_off(cluster, cuts)?;
    seconds(lasts).await;
    let during = load.longest_ms();
    heal(cluster)?;
    let outcome = load.judge(cluster).await?;
    ensure!(outcome.failed == 0, "{} requests failed at nodes that saw a quorum", outcome.failed);
    Ok(Found { outcome, note: format!("longest request {before:.0} ms before, {during:.0} ms during") })
}

async fn flapping(cluster: &mut Cluster) -> anyhow::Result<Found> {
    let load = Load::start(cluster, &[0, 1]).await?;
    for _ in 0..6 {
        cut_off(cluster, &[(2, 0), (2, 1), (0, 2), (1, 2)])?;
        seconds(1.0).await;
        heal(cluster)?;
        seconds(1.0).await;
    }
    let outcome = load.judge(cluster).await?;
    ensure!(outcome.failed == 0, "{} requests failed at nodes that saw a quorum", outcome.failed);
    Ok(Found { outcome, note: String::new() })
}

//! Disks that lose power, fail, fill up, are replaced, or go back in time.

use super::{Found, Scenario, connection, seconds};
use crate::cluster::{Cluster, Under};
use crate::load::{Load, Outcome};
use crate::plain;
use anyhow::{Context, ensure};
use std::collections::BTreeSet;

/// Power failures of each disk under the plain programs. Before they were stopped first, two to four of a hundred lost
/// something.
const PLAIN_TIMES: u32 = 60;

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenario = |name, about, short, run| Scenario { name, about, nodes: 3, short, stale_reads: false, run };
    let going_back = |name, about, run| Scenario { name, about, nodes: 3, short: false, stale_reads: true, run };
    vec![
        scenario("power-loss", "the power of one node fails, and comes back", false, |cluster| {
            Box::pin(power_lost(cluster, &[1]))
        }),
        scenario("power-loss-all", "the power of all nodes fails at once, and comes back", true, |cluster| {
            Box::pin(power_lost(cluster, &[0, 1, 2]))
        }),
        scenario(
            "power-loss-plain",
            "the same for programs that only append and sync, again and again: the suite's own yardstick",
            false,
            |cluster| Box::pin(plain_power_lost(cluster)),
        ),
        scenario("disk-gone", "the disk of a node is gone while it runs, and comes back", false, |cluster| {
            Box::pin(disk_gone(cluster))
        }),
        scenario("fsync-error", "every fdatasync of a node fails from some time on", true, |cluster| {
            Box::pin(sync_failed(cluster))
        }),
        scenario("kill-at-fsync", "kill -9 of a node within its 20th, 60th, 200th fdatasync", false, |cluster| {
            Box::pin(killed_at_sync(cluster))
        }),
        scenario("disk-full", "the disk of a node fills up, and is emptied", false, |cluster| {
            Box::pin(disk_filled(cluster))
        }),
        going_back(
            "lost-disk",
            "a node comes back with an empty disk: another incarnation, filled by the others",
            |cluster| Box::pin(disk_lost(cluster)),
        ),
        going_back("rolled-back-disk", "a node comes back with the disk of some time ago", |cluster| {
            Box::pin(disk_rolled_back(cluster))
        }),
    ]
}

async fn power_lost(cluster: &mut Cluster, ordinals: &[usize]) -> anyhow::Result<Found> {
    // Disks that take their time, so that there is much that is written and not yet synced when the power goes.
    let slow = Under::Strace("fdatasync:delay_enter=20000".to_owned());
    for ordinal in 0..3 {
        cluster.kill(ordinal)?;
        cluster.spawn(ordinal, &slow)?;
    }
    cluster.settle().await?;
    let load = Load::start(cluster, &[0, 1, 2]).await?;
    for _ in 0..2 {
        seconds(1.5).await;
        cluster.lose_power(ordinals)?;
        for &ordinal in ordinals {
            cluster.spawn(ordinal, &slow)?;
        }
        cluster.settle().await?;
    }
    Ok(Found { outcome: load.judge(cluster).await?, note: "each sync takes 20 ms longer".to_owned() })
}

/// No node has to do with what is lost here.
async fn plain_power_lost(cluster: &mut Cluster) -> anyhow::Result<Found> {
    let all = [0, 1, 2];
    all.iter().try_for_each(|&ordinal| cluster.kill(ordinal))?;
    let mut outcome = Outcome::default();
    for time in 0..PLAIN_TIMES {
        let outputs = all.map(|ordinal| cluster.spawn_plain(ordinal));
        // Now and then between two syncs, and now and then within one.
        seconds(0.1 + f64::from(time % 7) * 0.021).await;
        cluster.lose_power(&all)?;
        for (node, output) in cluster.nodes.iter().zip(outputs) {
            let (durable, syncs) = plain::said(output?)?;
            outcome.requests += syncs;
            outcome.acknowledged += 1;
            outcome.lost += u64::from(plain::records(&node.plain_file())? < durable);
        }
    }
    Ok(Found { outcome, note: "synced, and looked for after each power failure of each disk".to_owned() })
}

async fn disk_gone(cluster: &mut Cluster) -> anyhow::Result<Found> {
    let load = Load::start(cluster, &[0, 1]).await?;
    for _ in 0..2 {
        seconds(1.0).await;
        cluster.nodes[2].disk.lose_power()?;
        seconds(2.0).await;
        cluster.kill(2)?;
        cluster.nodes[2].disk.restore_power()?;
        cluster.spawn(2, &Under::Nothing)?;
        cluster.settle().await?;
    }
    let outcome = load.judge(cluster).await?;
    ensure!(outcome.failed == 0, "{} requests of the others' clients failed", outcome.failed);
    Ok(Found { outcome, note: String::new() })
}

async fn sync_failed(cluster: &mut Cluster) -> anyhow::Result<Found> {
    let load = Load::start(cluster, &[0, 1]).await?;
    cluster.kill(2)?;
    cluster.spawn(2, &Under::Strace("fdatasync:error=EIO:when=100+".to_owned()))?;
    seconds(5.0).await;
    // After a failed sync nobody knows what is on the disk: it is not to be asked again, and nothing to be acknowledged.
    let status = cluster.status(2).await;
    let note = match &status {
        Ok(_) => "the node goes on answering, and takes no writes".to_owned(),
        Err(_) => "the node has ended".to_owned(),
    };
    if status.is_ok() {
        let mut connection = connection(cluster, 2)?;
        let refused =
            redis::cmd("ANNULUS").arg("CONSISTENCY").arg(1).arg(1).arg("STRICT").query::<()>(&mut connection);
        refused.context("choosing w = 1")?;
        let written = redis::cmd("SET").arg("after-the-error").arg("x").query::<()>(&mut connection);
        let refused = written.is_err() || read_elsewhere(cluster, "after-the-error")?;
        ensure!(refused, "a node whose disk has failed has acknowledged a write by itself");
    }
    cluster.kill(2)?;
    cluster.spawn(2, &Under::Nothing)?;
    let outcome = load.judge(cluster).await?;
    ensure!(outcome.failed == 0, "{} requests of the others' clients failed", outcome.failed);
    Ok(Found { outcome, note })
}

/// Whether the others have a key: then it was they who took it.
fn read_elsewhere(cluster: &Cluster, key: &str) -> anyhow::Result<bool> {
    Ok(redis::cmd("GET").arg(key).query::<Option<String>>(&mut connection(cluster, 0)?)?.is_some())
}

async fn killed_at_sync(cluster: &mut Cluster) -> anyhow::Result<Found> {
    let load = Load::start(cluster, &[0, 1]).await?;
    for when in [20, 60, 200] {
        cluster.kill(2)?;
        cluster.spawn(2, &Under::Strace(format!("fdatasync:signal=KILL:when={when}")))?;
        cluster.ended(2).await?;
        cluster.spawn(2, &Under::Nothing)?;
        cluster.settle().await?;
    }
    let outcome = load.judge(cluster).await?;
    ensure!(outcome.failed == 0, "{} requests of the others' clients failed", outcome.failed);
    Ok(Found { outcome, note: String::new() })
}

async fn disk_filled(cluster: &mut Cluster) -> anyhow::Result<Found> {
    let load = Load::start(cluster, &[0, 1]).await?;
    seconds(1.0).await;
    // Less than the reserve.
    cluster.nodes[2].disk.fill_but(8)?;
    seconds(4.0).await;
    let mut connection = connection(cluster, 2)?;
    redis::cmd("ANNULUS").arg("CONSISTENCY").arg(1).arg(3).arg("STRICT").query::<()>(&mut connection)?;
    let refused = redis::cmd("SET").arg("while-full").arg("x").query::<()>(&mut connection);
    let said = refused.err().context("a write to all three was acknowledged, of which one is full")?.to_string();
    cluster.nodes[2].disk.make_room()?;
    let outcome = load.judge(cluster).await?;
    ensure!(outcome.failed == 0, "{} requests of the others' clients failed", outcome.failed);
    Ok(Found { outcome, note: format!("w = 3, strict, while it was full: {said}") })
}

async fn disk_lost(cluster: &mut Cluster) -> anyhow::Result<Found> {
    let load = Load::start(cluster, &[0, 1]).await?;
    let before = incarnations(cluster)?;
    cluster.kill(2)?;
    cluster.nodes[2].disk.replace()?;
    cluster.spawn(2, &Under::Nothing)?;
    cluster.settle().await?;
    let after = incarnations(cluster)?;
    ensure!(before.intersection(&after).count() == 2 && after.len() == 3, "the node came back as the same one");
    let outcome = load.judge(cluster).await?;
    ensure!(outcome.failed == 0, "{} requests of the others' clients failed", outcome.failed);
    Ok(Found { outcome, note: "under another incarnation".to_owned() })
}

fn incarnations(cluster: &Cluster) -> anyhow::Result<BTreeSet<uuid::Uuid>> {
    Ok(cluster.published()?.members.iter().map(|member| member.incarnation).collect())
}

async fn disk_rolled_back(cluster: &mut Cluster) -> anyhow::Result<Found> {
    // Its own clients, so that it is the coordinator and gives dots of its own, before and after.
    let load = Load::start(cluster, &[2]).await?;
    seconds(1.0).await;
    cluster.kill(2)?;
    cluster.nodes[2].disk.snapshot()?;
    cluster.spawn(2, &Under::Nothing)?;
    cluster.settle().await?;
    seconds(2.0).await;
    cluster.kill(2)?;
    cluster.nodes[2].disk.roll_back()?;
    cluster.spawn(2, &Under::Nothing)?;
    cluster.settle().await?;
    seconds(2.0).await;
    Ok(Found { outcome: load.judge(cluster).await?, note: "two seconds of its own writes forgotten".to_owned() })
}

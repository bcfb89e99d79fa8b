//! What goes wrong, one kind after the other, while clients write and read.

mod clocks;
mod disks;
mod dots;
mod networks;
mod processes;

use crate::cluster::Cluster;
use crate::load::Outcome;
use std::pin::Pin;
use std::time::Duration;

/// What a scenario found.
pub struct Found {
    /// What became of the clients' requests.
    pub outcome: Outcome,
    /// What else it measured, for people.
    pub note: String,
}

type Run = for<'a> fn(&'a mut Cluster) -> Pin<Box<dyn Future<Output = anyhow::Result<Found>> + 'a>>;

/// One kind of fault.
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// What happens.
    pub about: &'static str,
    /// Nodes of the ring.
    pub nodes: usize,
    /// Whether it is in the short set.
    pub short: bool,
    /// Whether reads may miss what was acknowledged while the fault lasts: fallbacks stood in for holders, or a holder has
    /// lost what it had.
    pub stale_reads: bool,
    /// What is done.
    pub run: Run,
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let data = [disks::scenarios(), dots::scenarios()];
    let kinds = [processes::scenarios(), networks::scenarios(), clocks::scenarios()].into_iter().chain(data);
    kinds.flatten().collect()
}

async fn seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

fn connection(cluster: &Cluster, ordinal: usize) -> anyhow::Result<redis::Connection> {
    let address = cluster.addresses(&[ordinal]).remove(0);
    Ok(redis::Client::open(format!("redis://{address}/"))?.get_connection()?)
}

//! A host that is gone for good, with the volume that was on it.

use crate::harness::{Failures, LIMIT, clean_up, cluster, load, verify};
use crate::hosts;
use anyhow::ensure;
use std::time::Instant;

#[tokio::test]
#[ignore = "needs a Kubernetes: make e2e"]
async fn a_node_whose_host_is_gone_is_made_anew_from_the_others() -> anyhow::Result<()> {
    if !hosts::can_be_lost() {
        return Ok(());
    }
    let kvc = cluster("replacement", 4, "replaceAfter: 10s").await?;
    // Four nodes on three hosts: with one of them go two nodes, and of some items two of the three replicas. The
    // operator may be on it as well, and has to come back elsewhere first.
    let (host, lost) = hosts::most_crowded(&kvc).await?;
    ensure!(lost.len() == 2, "{host} has {lost:?}; pods are to be spread over hosts");
    let before = kvc.ring().await?;
    let (addresses, workload) = load(&kvc).await?;
    let begun = Instant::now();
    hosts::lose(&host).await?;
    let replaced = hosts::until_replaced(&kvc, &lost, &before).await;
    let settled = match replaced {
        Ok(()) => kvc.settled(4, LIMIT).await.map(drop),
        Err(error) => Err(error),
    };
    println!("{lost:?} of {host} made anew after {:.1} s", begun.elapsed().as_secs_f64());
    hosts::start(&host).await?;
    settled?;
    verify(&addresses, workload, Failures::Some).await?;
    clean_up(&kvc).await
}

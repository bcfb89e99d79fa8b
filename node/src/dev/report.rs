//! `dev scale` and `dev status`: telling a running ring what is wanted, and people what it does.

use super::files::{Directory, Status, Wish};
use anyhow::bail;
use std::time::Duration;

/// Writes the wish and, unless told otherwise, waits until the ring has followed it.
pub async fn scale(directory: &Directory, nodes: usize, n: Option<u8>, no_wait: bool) -> anyhow::Result<()> {
    let Some(before) = directory.status()?.wish else { bail!("the ring has not begun yet") };
    let wish = Wish { nodes, n: n.unwrap_or(before.n) };
    if wish.n == 0 || nodes < usize::from(wish.n) {
        bail!("{nodes} nodes cannot hold {} replicas of each item", wish.n);
    }
    directory.set_wish(wish)?;
    println!("{} -> {nodes} nodes, n = {}", before.nodes, wish.n);
    if no_wait {
        return Ok(());
    }
    let (mut last, mut waited) = (String::new(), 0);
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let status = directory.status()?;
        if status.wish != Some(wish) {
            waited += 1;
            if waited > 100 {
                bail!("the ring does not follow: it still wants {:?}; does its supervisor run?", status.wish);
            }
            continue;
        }
        let now = progress(&status);
        if now != last {
            println!("{now}");
            last = now;
        }
        if status.settled {
            return Ok(());
        }
    }
}

/// Prints the nodes and what moves.
pub fn status(directory: &Directory, json: bool) -> anyhow::Result<()> {
    let status = directory.status()?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(());
    }
    println!("{}", progress(&status));
    println!("node            pid resp               epoch       keys          bytes   hints partitions");
    for node in &status.nodes {
        let pid = node.pid.map_or_else(|| String::from("-"), |pid| pid.to_string());
        let epoch = if node.answers { node.epoch.to_string() } else { String::from("silent") };
        println!(
            "{:<10} {pid:>8} {:<16} {epoch:>7} {:>10} {:>14} {:>7} {:>10}",
            node.name, node.resp, node.keys, node.bytes, node.hints, node.listed_partitions
        );
    }
    Ok(())
}

fn progress(status: &Status) -> String {
    let Status { epoch, partitions_left, filling, retiring, bytes_moved, bytes_minimum, .. } = status;
    let state = if status.settled { "settled" } else { "moving" };
    let mut line = format!(
        "epoch {epoch}: {state}, {partitions_left} partitions left ({filling} filling, {retiring} retiring), \
         {bytes_moved} bytes moved of at least {bytes_minimum}"
    );
    if !status.waiting.is_empty() {
        line.push_str("; waits for: ");
        line.push_str(&status.waiting.join(", "));
    }
    line
}

//! Text for people, from a resource or a ring. Pure.

use anyhow::Context;
use dynamo::moves;
use dynamo::preference::MemberIndex;
use dynamo::ring::{MemberState, Phase, Ring, RingView};
use dynamo::token;
use kube::api::DynamicObject;
use std::fmt::Write;

/// How the cluster is, and what waits.
pub fn status(resource: &DynamicObject) -> String {
    let status = &resource.data["status"];
    let word = |path: &str| status.pointer(path).map_or_else(|| String::from("-"), plain);
    let name = resource.metadata.name.as_deref().unwrap_or("?");
    let mut text = format!(
        "{name}: {}, {}/{} nodes ready, ring epoch {} with {} members",
        word("/phase"),
        word("/readyReplicas"),
        plain(&resource.data["spec"]["replicas"]),
        word("/ring/epoch"),
        word("/ring/members")
    );
    if let Some(rebalance) = status.get("rebalance").filter(|rebalance| !rebalance.is_null()) {
        let number = |key: &str| rebalance[key].as_i64().unwrap_or(0);
        let _ = write!(
            text,
            "\nrebalance {} -> {} nodes: {} partitions left, {} of {} bytes moved (at least {}), eta {}\n{}",
            number("from"),
            number("to"),
            number("partitionsLeft"),
            number("bytesMoved"),
            number("bytesTotal"),
            number("bytesMinimum"),
            rebalance.get("eta").map_or_else(|| String::from("-"), plain),
            bar(number("bytesMoved"), number("bytesTotal"))
        );
    }
    for waiting in status["waiting"].as_array().into_iter().flatten() {
        let _ = write!(text, "\nwaits: {}", plain(waiting));
    }
    text
}

/// Members, and what each owns and holds.
pub fn ring(ring: &Ring) -> String {
    let q = &ring.quorums;
    let mut text = format!(
        "epoch {}, {} partitions, n = {}, r = {}, w = {}, {}\n{:<24} {:<8} {:<12} {:>6} {:>6}  address",
        ring.epoch,
        ring.partitions.len(),
        q.n,
        q.r,
        q.w,
        if q.sloppy { "sloppy" } else { "strict" },
        "member",
        "state",
        "zone",
        "owns",
        "holds"
    );
    let owners = ring.owners();
    for member in &ring.members {
        let state = match member.state {
            MemberState::Joining => "joining",
            MemberState::Active => "active",
            MemberState::Leaving => "leaving",
        };
        let owns = owners.iter().filter(|&&owner| owner == member.index).count();
        let (zone, holds) = (member.zone.as_deref().unwrap_or("-"), ring.listed(member.index));
        let (name, address) = (&member.name, &member.client_address);
        let _ = write!(text, "\n{name:<24} {state:<8} {zone:<12} {owns:>6} {holds:>6}  {address}");
    }
    text
}

/// Partitions under way.
pub fn moves(ring: &Ring) -> String {
    let progress = moves::progress(ring);
    let mut text = format!(
        "{} of {} partitions to move ({} filling, {} retiring)",
        progress.left, progress.partitions, progress.filling, progress.retiring
    );
    for (partition, placement) in ring.partitions.iter().enumerate() {
        let Some(also) = &placement.also else { continue };
        let (here, other) = (names(ring, &placement.preference), names(ring, &also.list));
        let since = placement.since;
        let _ = match also.phase {
            Phase::Filling => write!(text, "\n{partition:>6}  filling   {here}  ->  {other}  since epoch {since}"),
            Phase::Retiring => {
                write!(text, "\n{partition:>6}  retiring  {other}  ->  {here}  since epoch {since}")
            }
        };
    }
    text
}

/// Where a key lives.
pub fn whereabouts(ring: Ring, key: &str) -> anyhow::Result<String> {
    let view = RingView::new(ring).context("the ring document is damaged")?;
    let token = view.token(key.as_bytes());
    let partition = view.partition(token);
    let placement = view.placement(partition).context("the ring document is damaged")?;
    let mut text = format!(
        "slot {}, token {:#018x}, partition {partition}\npreference list: {}",
        token::slot(key.as_bytes()),
        token.0,
        names(view.ring(), &placement.preference)
    );
    if let Some(also) = &placement.also {
        let _ = write!(text, "\nmoving, also written to: {}", names(view.ring(), &also.list));
    }
    let fallbacks = view.fallbacks(partition);
    let _ = write!(text, "\nfallbacks: {}", names(view.ring(), &fallbacks));
    Ok(text)
}

fn names(ring: &Ring, list: &[MemberIndex]) -> String {
    let name = |&index: &MemberIndex| ring.member(index).map_or_else(|| index.to_string(), |m| m.name.clone());
    let names: Vec<String> = list.iter().map(name).collect();
    if names.is_empty() { String::from("-") } else { names.join(", ") }
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A bar of forty characters.
fn bar(done: i64, total: i64) -> String {
    let filled = usize::try_from(done.saturating_mul(40) / total.max(1)).unwrap_or(0).min(40);
    format!("[{}{}]", "#".repeat(filled), ".".repeat(40 - filled))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_tells_what_moves_and_what_waits() {
        let resource: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "annulus.dev/v1alpha1", "kind": "KeyValueCluster", "metadata": {"name": "demo"},
            "spec": {"replicas": 5},
            "status": {
                "phase": "Rebalancing", "readyReplicas": 5, "ring": {"epoch": 7, "members": 5},
                "rebalance": {"from": 3, "to": 5, "partitionsLeft": 12, "bytesMoved": 50, "bytesTotal": 100,
                              "bytesMinimum": 100, "eta": "3s"},
                "waiting": ["demo-4 copies 12 partitions"],
            },
        }))
        .unwrap();
        let text = status(&resource);
        assert!(text.starts_with("demo: Rebalancing, 5/5 nodes ready, ring epoch 7 with 5 members"), "{text}");
        assert!(text.contains("3 -> 5 nodes: 12 partitions left, 50 of 100 bytes moved"), "{text}");
        assert!(text.contains("[####################....................]"), "{text}");
        assert!(text.ends_with("waits: demo-4 copies 12 partitions"), "{text}");
    }
}

//! What a cluster is doing and why, in sentences. Pure.

use dynamo::ring::{MemberState, Phase, Ring};
use kube::api::DynamicObject;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Newest events shown.
const EVENTS_MAX: usize = 8;

/// Something that the operator has told.
pub struct Told {
    /// When, as it was written.
    pub at: String,
    /// `Normal` or `Warning`.
    pub kind: String,
    /// One word.
    pub reason: String,
    /// The sentence.
    pub message: String,
}

/// What is wanted, what is, what differs, and what each difference waits for.
pub fn explain(resource: &DynamicObject, ring: Option<&Ring>, told: &[Told]) -> String {
    let (spec, status) = (&resource.data["spec"], &resource.data["status"]);
    let name = resource.metadata.name.as_deref().unwrap_or("?");
    let phase = status["phase"].as_str().unwrap_or("Pending");
    let mut text = format!("{name} is {phase}: {}.", meaning(phase));
    if resource.metadata.generation != status["observedGeneration"].as_i64() {
        text.push_str("\nThe operator has yet to look at the spec as it is now; if this stays, does it run?");
    }
    wishes(&mut text, spec, status, ring);
    if let Some(ring) = ring {
        members(&mut text, ring);
    }
    let waits: Vec<&str> = status["waiting"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !waits.is_empty() {
        text.push_str("\n\nIt waits for:");
        for reason in waits {
            let _ = write!(text, "\n  - {reason}");
        }
    }
    for condition in status["conditions"].as_array().into_iter().flatten() {
        // What is as it should be needs no explanation.
        let (kind, holds) = (&condition["type"], condition["status"] == "True");
        let good = kind == "Available" || kind == "Valid";
        if holds != good {
            let message = condition["message"].as_str().unwrap_or_default();
            let _ = write!(text, "\n\n{}: {message}", kind.as_str().unwrap_or("?"));
        }
    }
    if !told.is_empty() {
        text.push_str("\n\nLately:");
        for Told { at, kind, reason, message } in told.iter().rev().take(EVENTS_MAX).rev() {
            let _ = write!(text, "\n  {at}  {kind:<7} {reason}: {message}");
        }
    }
    text
}

/// What a phase means.
fn meaning(phase: &str) -> &'static str {
    match phase {
        "Running" => "everything is as the spec says",
        "Creating" => "its first nodes start, and its ring is made once they have all answered",
        "Updating" => "pods or objects are being made as the spec says; data does not move",
        "Rebalancing" => "data moves to where the ring wants it, while reads and writes go on",
        "Degraded" => "something that it needs is away; reads and writes go on where there are replicas enough",
        "Paused" => "spec.paused is set: the operator watches and changes nothing",
        _ => "the operator has not begun with it",
    }
}

fn wishes(text: &mut String, spec: &Value, status: &Value, ring: Option<&Ring>) {
    let replicas = spec["replicas"].as_i64().unwrap_or(3);
    let n = spec["replicationFactor"].as_i64();
    let ready = status["readyReplicas"].as_i64().unwrap_or(0);
    let _ = write!(text, "\nIt is to have {replicas} nodes");
    if let Some(n) = n {
        let _ = write!(text, ", and each item at n = {n} of them");
    }
    let _ = write!(text, ". {ready} are ready");
    match ring {
        None => text.push_str("; there is no ring yet."),
        Some(ring) => {
            let (n, members) = (ring.quorums.n, ring.members.len());
            let _ = write!(text, "; the ring, at epoch {}, has {members} members and n = {n}.", ring.epoch);
        }
    }
}

/// Who is on the way in or out, and how many partitions are under way with each.
fn members(text: &mut String, ring: &Ring) {
    let mut moving: BTreeMap<_, (usize, usize)> = BTreeMap::new();
    for placement in &ring.partitions {
        let Some(also) = &placement.also else { continue };
        let (new, old) = match also.phase {
            Phase::Filling => (&also.list, &placement.preference),
            Phase::Retiring => (&placement.preference, &also.list),
        };
        new.iter()
            .filter(|member| !old.contains(member))
            .for_each(|member| moving.entry(*member).or_default().0 += 1);
        old.iter()
            .filter(|member| !new.contains(member))
            .for_each(|member| moving.entry(*member).or_default().1 += 1);
    }
    for member in &ring.members {
        let (fills, retires) = moving.get(&member.index).copied().unwrap_or_default();
        let state = match member.state {
            MemberState::Joining => "joins",
            MemberState::Active => "stays",
            MemberState::Leaving => "leaves",
        };
        if member.state != MemberState::Active || fills + retires > 0 {
            let holds = ring.listed(member.index);
            let _ = write!(
                text,
                "\n  {} {state}: holds {holds} partitions, of which {fills} come to it and {retires} go from it now",
                member.name
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resource(status: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "annulus.dev/v1alpha1", "kind": "KeyValueCluster",
            "metadata": {"name": "demo", "generation": 4},
            "spec": {"replicas": 2, "replicationFactor": 3}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn what_waits_and_what_is_wrong_is_told_and_what_is_well_is_not() {
        let status = json!({
            "phase": "Degraded", "observedGeneration": 4, "readyReplicas": 1, "waiting": ["demo-1 has not answered"],
            "conditions": [
                {"type": "Available", "status": "True", "message": "every partition has its quorums"},
                {"type": "Degraded", "status": "True", "message": "demo-1 does not answer"},
                {"type": "Progressing", "status": "False", "message": "nothing to do"},
            ],
        });
        let told = |number: usize| Told {
            at: format!("10:0{number}"),
            kind: String::from("Normal"),
            reason: String::from("Scaled"),
            message: format!("number {number}"),
        };
        let text = explain(&resource(status), None, &(0..10).map(told).collect::<Vec<_>>());
        assert!(text.starts_with("demo is Degraded: something that it needs is away"), "{text}");
        assert!(text.contains("to have 2 nodes, and each item at n = 3"), "{text}");
        assert!(text.contains("It waits for:\n  - demo-1 has not answered"), "{text}");
        assert!(text.contains("Degraded: demo-1 does not answer"), "{text}");
        assert!(!text.contains("every partition has its quorums") && !text.contains("nothing to do"), "{text}");
        assert!(text.contains("number 2") && text.ends_with("number 9") && !text.contains("number 1"), "{text}");
    }

    #[test]
    fn a_spec_that_nobody_has_looked_at_is_told() {
        let text = explain(&resource(json!({"phase": "Running", "observedGeneration": 3})), None, &[]);
        assert!(text.contains("does it run?"), "{text}");
    }
}

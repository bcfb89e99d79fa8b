//! Specs that follow each other at random, valid and not, some while the last is still being worked on: each is carried out
//! or refused, and going back always works. After Acto (Gu et al., SOSP 2023).

use super::fate::Fate;
use super::stage::Stage;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::time::Instant;

const TRANSITIONS: u32 = 220;
/// Every so many, the cluster goes back to where it began.
const REVERT_EVERY: u32 = 20;

/// A change of one or two members of the spec. Whether it is valid depends on the others.
fn change(rng: &mut StdRng) -> Value {
    let mut spec = member(rng);
    if rng.random_bool(0.3) {
        let more = member(rng);
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }
    spec
}

fn member(rng: &mut StdRng) -> Value {
    match rng.random_range(0..16) {
        0..=3 => json!({"replicas": rng.random_range(0..8)}),
        4..=5 => json!({"replicationFactor": rng.random_range(0..7)}),
        6 => json!({"consistency": {"read": rng.random_range(0..5), "write": rng.random_range(1..5)}}),
        7 => json!({"consistency": null}),
        8 => json!({"partitions": (one_of(rng, &[8, 16, 32, 33, 64]))}),
        9 => json!({"storage": {"size": (one_of(rng, &["512Mi", "1Gi", "big", ""]))}}),
        10 => json!({"storage": {"onScaleIn": (one_of(rng, &["Retain", "Delete", "Keep"]))}}),
        11 => json!({"image": (one_of(rng, &[Some("node:a"), Some("node:b"), Some(""), None]))}),
        12 => json!({"podTemplate": {"annotations": {"restarted": rng.random_range(0..9).to_string()}}}),
        13 => json!({"rebalance": {"parallelMoves": rng.random_range(-1..40)}}),
        14 => json!({"replaceAfter": (one_of(rng, &["30m", "1s", "soon", "1h30m"]))}),
        _ => json!({"networkPolicy": rng.random_bool(0.5)}),
    }
}

fn one_of<T: Copy>(rng: &mut StdRng, values: &[T]) -> T {
    values[rng.random_range(0..values.len())]
}

fn baseline() -> Value {
    json!({
        "replicas": 3, "replicationFactor": 3, "consistency": null, "image": null, "networkPolicy": false,
        "replaceAfter": null, "storage": {"size": "1Gi", "onScaleIn": "Delete"}, "rebalance": {"parallelMoves": 64},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs KUBECONFIG to name an API server with the CRD applied"]
async fn generated_specs_are_carried_out_or_refused() {
    let mut rng = StdRng::seed_from_u64(2023);
    let mut stage = Stage::new().await;
    stage.create(json!({})).await;
    stage.operate(&Fate::kind()).await;
    stage.settled().await;
    let (mut accepted, mut refused, started) = (0, 0, Instant::now());
    for step in 1..=TRANSITIONS {
        let wish = change(&mut rng);
        match stage.patch(wish.clone()).await {
            Ok(_) => accepted += 1,
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
                assert!(
                    status.message.contains("spec"),
                    "{wish} is refused without saying why: {}",
                    status.message
                );
                refused += 1;
            }
            Err(error) => panic!("{wish}: {error}"),
        }
        if step % REVERT_EVERY == 0 {
            stage.patch(baseline()).await.unwrap();
            stage.settled().await;
        } else if rng.random_bool(0.4) {
            // The rest is overtaken by the next.
            stage.settled().await;
        }
    }
    println!(
        "{TRANSITIONS} transitions, {accepted} accepted, {refused} refused, {:.0} s",
        started.elapsed().as_secs_f64()
    );
    assert!(accepted > 80 && refused > 30, "{accepted} accepted, {refused} refused");
    stage.end().await;
}

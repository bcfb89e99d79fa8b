//! The operator dies after any of its writes, is refused and misunderstood, or acts twice: the same end, and nothing goes
//! without proof.

use super::fate::Fate;
use super::stage::{NAME, Stage};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use std::time::Instant;

/// There and back, so that each can be done again and again, and after how many writes each time one more is made before
/// the operator dies.
fn transitions() -> [(&'static str, Value, Value, usize); 4] {
    [
        ("scale 3 <-> 4, volumes deleted", json!({"replicas": 4}), json!({"replicas": 3}), 1),
        ("n 3 <-> 2", json!({"replicationFactor": 2}), json!({"replicationFactor": 3}), 1),
        ("another image and back", json!({"image": "node:2"}), json!({"image": "node:3"}), 1),
        (
            "scale and n at once",
            json!({"replicas": 5, "replicationFactor": 5}),
            json!({"replicas": 3, "replicationFactor": 3}),
            3,
        ),
    ]
}

/// One transition with an operator that dies after so many writes, finished by another. Returns the writes of the first.
async fn interrupted(stage: &mut Stage, wish: &Value, writes: u64) -> u64 {
    let fate = Fate::dies_after(writes);
    stage.operate(&fate).await;
    stage.patch(wish.clone()).await.unwrap();
    tokio::select! {
        () = fate.died() => {}
        () = stage.settled() => {}
    }
    stage.kill_operators().await;
    stage.operate(&Fate::kind()).await;
    stage.settled().await;
    stage.kill_operators().await;
    fate.writes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs KUBECONFIG to name an API server with the CRD applied"]
async fn an_operator_that_dies_after_any_write_is_replaced_by_one_that_goes_on() {
    let mut stage = Stage::new().await;
    stage.create(json!({})).await;
    stage.operate(&Fate::kind()).await;
    stage.settled().await;
    stage.kill_operators().await;
    for (what, there, back, stride) in transitions() {
        let started = Instant::now();
        let mut deaths = 0;
        for writes in (1..).step_by(stride) {
            let made = interrupted(&mut stage, &there, writes).await;
            let made_back = interrupted(&mut stage, &back, writes).await;
            // Neither got as far as that: there is no further write to die after.
            if made < writes && made_back < writes {
                break;
            }
            deaths += u64::from(made >= writes) + u64::from(made_back >= writes);
        }
        println!("{what}: {deaths} deaths, {:.0} s", started.elapsed().as_secs_f64());
        assert!(deaths > 8, "{what} hardly writes anything");
    }
    stage.operate(&Fate::kind()).await;
    stage.end().await;
}

/// The cluster is made by operators that die, and its ring is lost on the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs KUBECONFIG to name an API server with the CRD applied"]
async fn a_cluster_is_made_and_its_ring_restored_by_operators_that_die() {
    for writes in 1.. {
        let mut stage = Stage::new().await;
        let fate = Fate::dies_after(writes);
        stage.operate(&fate).await;
        stage.create(json!({})).await;
        tokio::select! {
            () = fate.died() => {}
            () = stage.settled() => {}
        }
        stage.kill_operators().await;
        stage.operate(&Fate::kind()).await;
        stage.settled().await;
        let rings = stage.api::<ConfigMap>();
        let ring = format!("{NAME}-ring");
        let before = rings.get(&ring).await.unwrap().data;
        rings.delete(&ring, &DeleteParams::default()).await.unwrap();
        stage.eventually("the ring's return", async || rings.get_opt(&ring).await.unwrap().is_some()).await;
        assert_eq!(rings.get(&ring).await.unwrap().data, before, "another ring");
        let made = fate.writes();
        stage.end().await;
        if made < writes {
            println!("a cluster is made: {} deaths", writes - 1);
            assert!(writes > 8, "making a cluster hardly writes anything");
            return;
        }
    }
}

/// A tenth of all requests fails, for both of two operators that act at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs KUBECONFIG to name an API server with the CRD applied"]
async fn two_operators_and_an_unreliable_api_server() {
    let mut stage = Stage::new().await;
    stage.create(json!({})).await;
    let (one, other) = (Fate::unreliable(1, 0.1), Fate::unreliable(2, 0.1));
    stage.operate(&one).await;
    stage.operate(&other).await;
    stage.settled().await;
    for (what, there, back, _) in transitions() {
        let started = Instant::now();
        for wish in [&there, &back] {
            stage.patch(wish.clone()).await.unwrap();
            stage.settled().await;
        }
        println!(
            "{what}: {:.0} s, {} and {} writes",
            started.elapsed().as_secs_f64(),
            one.writes(),
            other.writes()
        );
    }
    assert!(one.writes() > 20 && other.writes() > 20, "one of them hardly acted");
    stage.end().await;
}

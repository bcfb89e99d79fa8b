//! How often the operator looks at everything.

use super::fate::Fate;
use super::stage::Stage;
use serde_json::json;
use std::time::{Duration, Instant};

/// Long enough for the API server to tell of what was just written.
const BEAT: Duration = Duration::from_millis(300);
/// Rounds that are not an epoch's: the first of a wish, the last which find nothing to do, and those that time brings about.
const OTHERS: u64 = 5;

/// Only what moves nothing but lists is looked at: no pod comes or goes, and each would bring rounds about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs KUBECONFIG to name an API server with the CRD applied"]
async fn each_epoch_is_one_round() {
    let mut stage = Stage::new().await;
    let fate = Fate::kind();
    stage.operate_with(&fate, BEAT).await;
    stage.create(json!({"partitions": 64, "rebalance": {"parallelMoves": 8}})).await;
    stage.settled().await;
    for (n, beside_clients) in [(2, None), (3, Some(1 << 20))] {
        stage.nodes.lock().unwrap().have_clients(beside_clients);
        let epoch = async || stage.status().await.ring.unwrap().epoch.unsigned_abs();
        let (epoch_before, rounds_before, began) = (epoch().await, fate.rounds(), Instant::now());
        stage.patch(json!({"replicationFactor": n})).await.unwrap();
        stage.settled().await;
        let (epochs, rounds) = (epoch().await - epoch_before, fate.rounds() - rounds_before);
        println!("n = {n}: {epochs} epochs, {rounds} rounds, {:?}", began.elapsed());
        assert!(epochs > 2 * OTHERS, "too few to tell by");
        assert!(rounds <= epochs + OTHERS, "{rounds} rounds for {epochs} epochs");
        let between = u32::try_from(epochs - 1).unwrap();
        let least = BEAT * between * if beside_clients.is_some() { 3 } else { 1 };
        assert!(began.elapsed() >= least, "{epochs} epochs in less than {least:?}");
    }
    stage.end().await;
}

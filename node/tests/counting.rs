//! What a node counts stays true when commits fail.

#![allow(clippy::unwrap_used, reason = "tests may panic, in functions that tests share too")]

use annulus_node::config::Limits;
use annulus_node::node::overlays;
use annulus_node::replica::{HeldHint, Hints, Overlay, Parts, Replica, storage_key};
use annulus_node::ring_state::RingState;
use annulus_node::storage::{Births, Change, Committer, Engine, MemoryEngine, Space};
use bytes::Bytes;
use dynamo::hlc::Hlc;
use dynamo::object::{Actor, Object, Payload, Value};
use dynamo::token::Token;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

fn object(birth: u64) -> Bytes {
    let payload = Payload::Bytes(Bytes::from_static(b"value"));
    let value = Value { timestamp: Hlc::from_wall(1), expires_at_ms: None, payload };
    Object::default().overwrite(Actor { incarnation: 1, birth }, value).encode()
}

fn hints() -> (Arc<MemoryEngine>, Hints) {
    let engine = Arc::new(MemoryEngine::new());
    let overlay = Overlay::new(Space::Hints, 0);
    let committer = {
        let overlay = overlay.clone();
        Committer::inline(engine.clone(), &Limits::default(), Duration::from_millis(1), move |changes, stored| {
            overlay.committed(changes, stored.is_ok());
        })
    };
    let hints = Hints::open(engine.clone(), committer, overlay, &Limits::default()).unwrap();
    (engine, hints)
}

/// Holds a hint and says whether it became durable.
async fn hold(hints: &Hints, object: Bytes) -> bool {
    let held = hints.hold(Uuid::nil(), Token(7), b"key", object).await.unwrap();
    held.unwrap().await.is_ok()
}

fn only(hints: &Hints) -> HeldHint {
    assert!(hints.targets().into_iter().eq([Uuid::nil()]));
    let mut page = hints.page(Uuid::nil(), None, 10).unwrap();
    assert!(page.next.is_none() && page.hints.len() == 1);
    page.hints.remove(0)
}

#[tokio::test]
async fn hints_whose_commit_failed_are_not_counted() {
    let (engine, hints) = hints();
    engine.fail_commits(1);
    assert!(!hold(&hints, object(1)).await);
    assert_eq!(hints.held(), (0, 0), "nothing is held, so the node owes nobody anything");
    assert!(hints.targets().is_empty());
    assert!(hold(&hints, object(1)).await);
    let held = hints.held();
    assert_eq!(held.0, 1);

    // A newer one in its place fails: the older one is still there.
    engine.fail_commits(1);
    assert!(!hold(&hints, object(2)).await);
    assert_eq!(hints.held(), held);

    // So does its removal.
    engine.fail_commits(1);
    assert!(hints.delivered(&[only(&hints)]).await.is_err());
    assert_eq!(hints.held(), held);
    hints.delivered(&[only(&hints)]).await.unwrap();
    assert_eq!(hints.held(), (0, 0));
    assert!(hints.targets().is_empty());
}

#[tokio::test]
async fn several_changes_of_a_hint_in_one_failed_commit_are_corrected_once() {
    let (engine, hints) = hints();
    engine.fail_commits(1);
    let (first, second) = tokio::join!(hold(&hints, object(1)), hold(&hints, object(2)));
    assert!(!first && !second);
    assert_eq!(hints.held(), (0, 0));
}

fn replica(engine: &Arc<MemoryEngine>) -> (Replica, Committer) {
    let (overlays, limits) = (overlays(), Limits::default());
    let told = overlays.clone();
    let committer =
        Committer::inline(engine.clone(), &limits, Duration::from_millis(1), move |changes, stored| {
            told.data.committed(changes, stored.is_ok());
        });
    let ring = RingState::open(Uuid::nil(), Uuid::nil(), engine.as_ref(), committer.clone()).unwrap();
    let parts = Parts {
        engine: engine.clone(),
        committer: committer.clone(),
        overlays,
        ring: Arc::new(ring),
        births: Births::open(engine.clone(), 1).unwrap(),
        wall: Arc::new(|| 1),
    };
    (Replica::open(parts, &limits).unwrap(), committer)
}

#[tokio::test]
async fn counts_outlive_a_clean_stop_and_are_made_anew_after_any_other() {
    let engine = Arc::new(MemoryEngine::new());
    let put = |number: u64| Change::Put {
        space: Space::Data,
        key: storage_key(Token(number << 40), b"key"),
        value: object(number),
    };
    engine.commit(&(0..100).map(put).collect::<Vec<_>>()).unwrap();
    let scans = || engine.scanned(Space::Data).scans;

    let (first, committer) = replica(&engine);
    let total = first.counters().total();
    assert!(total.items == 100 && scans() == 1);
    committer.close().await;
    assert!(first.keep_counts().unwrap());

    let (second, committer) = replica(&engine);
    assert_eq!((second.counters().total(), scans()), (total, 1), "kept");
    assert!(second.leaves().sums(0..65536).eq(first.leaves().sums(0..65536)));

    // It crashes; what was kept before says nothing of what it has written since.
    drop((second, committer));
    engine.commit(&[put(1000)]).unwrap();
    let (third, committer) = replica(&engine);
    assert_eq!((third.counters().total().items, scans()), (101, 2), "counted anew");

    committer.close().await;
    assert!(third.keep_counts().unwrap());
}

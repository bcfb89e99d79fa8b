//! What a node counts stays true when commits fail.

#![allow(clippy::unwrap_used, reason = "tests may panic, in functions that tests share too")]

use annulus_node::config::Limits;
use annulus_node::replica::{HeldHint, Hints, Overlay};
use annulus_node::storage::{Committer, MemoryEngine, Space};
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
    let (mut page, more) = hints.page(None, 10).unwrap();
    assert!(!more && page.len() == 1);
    page.remove(0).1
}

#[tokio::test]
async fn hints_whose_commit_failed_are_not_counted() {
    let (engine, hints) = hints();
    engine.fail_commits(1);
    assert!(!hold(&hints, object(1)).await);
    assert_eq!(hints.held(), (0, 0), "nothing is held, so the node owes nobody anything");
    assert!(hold(&hints, object(1)).await);
    let held = hints.held();
    assert_eq!(held.0, 1);

    // A newer one in its place fails: the older one is still there.
    engine.fail_commits(1);
    assert!(!hold(&hints, object(2)).await);
    assert_eq!(hints.held(), held);

    // So does its removal.
    engine.fail_commits(1);
    assert!(hints.delivered(&only(&hints)).await.is_err());
    assert_eq!(hints.held(), held);
    hints.delivered(&only(&hints)).await.unwrap();
    assert_eq!(hints.held(), (0, 0));
}

#[tokio::test]
async fn several_changes_of_a_hint_in_one_failed_commit_are_corrected_once() {
    let (engine, hints) = hints();
    engine.fail_commits(1);
    let (first, second) = tokio::join!(hold(&hints, object(1)), hold(&hints, object(2)));
    assert!(!first && !second);
    assert_eq!(hints.held(), (0, 0));
}

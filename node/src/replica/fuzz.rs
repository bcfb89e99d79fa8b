//! Damaged bytes to what is read back from this node's own disk: hints, kept counts, storage keys.

use super::hints::{HintError, Hints, split_hint_key, target_of, token_of};
use super::{kept, split_storage_key, storage_key};
use crate::config::Limits;
use crate::replica::{Counters, Leaves, Overlay};
use crate::storage::{Change, Committer, Engine, MemoryEngine, Space};
use annulus_fuzz::{Noise, damaged, fuzz, within};
use bytes::Bytes;
use dynamo::hlc::Hlc;
use dynamo::object::{Actor, Object, Payload, Value};
use dynamo::token::Token;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

fn object(noise: &mut Noise) -> Object {
    let value = Value {
        timestamp: Hlc(noise.number()),
        expires_at_ms: noise.one_in(2).then(|| noise.number()),
        payload: if noise.one_in(2) { Payload::Tombstone } else { Payload::Bytes(noise.bytes(9).into()) },
    };
    Object::default().overwrite(Actor { incarnation: noise.any(), birth: noise.number() }, value)
}

fn hint_key(noise: &mut Noise) -> Vec<u8> {
    let mut key = noise.bytes(16);
    let name = noise.bytes(5);
    key.extend_from_slice(&storage_key(Token(noise.number()), &name));
    key
}

#[test]
fn keys_survive_anything() {
    // Sharing bytes takes a little; none are copied.
    fuzz("storage keys and keys of hints", |noise| {
        let good = hint_key(noise);
        let bytes = Bytes::from(damaged(noise, &good, b"other"));
        if let Some((token, key)) = within(64, || split_storage_key(&bytes)) {
            assert_eq!(storage_key(token, &key), bytes);
        }
        match within(64, || split_hint_key(bytes.clone(), Bytes::new())) {
            Some(hint) => {
                let target = target_of(&bytes).unwrap();
                let again = [target.as_bytes(), &storage_key(hint.token, &hint.key)[..]].concat();
                assert_eq!(again, bytes);
                assert_eq!(token_of(&bytes), Some(hint.token));
            }
            None => assert!(bytes.len() < 24),
        }
    });
}

#[test]
fn kept_counts_survive_anything() {
    let (counters, leaves) = (Counters::default(), Leaves::default());
    let good = kept::encode(&counters, &leaves);
    fuzz("kept counts", |noise| {
        let mut bytes = damaged(noise, &good, &good[..100]);
        if noise.one_in(2) && bytes.len() > 4 {
            // As if it had been written like this.
            let end = bytes.len() - 4;
            let checksum = crc32fast::hash(&bytes[..end]).to_le_bytes();
            bytes[end..].copy_from_slice(&checksum);
        }
        let bytes = Bytes::from(bytes);
        if let Some((counters, leaves)) = within(2 * good.len() + 65_536, || kept::decode(bytes.clone())) {
            assert_eq!(kept::encode(&counters, &leaves), bytes);
            let _ = (counters.total(), counters.dead(0..16384), leaves.sums(0..1).count());
        }
    });
}

/// Whatever stands where hints are kept: a node starts with it, walks over it, and takes and gives up hints beside it.
#[test]
fn hints_on_disk_survive_anything() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    fuzz("hints", |noise| runtime.block_on(hints_among_damaged_ones(noise)));
}

async fn hints_among_damaged_ones(noise: &mut Noise) {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let put = |noise: &mut Noise| {
        let (key, value) = (hint_key(noise), object(noise).encode());
        let key = Bytes::from(damaged(noise, &key, &value));
        Change::Put { space: Space::Hints, key, value: damaged(noise, &value, b"").into() }
    };
    let changes: Vec<Change> = (0..8).map(|_| put(noise)).collect();
    let keys_fit = |change: &&Change| matches!(change, Change::Put { key, .. } if !key.is_empty());
    engine.commit(&changes.iter().filter(keys_fit).cloned().collect::<Vec<_>>()).unwrap();
    let overlay = Overlay::new(Space::Hints, 0);
    let limits = Limits::default();
    let committer = {
        let overlay = overlay.clone();
        Committer::inline(engine.clone(), &limits, Duration::ZERO, move |changes, stored| {
            overlay.committed(changes, stored.is_ok());
        })
    };
    let hints = Hints::open(engine, committer, overlay, &limits).unwrap();
    let page = |target| (target, hints.page(target, None, 100).unwrap());
    let pages: Vec<_> = hints.targets().into_iter().map(page).collect();
    assert!(pages.iter().all(|(_, page)| page.next.is_none()));
    let pages =
        pages.into_iter().flat_map(|(target, page)| page.hints.into_iter().map(move |hint| (target, hint)));
    let all: Vec<_> = pages.collect();
    assert_eq!(all.len() as u64, hints.held().0, "what can be delivered is what is counted");
    for (target, hint) in all {
        // A hint for the same key again is merged with what is there; if that is damaged it is refused, and nothing is lost.
        let sound = Object::decode(hint.object.clone());
        let more = object(noise);
        match (hints.hold(target, hint.token, &hint.key, more.encode()).await, sound) {
            (Ok(durable), Ok(before)) => {
                if let Some(durable) = durable {
                    durable.await.unwrap();
                }
                let held = hints.read(target, hint.token, &hint.key).unwrap().unwrap();
                assert_eq!(Object::decode(held), Ok(before.merge(&more)));
            }
            (Err(HintError::Codec(_)), Err(_)) => {}
            (held, sound) => panic!("{} of {sound:?}", if held.is_ok() { "held" } else { "refused" }),
        }
        hints.delivered(&[hint]).await.unwrap();
    }
    let durable = hints.hold(Uuid::from_u128(1), Token(7), b"new", object(noise).encode()).await.unwrap().unwrap();
    durable.await.unwrap();
    assert!(hints.read(Uuid::from_u128(1), Token(7), b"new").unwrap().is_some());
}

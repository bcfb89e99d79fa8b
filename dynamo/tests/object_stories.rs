//! Races and losses that the literature knows, told one by one.

use bytes::Bytes;
use dynamo::hlc::Hlc;
use dynamo::object::{Actor, Context, Object, Payload, Value};

const A: Actor = Actor { incarnation: 0xa, birth: 1 };
const B: Actor = Actor { incarnation: 0xb, birth: 1 };

fn value(text: &'static str, timestamp: u64) -> Value {
    Value { timestamp: Hlc(timestamp), expires_at_ms: None, payload: Payload::Bytes(Bytes::from(text)) }
}

fn tombstone(timestamp: u64) -> Value {
    Value { timestamp: Hlc(timestamp), expires_at_ms: None, payload: Payload::Tombstone }
}

fn texts(object: &Object) -> Vec<String> {
    let text = |value: &Value| match &value.payload {
        Payload::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Payload::Tombstone => String::from("(deleted)"),
    };
    let mut texts: Vec<_> = object.siblings().map(|(_, value)| text(value)).collect();
    texts.sort();
    texts
}

/// Preguiça et al., figure 3: with one entry per server, a plain version vector calls the second of these newer.
#[test]
fn two_clients_that_race_through_one_replica_leave_two_siblings() {
    let start = Object::default().put(A, &Context::default(), value("start", 1));
    let read = start.context();
    let raced = start.put(A, &read, value("one", 2)).put(A, &read, value("two", 3));
    assert_eq!(texts(&raced), ["one", "two"]);
    // A client that has read both replaces both; one that had read only "start" still replaces neither.
    let merged = raced.put(A, &raced.context(), value("both", 4));
    assert_eq!(texts(&merged), ["both"]);
    assert_eq!(texts(&merged.put(B, &read, value("late", 5))), ["both", "late"]);
}

#[test]
fn two_replicas_that_write_apart_keep_both_values_until_someone_has_read_both() {
    let at_a = Object::default().put(A, &Context::default(), value("a", 1));
    let at_b = Object::default().put(B, &Context::default(), value("b", 2));
    let both = at_a.merge(&at_b);
    assert_eq!(texts(&both), ["a", "b"]);
    let chosen = both.put(B, &both.context(), value("chosen", 3));
    assert_eq!(texts(&at_a.merge(&chosen)), ["chosen"], "an old copy brings nothing back");
}

#[test]
fn a_blind_put_never_destroys_a_value() {
    let object = Object::default().put(A, &Context::default(), value("unseen", 1));
    assert_eq!(texts(&object.put(A, &Context::default(), value("blind", 2))), ["blind", "unseen"]);
    assert_eq!(texts(&object.put(B, &Context::default(), value("blind", 2))), ["blind", "unseen"]);
}

/// A client read at one replica and writes at another that has not heard of that value yet.
#[test]
fn a_value_that_was_replaced_before_it_arrived_stays_away() {
    let at_a = Object::default().put(A, &Context::default(), value("old", 1));
    let at_b = Object::default().put(B, &at_a.context(), value("new", 2));
    assert_eq!(texts(&at_b), ["new"]);
    assert_eq!(texts(&at_b.merge(&at_a)), ["new"]);
    assert_eq!(texts(&at_a.merge(&at_b)), ["new"]);
}

#[test]
fn a_delete_replaces_what_it_has_seen_and_stands_beside_the_rest() {
    let object = Object::default().put(A, &Context::default(), value("seen", 1));
    let deleted = object.put(A, &object.context(), tombstone(3));
    assert!(deleted.only_tombstones() && !deleted.live_at(0) && deleted.last_writer(0).is_none());
    // The other write happened at the same time; whether it or the delete wins for a reader of one value is a matter
    // of timestamps, for a reader of siblings of nothing.
    let raced = deleted.merge(&object.put(B, &object.context(), value("raced", 2)));
    assert_eq!(texts(&raced), ["(deleted)", "raced"]);
    assert!(raced.live_at(0) && raced.last_writer(0).is_none() && !raced.only_tombstones());
}

/// Riak's kv679: a replica forgets a key, its actor starts again at one, and a write vanishes.
#[test]
fn a_replica_that_forgot_a_key_needs_a_new_birth() {
    let before = Object::default().put(A, &Context::default(), value("first", 1)).overwrite(A, value("second", 2));

    let reissued = Object::default().put(A, &Context::default(), value("acknowledged", 3));
    assert_eq!(
        texts(&before.merge(&reissued)),
        ["second"],
        "with the old birth the new write is taken for an old one"
    );

    let reborn = Actor { birth: 2, ..A };
    let anew = Object::default().put(reborn, &Context::default(), value("acknowledged", 3));
    let merged = before.merge(&anew);
    assert_eq!(texts(&merged), ["acknowledged", "second"], "with a new one nothing is lost");
    assert_eq!(merged.last_writer(0), Some(&value("acknowledged", 3)));
    assert_eq!(merged.own_actor(A.incarnation), Some(reborn), "which goes on from here");
    assert_eq!(merged.own_actor(0xc), None);
}

/// The other half of kv679: a copy that still has the old values meets a context that covers them.
#[test]
fn a_new_birth_does_not_bring_replaced_values_back() {
    let old = Object::default().put(A, &Context::default(), value("old", 1));
    let reborn = Actor { birth: 2, ..A };
    let new = Object::default().put(reborn, &old.context(), value("new", 2));
    assert_eq!(texts(&new.merge(&old)), ["new"]);
}

#[test]
fn of_equal_timestamps_the_same_value_wins_everywhere() {
    let at_a = Object::default().put(A, &Context::default(), value("a", 7));
    let at_b = Object::default().put(B, &Context::default(), value("b", 7));
    assert_eq!(at_a.merge(&at_b).last_writer(0), Some(&value("b", 7)));
    assert_eq!(at_b.merge(&at_a).last_writer(0), Some(&value("b", 7)));
}

#[test]
fn an_expired_winner_does_not_let_an_older_value_through() {
    let expiring = Value { expires_at_ms: Some(100), ..value("short", 2) };
    let object = Object::default().put(A, &Context::default(), value("long", 1)).put(
        B,
        &Context::default(),
        expiring.clone(),
    );
    assert_eq!(object.last_writer(99), Some(&expiring));
    assert_eq!(object.last_writer(100), None);
    assert!(object.live_at(100), "a reader of siblings still has the other");
}

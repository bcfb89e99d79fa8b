//! What holds for any objects, however they came about: merging is a join, equality is equality of bytes.

use bytes::Bytes;
use dynamo::hlc::Hlc;
use dynamo::object::{Actor, Context, Merged, Object, Payload, Value, digest_of_encoded};
use proptest::prelude::*;

/// Few actors and small counters, so that objects meet often.
fn actor() -> impl Strategy<Value = Actor> {
    (0u64..3, 1u64..3).prop_map(|(incarnation, birth)| Actor { incarnation, birth })
}

fn context() -> impl Strategy<Value = Context> {
    prop::collection::vec((actor(), 0u64..6), 0..4).prop_map(Context::from_iter)
}

fn value() -> impl Strategy<Value = Value> {
    let payload = prop_oneof![
        1 => Just(Payload::Tombstone),
        3 => (0u8..4).prop_map(|byte| Payload::Bytes(Bytes::from(vec![byte; usize::from(byte)]))),
    ];
    let expiry = prop::option::of(0u64..4);
    (0u64..4, expiry, payload).prop_map(|(timestamp, expires_at_ms, payload)| Value {
        timestamp: Hlc(timestamp),
        expires_at_ms,
        payload,
    })
}

/// Any sequence of puts, by any actor, with any context: also what no honest run produces, such as a dot with two
/// values or contexts of events that never were.
fn object() -> impl Strategy<Value = Object> {
    prop::collection::vec((actor(), context(), value()), 0..8).prop_map(|puts| {
        puts.into_iter()
            .fold(Object::default(), |object, (actor, context, value)| object.put(actor, &context, value))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn merging_is_commutative_associative_and_idempotent(a in object(), b in object(), c in object()) {
        prop_assert_eq!(a.merge(&b), b.merge(&a));
        prop_assert_eq!(a.merge(&b).merge(&c), a.merge(&b.merge(&c)));
        prop_assert_eq!(a.merge(&a), a.clone());
        prop_assert_eq!(a.merge(&b).merge(&b), a.merge(&b));
        prop_assert_eq!(a.merge(&Object::default()), a);
    }

    #[test]
    fn syncing_tells_whether_merging_changes_anything(a in object(), b in object()) {
        let merged = a.merge(&b);
        let expected = if merged == a { Merged::Unchanged } else { Merged::Changed(merged.clone()) };
        prop_assert_eq!(a.sync(&b), expected);
        prop_assert_eq!(a.includes(&b), merged == a);
        prop_assert!(merged.includes(&a) && merged.includes(&b));
    }

    #[test]
    fn equal_objects_have_equal_bytes_and_digests_and_others_have_not(a in object(), b in object()) {
        prop_assert_eq!(a == b, a.encode() == b.encode());
        prop_assert_eq!(a == b, a.digest() == b.digest());
        prop_assert_eq!(a.digest(), digest_of_encoded(&a.encode()));
    }

    #[test]
    fn a_put_replaces_what_its_context_covers_and_nothing_else(
        object in object(), actor in actor(), context in context(), value in value()
    ) {
        let after = object.put(actor, &context, value.clone());
        for (dot, before) in object.siblings() {
            let kept = after.siblings().any(|(kept, value)| kept == dot && value == before);
            prop_assert_eq!(kept, !context.covers(dot));
        }
        let dot_counter = object.context().get(actor).max(context.get(actor)) + 1;
        let (written, _): (Vec<_>, Vec<_>) = after.siblings().partition(|(dot, _)| !object.context().covers(*dot));
        prop_assert_eq!(written.len(), 1);
        prop_assert_eq!((written[0].0.actor, written[0].0.counter), (actor, dot_counter));
        prop_assert_eq!(written[0].1, &value);
    }

    #[test]
    fn contexts_join_like_sets(a in context(), b in context()) {
        let both = a.join(&b);
        prop_assert_eq!(&both, &b.join(&a));
        for incarnation in 0..3 {
            for birth in 1..3 {
                let actor = Actor { incarnation, birth };
                prop_assert_eq!(both.get(actor), a.get(actor).max(b.get(actor)));
            }
        }
    }

    #[test]
    fn what_can_be_read_follows_from_the_siblings(object in object(), now_ms in 0u64..5) {
        let values = || object.siblings().map(|(_, value)| value);
        prop_assert_eq!(object.live_at(now_ms), values().any(|value| value.live_at(now_ms)));
        let tombstones = values().all(|value| value.payload == Payload::Tombstone);
        prop_assert_eq!(object.only_tombstones(), tombstones && !object.is_empty());
        if object.last_writer(now_ms).is_some() {
            prop_assert!(object.live_at(now_ms));
        }
    }
}

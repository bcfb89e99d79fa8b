//! The bytes of objects and contexts: fixed once and for all, and safe to read from anyone.

use bytes::{Bytes, BytesMut};
use dynamo::hlc::Hlc;
use dynamo::object::{
    Actor, By, Change, CodecError, Context, ContextError, Object, Payload, VERSION, VERSION_STRUCTURED, Value,
    peek_last_writer,
};
use proptest::prelude::*;

fn bytes_value(bytes: &'static [u8]) -> Value {
    Value {
        timestamp: Hlc(0x0102_0304_0506_0708),
        expires_at_ms: None,
        payload: Payload::Bytes(Bytes::from(bytes)),
    }
}

fn sample() -> Object {
    let first = Actor { incarnation: 0x1122_3344_5566_7788, birth: 300 };
    let second = Actor { birth: 301, ..first };
    let expiring = Value { expires_at_ms: Some(128), ..bytes_value(b"") };
    let deleted = Value { payload: Payload::Tombstone, ..bytes_value(b"") };
    Object::default()
        .put(first, &Context::default(), bytes_value(b"replaced"))
        .overwrite(first, bytes_value(b"xyz"))
        .put(first, &Context::default(), expiring)
        .put(second, &Context::default(), deleted)
}

/// A hash with a counter, a set beside it and an expiry.
fn structured() -> Object {
    let by = |birth, timestamp| By {
        actor: Actor { incarnation: 0x1122_3344_5566_7788, birth },
        timestamp: Hlc(timestamp),
        now_ms: 0,
    };
    let change = |object: &Object, change, by| object.change(&change, by).0.unwrap_or_default();
    let hash = change(&Object::default(), Change::SetFields(vec![("f".into(), "v".into())]), by(300, 5));
    let hash = change(&hash, Change::IncrementField { field: "n".into(), by: -2 }, by(300, 6));
    let only = dynamo::object::ExpiryCondition::Always;
    let hash = change(&hash, Change::Expire { at_ms: Some(128), only, read: false }, by(300, 7));
    let set = change(&Object::default(), Change::AddMembers(vec!["a".into()]), by(301, 4));
    hash.merge(&set).merge(&change(&Object::default(), Change::Increment { by: 1 }, by(302, 3)))
}

#[test]
fn the_format_of_more_than_a_string_is_this() {
    let stamp = |low: u8| [low, 0, 0, 0, 0, 0, 0, 0];
    let incarnation = [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11];
    let expected: Vec<u8> = [
        // Two actors with one event each, no siblings; nothing replaced; the expiry.
        &[2, 2][..],
        &incarnation,
        &[0xac, 0x02, 1, 0],
        &incarnation,
        &[0xad, 0x02, 1, 0],
        &stamp(0),
        &[2],
        &stamp(7),
        &[0x80, 0x01],
        // What was added to the string: one, of which nothing has been cleared.
        &[1],
        &incarnation,
        &[0xae, 0x02],
        &stamp(3),
        &[2],
        &stamp(0),
        &[0],
        // The member, the field and the field that was added to.
        &[3, 0, 1, b'a', 1, 1, 1],
        &stamp(4),
        &[1, 1, b'f', 1, 0, 1],
        &stamp(5),
        &[1, b'v', 0],
        &[1, 1, b'n', 0, 1],
        &incarnation,
        &[0xac, 0x02],
        &stamp(6),
        &[3],
        &stamp(0),
        &[0],
    ]
    .concat();
    assert_eq!(structured().encode(), expected);
    assert_eq!(Object::decode(Bytes::from(expected)), Ok(structured()));
}

/// What lies on disks: if this fails, the format has changed and needs another version byte.
#[test]
fn the_format_is_this() {
    let stamp = [8, 7, 6, 5, 4, 3, 2, 1];
    let incarnation = [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11];
    let expected: Vec<u8> = [
        &[1, 2][..],
        // Actor of birth 300, three events, the values of the third and of the second.
        &incarnation,
        &[0xac, 0x02, 3, 2],
        &[2],
        &stamp,
        &[0x80, 0x01, 0],
        &[0],
        &stamp,
        &[3],
        b"xyz",
        // Actor of birth 301, one event, a tombstone.
        &incarnation,
        &[0xad, 0x02, 1, 1],
        &[1],
        &stamp,
    ]
    .concat();
    assert_eq!(sample().encode(), expected);
    assert_eq!(Object::decode(Bytes::from(expected)), Ok(sample()));
    assert_eq!(Object::default().encode(), [1, 0][..]);

    let context: Vec<u8> = [&[1, 2][..], &incarnation, &[0xac, 0x02, 3], &incarnation, &[0xad, 0x02, 1]].concat();
    assert_eq!(sample().context().encode(), context);
    assert_eq!(Context::decode(&context), Ok(sample().context()));
    assert!(Context::default().encode().is_empty());
    // Digests are compared between nodes of different releases.
    assert_eq!(sample().digest(), 10_388_421_095_864_366_221);
}

#[test]
fn one_value_of_one_actor_costs_less_than_forty_bytes() {
    // Births of a node that has been writing for years, a value of a kilobyte, an expiry.
    let actor = Actor { incarnation: u64::MAX, birth: 1 << 50 };
    let value = Value { expires_at_ms: Some(1 << 41), ..bytes_value(&[7; 1000]) };
    let object = Object::default().put(actor, &Context::default(), value);
    assert_eq!(object.encode().len() - 1000, 37);
}

#[test]
fn values_share_the_memory_of_the_input() {
    let encoded = sample().encode();
    let object = Object::decode(encoded.clone()).unwrap();
    let memory = encoded.as_ptr_range();
    let shared = |value: &Value| match &value.payload {
        Payload::Bytes(bytes) if !bytes.is_empty() => memory.contains(&bytes.as_ptr()),
        _ => true,
    };
    assert!(object.siblings().all(|(_, value)| shared(value)));
}

#[test]
fn encoding_appends() {
    let mut bytes = BytesMut::from(&b"before"[..]);
    sample().encode_into(&mut bytes);
    assert_eq!(bytes, [b"before", &sample().encode()[..]].concat());
}

#[test]
fn damage_is_named() {
    let decode = |bytes: &[u8]| Object::decode(Bytes::copy_from_slice(bytes));
    let encoded = sample().encode();
    assert_eq!(decode(&[]), Err(CodecError::Truncated));
    assert_eq!(decode(&[3, 0]), Err(CodecError::Version(3)));
    assert_eq!(decode(&[2, 0]), Err(CodecError::Truncated));
    assert_eq!(decode(&[1, 0, 9, 9]), Err(CodecError::Trailing(2)));
    assert_eq!(decode(&[&encoded[..], &[0]].concat()), Err(CodecError::Trailing(1)));
    // A number of entries in two bytes where one would do.
    assert_eq!(decode(&[1, 0x80, 0x00]), Err(CodecError::NotCanonical));
    // A birth of 64 bits, and one of 65.
    let birth = |top: u8| [&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0xff; 9], &[top, 1, 0]].concat();
    assert_eq!(decode(&birth(1)).unwrap().own_actor(0).unwrap().birth, u64::MAX);
    assert_eq!(decode(&birth(2)), Err(CodecError::NotCanonical));
    assert_eq!(decode(&birth(0x81)), Err(CodecError::NotCanonical));
    let actor = [0, 0, 0, 0, 0, 0, 0, 0, 5];
    let entry = |counter: u8, values: &[u8]| [&actor[..], &[counter], values].concat();
    let object = |entries: &[Vec<u8>]| [&[1, entries.len() as u8][..], &entries.concat()].concat();
    let value = [1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(decode(&object(&[entry(1, &[0])])).is_ok());
    assert_eq!(decode(&object(&[entry(0, &[0])])), Err(CodecError::NotCanonical), "an actor without events");
    assert_eq!(
        decode(&object(&[entry(1, &[0]), entry(2, &[0])])),
        Err(CodecError::NotCanonical),
        "an actor twice"
    );
    let two_values = [&[2][..], &value, &value].concat();
    assert!(decode(&object(&[entry(2, &two_values)])).is_ok());
    assert_eq!(
        decode(&object(&[entry(1, &two_values)])),
        Err(CodecError::NotCanonical),
        "more values than events"
    );
    let unknown_flag = [&[1, 4][..], &value[1..]].concat();
    assert_eq!(decode(&object(&[entry(1, &unknown_flag)])), Err(CodecError::NotCanonical));
}

/// Counts and lengths far beyond the input must not be believed: this would ask for exabytes.
#[test]
fn large_counts_allocate_nothing() {
    let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let entries = [&[1][..], &most].concat();
    assert_eq!(Object::decode(Bytes::from(entries.clone())), Err(CodecError::Truncated));
    assert_eq!(Context::decode(&entries), Err(ContextError::Malformed(CodecError::Truncated)));
    let values = [&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 5][..], &most, &most].concat();
    assert_eq!(Object::decode(Bytes::from(values)), Err(CodecError::Truncated));
    let length = [&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 5, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &most].concat();
    assert_eq!(Object::decode(Bytes::from(length)), Err(CodecError::Truncated));
}

#[test]
fn contexts_are_bounded() {
    let actors = |count| (0..count).map(|birth| (Actor { incarnation: 1, birth }, 1));
    let long: Context = actors(7000).collect();
    let encoded = long.encode();
    let too_long = ContextError::TooLong { bytes: encoded.len(), bytes_max: Context::BYTES_MAX };
    assert_eq!(Context::decode(&encoded), Err(too_long));
    let fits: Context = actors(5000).collect();
    assert_eq!(Context::decode(&fits.encode()), Ok(fits));

    let actor = Actor { incarnation: 1, birth: 1 };
    let most = Context::from_iter([(actor, Context::COUNTER_MAX)]);
    assert_eq!(Context::decode(&most.encode()), Ok(most.clone()));
    let beyond = Context::from_iter([(actor, Context::COUNTER_MAX + 1)]);
    assert_eq!(Context::decode(&beyond.encode()), Err(ContextError::Counter(Context::COUNTER_MAX + 1)));
    // Forged, it still leaves room to write on.
    let object = Object::default().put(actor, &most, bytes_value(b"x"));
    assert_eq!(Object::decode(object.encode()), Ok(object));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Anything that decodes is the encoding of what it decodes to, and so is every context; nothing panics.
    #[test]
    fn bytes_from_anyone_are_refused_or_canonical(bytes in hostile()) {
        let bytes = Bytes::from(bytes);
        let decoded = Object::decode(bytes.clone());
        match &decoded {
            Ok(object) => {
                prop_assert_eq!(&object.encode(), &bytes);
                let peeked = peek_last_writer(&bytes, 7);
                match bytes[0] {
                    VERSION => prop_assert_eq!(peeked, Ok(object.last_writer(7).cloned())),
                    version => prop_assert_eq!(peeked, Err(CodecError::Version(version))),
                }
                let _ = (object.context(), object.merge(&sample()), object.sync(&sample()), object.digest());
            }
            Err(error) if bytes.first() != Some(&VERSION_STRUCTURED) => {
                prop_assert_eq!(peek_last_writer(&bytes, 7), Err(*error));
            }
            Err(_) => {}
        }
        if let Ok(context) = Context::decode(&bytes) {
            prop_assert_eq!(context.encode(), bytes);
        }
    }

    #[test]
    fn no_prefix_of_an_object_is_an_object(keep in 0.0..1.0f64) {
        for encoded in [sample().encode(), structured().encode()] {
            let kept = (encoded.len() as f64 * keep) as usize;
            prop_assert_eq!(Object::decode(encoded.slice(..kept)), Err(CodecError::Truncated));
        }
    }
}

/// Noise, noise behind a good start, and good encodings with a few bytes changed, which get furthest.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let good = prop_oneof![
        Just(sample().encode().to_vec()),
        Just(sample().context().encode().to_vec()),
        Just(structured().encode().to_vec()),
    ];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), small_or_any()), 0..4);
    let changed = (good, changes).prop_map(|(mut bytes, changes)| {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    });
    let noise = prop::collection::vec(small_or_any(), 0..60);
    let started = noise.clone().prop_map(|noise| [&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 5][..], &noise].concat());
    prop_oneof![3 => changed, 1 => noise, 2 => started]
}

fn small_or_any() -> impl Strategy<Value = u8> + Clone {
    prop_oneof![0u8..4, any::<u8>()]
}

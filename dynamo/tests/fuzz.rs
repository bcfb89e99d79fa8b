//! Bytes from anyone to every decoder of this crate: nothing panics, nothing allocates more than a little for each byte
//! that came, and what decodes is written the same way again.

#![allow(clippy::unwrap_used, reason = "tests may panic, in functions that tests share too")]

use annulus_fuzz::{Noise, damaged, damaged_text, fuzz, within};
use bytes::Bytes;
use dynamo::hlc::Hlc;
use dynamo::object::{
    Actor, By, Change, Condition, Context, Expiry, ExpiryCondition, Object, Outcome, Payload, Value,
    peek_last_writer,
};
use dynamo::preference::MemberIndex;
use dynamo::ring::{
    Also, Member, MemberState, Phase, Placement, Quorums, Ring, RingView, Target, from_json, to_json,
};
use dynamo::token::{HashKey, Token};
use uuid::Uuid;

/// Longest value that may be made.
const VALUE_BYTES_MAX: usize = 4096;

/// What a decoder may allocate at a time: what it makes of each byte, and a little for itself.
fn room(bytes: &[u8]) -> usize {
    64 * bytes.len() + 1024
}

fn change(noise: &mut Noise) -> Change {
    let name = |noise: &mut Noise| Bytes::from(vec![b'a' + noise.below(4) as u8; 1 + noise.below(3)]);
    let by = noise.any().cast_signed() >> noise.below(64);
    match noise.below(12) {
        0 => Change::Increment { by },
        1 => Change::AddMembers(vec![name(noise), name(noise)]),
        2 => Change::RemoveMembers(vec![name(noise)]),
        3 => Change::SetFields(vec![(name(noise), name(noise)), (name(noise), name(noise))]),
        4 => Change::RemoveFields(vec![name(noise)]),
        5 => Change::IncrementField { field: name(noise), by },
        6 => Change::ReplaceField { field: name(noise), expected: None, value: name(noise) },
        7 => {
            let only = ExpiryCondition::Present { later: noise.below(2) == 0, earlier: false };
            let only = if noise.below(2) == 0 { ExpiryCondition::Always } else { only };
            Change::Expire { at_ms: Some(noise.any() >> noise.below(64)), only, read: noise.below(2) == 0 }
        }
        8 => Change::Replace {
            bytes: (!noise.one_in(4)).then(|| name(noise)),
            expiry: if noise.below(2) == 0 { Expiry::Keep } else { Expiry::At(Some(noise.any() >> 20)) },
            only: if noise.below(2) == 0 { Condition::Always } else { Condition::Equal(name(noise)) },
            read: noise.below(2) == 0,
        },
        9 => Change::Append(name(noise)),
        10 => Change::TakeMembers(vec![name(noise)]),
        _ => Change::SetRange { offset: noise.number(), bytes: name(noise) },
    }
}

/// An object that has been through some changes and merges.
fn object(noise: &mut Noise) -> Object {
    let mut objects = [Object::default(), Object::default(), Object::default()];
    for _ in 0..noise.below(12) {
        let at = noise.below(3);
        let actor = Actor { incarnation: at as u64, birth: noise.below(3) as u64 };
        let newest = objects[at].max_timestamp().unwrap_or_default();
        let timestamp = Hlc(newest.0 + 1 + noise.any() % 1000);
        match noise.below(4) {
            0 => objects[at] = objects[at].merge(&objects[(at + 1) % 3]),
            1 => {
                let value =
                    Value { timestamp, expires_at_ms: None, payload: Payload::Bytes(noise.bytes(3).into()) };
                objects[at] = objects[at].put(actor, &Context::default(), value);
            }
            _ => {
                let by = By { actor, timestamp, now_ms: (1 << noise.below(40)).min(timestamp.millis()) };
                let asked = change(noise);
                if asked.bytes() > VALUE_BYTES_MAX {
                    continue;
                }
                if let (Some(changed), _) = objects[at].change(&asked, by) {
                    objects[at] = changed;
                }
            }
        }
    }
    objects[0].merge(&objects[1]).merge(&objects[2])
}

fn check(bytes: &Bytes, mate: &Object) {
    if let Ok(object) = within(room(bytes), || Object::decode(bytes.clone())) {
        assert_eq!(object.encode(), *bytes, "an object is written in one way");
        let merged = object.merge(mate);
        assert_eq!(merged, mate.merge(&object));
        assert_eq!(merged.merge(mate), merged);
        assert!(merged.includes(&object));
        assert_eq!(Object::decode(merged.encode()).as_ref(), Ok(&merged));
        let _ = (object.visible(1000).map(|visible| visible.string()), object.only_tombstones());
        if let Ok(winner) = peek_last_writer(bytes, 1000) {
            assert_eq!(winner.as_ref(), object.last_writer(1000));
        }
    } else {
        assert!(peek_last_writer(bytes, 1000).is_err(), "what cannot be decoded shows no value");
    }
    if let Ok(context) = within(room(bytes), || Context::decode(bytes)) {
        assert_eq!(context.encode(), *bytes, "a context is written in one way");
    }
    if let Ok(change) = within(room(bytes), || Change::decode(bytes.clone())) {
        assert_eq!(Change::decode(change.encode()).as_ref(), Ok(&change));
        carry_out(&change, mate);
    }
    if let Ok(outcome) = within(room(bytes), || Outcome::decode(bytes.clone())) {
        assert_eq!(Outcome::decode(outcome.encode()).as_ref(), Ok(&outcome));
    }
}

/// A change that is within the limits can be carried out in little more room than what it leaves takes.
fn carry_out(change: &Change, object: &Object) {
    if change.bytes() > VALUE_BYTES_MAX {
        return;
    }
    let actor = Actor { incarnation: 9, birth: 9 };
    let Some(timestamp) = object.max_timestamp().unwrap_or_default().0.max(Hlc::from_wall(1000).0).checked_add(1)
    else {
        return;
    };
    let room = 64 * (object.encoded_len() + change.encode().len()) + 8 * VALUE_BYTES_MAX + 4096;
    let by = By { actor, timestamp: Hlc(timestamp), now_ms: 1000 };
    if let (Some(changed), _) = within(room, || object.change(change, by)) {
        assert_eq!(Object::decode(changed.encode()).as_ref(), Ok(&changed));
    }
}

#[test]
fn decoders_of_objects_survive_anything() {
    fuzz("objects, contexts, changes, outcomes", |noise| {
        let (first, second) = (object(noise), object(noise));
        let asked = change(noise);
        assert_eq!(Change::decode(asked.encode()).as_ref(), Ok(&asked));
        let (_, outcome) = match asked.bytes() <= VALUE_BYTES_MAX {
            true => first.change(
                &asked,
                By { actor: Actor { incarnation: 1, birth: 1 }, timestamp: Hlc(1 << 60), now_ms: 1 },
            ),
            false => (None, Outcome::Number(1)),
        };
        let encodings =
            [first.encode(), first.context().encode(), asked.encode(), outcome.encode(), second.encode()];
        for good in &encodings {
            check(good, &second);
            for _ in 0..8 {
                check(&Bytes::from(damaged(noise, good, &encodings[4])), &second);
            }
        }
    });
}

fn list(noise: &mut Noise, members: usize) -> Vec<MemberIndex> {
    let first = noise.below(members);
    (0..1 + noise.below(members)).map(|next| MemberIndex(((first + next) % members) as u16)).collect()
}

fn ring(noise: &mut Noise) -> Ring {
    let count = 1 + noise.below(5);
    let text = |noise: &mut Noise| String::from_utf8_lossy(&noise.bytes(3)).into_owned();
    let members = (0..count as u16).map(|index| Member {
        index: MemberIndex(index),
        incarnation: Uuid::from_u64_pair(noise.any(), noise.any()),
        name: text(noise),
        peer_address: text(noise),
        client_address: text(noise),
        zone: noise.one_in(2).then(|| text(noise)),
        weight: 1 + noise.below(3) as u32,
        state: *noise.pick(&[MemberState::Joining, MemberState::Active, MemberState::Leaving]),
        gone: *noise.pick(&[false, true]),
    });
    let members: Vec<Member> = members.collect();
    let epoch = noise.number();
    let placement = |noise: &mut Noise| {
        let also = noise
            .one_in(3)
            .then(|| Also { list: list(noise, count), phase: *noise.pick(&[Phase::Filling, Phase::Retiring]) });
        Placement { preference: list(noise, count), also, since: noise.number().min(epoch) }
    };
    let n = 1 + noise.below(5) as u8;
    let (r, w) = (1 + noise.below(n.into()) as u8, 1 + noise.below(n.into()) as u8);
    let target = noise.one_in(2).then(|| Target {
        owners: (0..16).map(|_| MemberIndex(noise.below(count) as u16)).collect(),
        since: noise.number(),
        replica_moves: 7,
        replica_moves_min: 5,
    });
    Ring {
        cluster: Uuid::from_u64_pair(noise.any(), noise.any()),
        epoch,
        quorums: Quorums { n, r, w, sloppy: noise.one_in(2) },
        hash_key: HashKey([7; 16]),
        members,
        partitions: (0..16).map(|_| placement(noise)).collect(),
        target,
    }
}

/// A ring that could be read can be written, read again, and served by.
fn check_ring(text: &str) {
    // serde keeps what it has read of an object of an unknown order; the bound is wider.
    let Ok(ring) = within(4 * room(text.as_bytes()), || from_json(text.as_bytes())) else { return };
    assert_eq!(from_json(to_json(&ring).as_bytes()).unwrap(), ring);
    let Some(view) = RingView::new(ring) else { panic!("a ring that was read cannot be served by: {text}") };
    for token in [Token(0), Token(u64::MAX), view.token(b"key")] {
        let partition = view.partition(token);
        let placement = view.placement(partition).unwrap();
        assert!(placement.preference.iter().all(|&member| view.member(member).is_some()));
        assert!(view.fallbacks(partition).iter().all(|member| !placement.names(*member)));
    }
    let _ = (1..6).map(|members| view.ring().quorums.of_list(members)).collect::<Vec<_>>();
}

#[test]
fn ring_documents_survive_anything() {
    fuzz("ring documents", |noise| {
        let (good, other) = (ring(noise), to_json(&ring(noise)));
        let text = to_json(&good);
        assert_eq!(from_json(text.as_bytes()).unwrap(), good);
        for _ in 0..32 {
            check_ring(&damaged_text(noise, &text, &other));
        }
        let hash_key = damaged_text(noise, "0123456789abcdef0123456789abcdef", &other);
        if let Ok(key) = hash_key.parse::<HashKey>() {
            assert_eq!(key.to_string().parse::<HashKey>().unwrap(), key);
        }
    });
}

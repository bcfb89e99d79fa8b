//! Counters, sets and hashes against an oracle: replicas change them and exchange them in random order, and what is
//! seen must be what the explicit causal history says.
//!
//! The oracle knows nothing of dots, tallies or cells. It keeps, for every change, the changes its replica knew of.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use dynamo::hlc::Hlc;
use dynamo::object::{Actor, By, Change, Expiry, Kind, Merged, Object, Outcome, Payload, Value};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const REPLICAS: usize = 3;

/// What a client asks; of sets and hashes there are few names, so that changes meet.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ask {
    Set(i64),
    Delete,
    Increment(i64),
    Put(u8, u8),
    Remove(u8),
    IncrementField(u8, i64),
}

#[derive(Clone, Debug)]
enum Step {
    Ask {
        replica: usize,
        ask: Ask,
        skew: u64,
    },
    Send {
        from: usize,
        to: usize,
    },
    /// Its state is sent to everyone much later, perhaps again and again.
    Keep {
        replica: usize,
    },
    Deliver {
        message: usize,
        to: usize,
    },
    /// The replica issues by a new actor from now on.
    Rebirth {
        replica: usize,
    },
}

struct Event {
    ask: Ask,
    actor: Actor,
    timestamp: Hlc,
    past: BTreeSet<usize>,
}

#[derive(Clone, Default)]
struct Copy {
    object: Object,
    known: BTreeSet<usize>,
}

struct Run {
    replicas: Vec<Copy>,
    births: Vec<u64>,
    events: Vec<Event>,
    kept: Vec<Copy>,
    clock: u64,
    kind: Kind,
}

impl Run {
    fn new(kind: Kind) -> Self {
        Self {
            replicas: vec![Copy::default(); REPLICAS],
            births: vec![1; REPLICAS],
            events: Vec::new(),
            kept: Vec::new(),
            clock: 0,
            kind,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Ask { replica, ask, skew } => self.ask(*replica, ask, *skew),
            Step::Send { from, to } => {
                let copy = self.replicas[*from].clone();
                self.arrive(&copy, *to);
            }
            Step::Keep { replica } => self.kept.push(self.replicas[*replica].clone()),
            Step::Deliver { message, to } => {
                if !self.kept.is_empty() {
                    let copy = self.kept[message % self.kept.len()].clone();
                    self.arrive(&copy, *to);
                }
            }
            Step::Rebirth { replica } => self.births[*replica] += 1,
        }
    }

    fn arrive(&mut self, copy: &Copy, to: usize) {
        let here = &mut self.replicas[to];
        here.object = here.object.merge(&copy.object);
        here.known.extend(&copy.known);
    }

    fn ask(&mut self, replica: usize, ask: &Ask, skew: u64) {
        let here = &self.replicas[replica];
        let actor = Actor { incarnation: replica as u64, birth: self.births[replica] };
        // Unique, later than all that is known here, and else as the replica's own clock has it.
        self.clock += 1;
        let after = here.object.max_timestamp().map_or(0, |newest| newest.0 / 1000 + 1);
        let timestamp = Hlc(after.max(self.clock.saturating_sub(skew)) * 1000 + self.clock);
        let name = |name: &u8| Bytes::from(vec![b'a' + name]);
        let by = By { actor, timestamp, now_ms: 0 };
        let (object, outcome) = match (ask, self.kind) {
            (Ask::Set(number), _) => {
                let value = Value {
                    timestamp,
                    expires_at_ms: None,
                    payload: Payload::Bytes(Bytes::from(number.to_string())),
                };
                (Some(here.object.overwrite(actor, value)), None)
            }
            (Ask::Delete, _) => {
                let value = Value { timestamp, expires_at_ms: None, payload: Payload::Tombstone };
                (Some(here.object.overwrite(actor, value)), None)
            }
            (Ask::Increment(step), _) => with_outcome(here.object.change(&Change::Increment { by: *step }, by)),
            (Ask::Put(member, _), Kind::Set) => {
                with_outcome(here.object.change(&Change::AddMembers(vec![name(member)]), by))
            }
            (Ask::Put(field, value), _) => {
                let fields = vec![(name(field), Bytes::from(value.to_string()))];
                with_outcome(here.object.change(&Change::SetFields(fields), by))
            }
            (Ask::Remove(member), Kind::Set) => {
                with_outcome(here.object.change(&Change::RemoveMembers(vec![name(member)]), by))
            }
            (Ask::Remove(field), _) => {
                with_outcome(here.object.change(&Change::RemoveFields(vec![name(field)]), by))
            }
            (Ask::IncrementField(field, step), _) => {
                let change = Change::IncrementField { field: name(field), by: *step };
                with_outcome(here.object.change(&change, by))
            }
        };
        let expected = self.expected_answer(replica, ask);
        if let (Some(outcome), Some(expected)) = (&outcome, expected) {
            assert_eq!(*outcome, Outcome::Number(expected), "{ask:?}");
        }
        let Some(object) = object else { return };
        let past = self.replicas[replica].known.clone();
        let number = self.events.len();
        self.events.push(Event { ask: ask.clone(), actor, timestamp, past });
        self.replicas[replica].object = object;
        self.replicas[replica].known.insert(number);
    }

    fn expected_answer(&self, replica: usize, ask: &Ask) -> Option<i64> {
        let known = &self.replicas[replica].known;
        match ask {
            Ask::Set(_) | Ask::Delete => None,
            Ask::Increment(step) => Some(self.counter(known).unwrap_or(0) + step),
            Ask::Put(name, _) => Some(i64::from(!self.has(known, *name))),
            Ask::Remove(name) => Some(i64::from(self.has(known, *name))),
            Ask::IncrementField(name, step) => {
                Some(self.field(known, *name).map_or(0, |value| value.parse().unwrap()) + step)
            }
        }
    }

    fn has(&self, known: &BTreeSet<usize>, name: u8) -> bool {
        if self.kind == Kind::Set { !self.puts(known, name).is_empty() } else { self.field(known, name).is_some() }
    }

    /// The newest of all writes that replace everything before them.
    fn wiped(&self, known: &BTreeSet<usize>) -> Hlc {
        let wipes = known.iter().map(|&event| &self.events[event]);
        let wipes = wipes.filter(|event| matches!(event.ask, Ask::Set(_) | Ask::Delete));
        wipes.map(|event| event.timestamp).max().unwrap_or_default()
    }

    fn wipes(event: &Event) -> bool {
        matches!(event.ask, Ask::Set(_) | Ask::Delete)
    }

    /// Puts of a name that nothing known has replaced.
    fn puts(&self, known: &BTreeSet<usize>, name: u8) -> Vec<&Event> {
        let wiped = self.wiped(known);
        let of_name = |event: &Event| match event.ask {
            Ask::Put(other, _) | Ask::Remove(other) => other == name,
            _ => Self::wipes(event),
        };
        let replaced = |put: usize| {
            known.iter().any(|&event| of_name(&self.events[event]) && self.events[event].past.contains(&put))
        };
        let puts =
            known.iter().filter(|&&event| matches!(self.events[event].ask, Ask::Put(other, _) if other == name));
        puts.filter(|&&put| !replaced(put) && self.events[put].timestamp >= wiped)
            .map(|&put| &self.events[put])
            .collect()
    }

    /// The sum of those additions that nothing has replaced; `None`: there are none.
    fn additions(
        &self,
        known: &BTreeSet<usize>,
        is_addition: &dyn Fn(&Event) -> Option<i64>,
        replaces: &dyn Fn(&Event) -> bool,
    ) -> Option<i64> {
        let wiped = self.wiped(known);
        let mut by_actor: BTreeMap<Actor, Vec<usize>> = BTreeMap::new();
        for &event in known {
            if is_addition(&self.events[event]).is_some() {
                by_actor.entry(self.events[event].actor).or_default().push(event);
            }
        }
        let mut total = None;
        for additions in by_actor.values() {
            let Some(last) = additions.last() else { continue };
            if self.events[*last].timestamp < wiped {
                continue;
            }
            for (at, &addition) in additions.iter().enumerate() {
                let seen = known
                    .iter()
                    .any(|&event| replaces(&self.events[event]) && self.events[event].past.contains(&addition));
                // Its own actor knew, when it went on, that a newer write had replaced all so far.
                let left_behind = additions[at + 1..].iter().any(|&later| {
                    let before = additions.iter().take_while(|&&other| other != later).last();
                    before.is_some_and(|&before| {
                        self.events[before].timestamp < self.wiped(&self.events[later].past)
                    })
                });
                if !seen && !left_behind {
                    let step = is_addition(&self.events[addition]).unwrap();
                    total = Some(total.unwrap_or(0) + step);
                }
            }
        }
        total
    }

    fn counter(&self, known: &BTreeSet<usize>) -> Option<i64> {
        let step = |event: &Event| match event.ask {
            Ask::Increment(step) => Some(step),
            _ => None,
        };
        let added = self.additions(known, &step, &Self::wipes);
        let replaced = |write: usize| {
            known.iter().any(|&event| Self::wipes(&self.events[event]) && self.events[event].past.contains(&write))
        };
        let writes = known.iter().filter(|&&event| Self::wipes(&self.events[event]) && !replaced(event));
        let winner = writes.map(|&event| &self.events[event]).max_by_key(|event| event.timestamp);
        match winner.map(|event| &event.ask) {
            Some(Ask::Set(number)) => Some(number + added.unwrap_or(0)),
            _ => added,
        }
    }

    fn field(&self, known: &BTreeSet<usize>, name: u8) -> Option<String> {
        let step = |event: &Event| match event.ask {
            Ask::IncrementField(other, step) if other == name => Some(step),
            _ => None,
        };
        let replaces = |event: &Event| match event.ask {
            Ask::Put(other, _) | Ask::Remove(other) => other == name,
            _ => Self::wipes(event),
        };
        let added = self.additions(known, &step, &replaces);
        let puts = self.puts(known, name);
        let winner = puts.iter().max_by_key(|event| event.timestamp);
        let base = winner.map(|event| match event.ask {
            Ask::Put(_, value) => i64::from(value),
            _ => unreachable!(),
        });
        let number = match (base, added) {
            (None, None) => return None,
            (base, added) => base.unwrap_or(0) + added.unwrap_or(0),
        };
        Some(number.to_string())
    }

    fn check(&self) {
        for Copy { object, known } in &self.replicas {
            let visible = object.visible(0);
            match self.kind {
                Kind::String => {
                    let expected = self.counter(known).map(|number| Bytes::from(number.to_string()));
                    assert_eq!(visible.map(|visible| visible.string()), expected);
                }
                Kind::Set => {
                    let members: Vec<_> = visible.iter().flat_map(|visible| visible.members()).cloned().collect();
                    let expected: Vec<_> =
                        (0..4).filter(|name| self.has(known, *name)).map(|name| vec![b'a' + name]).collect();
                    assert_eq!(members, expected);
                }
                Kind::Hash => {
                    let fields: Vec<_> = visible
                        .iter()
                        .flat_map(|visible| visible.fields())
                        .map(|(field, value)| (field.to_vec(), value))
                        .collect();
                    let expected: Vec<_> = (0..4)
                        .filter_map(|name| Some((vec![b'a' + name], Bytes::from(self.field(known, name)?))))
                        .collect();
                    assert_eq!(fields, expected);
                }
            }
            let encoded = object.encode();
            assert_eq!(encoded.len(), object.encoded_len());
            assert_eq!(Object::decode(encoded).as_ref(), Ok(object));
        }
    }
}

fn with_outcome((object, outcome): (Option<Object>, Outcome)) -> (Option<Object>, Option<Outcome>) {
    (object, Some(outcome))
}

fn ask(kind: Kind) -> BoxedStrategy<Ask> {
    match kind {
        Kind::String => prop_oneof![
            2 => (-9i64..9).prop_map(Ask::Set),
            1 => Just(Ask::Delete),
            8 => (-9i64..9).prop_map(Ask::Increment),
        ]
        .boxed(),
        Kind::Set => prop_oneof![
            1 => Just(Ask::Delete),
            6 => (0u8..4).prop_map(|name| Ask::Put(name, 0)),
            3 => (0u8..4).prop_map(Ask::Remove),
        ]
        .boxed(),
        Kind::Hash => prop_oneof![
            1 => Just(Ask::Delete),
            4 => (0u8..4, any::<u8>()).prop_map(|(name, value)| Ask::Put(name, value)),
            3 => (0u8..4).prop_map(Ask::Remove),
            4 => (0u8..4, -9i64..9).prop_map(|(name, step)| Ask::IncrementField(name, step)),
        ]
        .boxed(),
    }
}

fn steps(kind: Kind) -> impl Strategy<Value = Vec<Step>> {
    let replica = 0..REPLICAS;
    let step = prop_oneof![
        8 => (replica.clone(), ask(kind), 0u64..8)
            .prop_map(|(replica, ask, skew)| Step::Ask { replica, ask, skew }),
        4 => (replica.clone(), replica.clone()).prop_map(|(from, to)| Step::Send { from, to }),
        2 => replica.clone().prop_map(|replica| Step::Keep { replica }),
        3 => (any::<usize>(), replica.clone()).prop_map(|(message, to)| Step::Deliver { message, to }),
        1 => replica.prop_map(|replica| Step::Rebirth { replica }),
    ];
    prop::collection::vec(step, 1..40)
}

fn run(kind: Kind, steps: &[Step]) -> Run {
    let mut run = Run::new(kind);
    for step in steps {
        run.step(step);
        run.check();
    }
    run
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn counters_are_what_their_history_says(steps in steps(Kind::String)) {
        run(Kind::String, &steps);
    }

    #[test]
    fn sets_are_what_their_history_says(steps in steps(Kind::Set)) {
        run(Kind::Set, &steps);
    }

    #[test]
    fn hashes_are_what_their_history_says(steps in steps(Kind::Hash)) {
        run(Kind::Hash, &steps);
    }

    /// Of all states that came about, of one kind or mixed with those of another key: merging is a join.
    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        (kind, steps) in prop_oneof![Just(Kind::String), Just(Kind::Set), Just(Kind::Hash)]
            .prop_flat_map(|kind| (Just(kind), steps(kind)))
    ) {
        let run = run(kind, &steps);
        let states: Vec<&Object> =
            run.replicas.iter().chain(&run.kept).map(|copy| &copy.object).take(8).collect();
        for a in &states {
            prop_assert_eq!(&a.merge(a), *a);
            for b in &states {
                let both = a.merge(b);
                prop_assert_eq!(&both, &b.merge(a));
                prop_assert_eq!(&both.merge(b), &both);
                prop_assert_eq!(both.digest(), b.merge(a).digest());
                prop_assert!(both.includes(a) && both.includes(b));
                prop_assert_eq!(a.includes(b), both == **a);
                let expected = if both == **a { Merged::Unchanged } else { Merged::Changed(both.clone()) };
                prop_assert_eq!(a.sync(b), expected);
                for c in &states {
                    prop_assert_eq!(both.merge(c), a.merge(&b.merge(c)));
                }
            }
        }
    }

    /// Whatever is done at whatever replicas: when all have met all, no addition is missing.
    #[test]
    fn no_increment_is_lost(additions in prop::collection::vec((0..REPLICAS, -100i64..100), 1..60), order in any::<u64>()) {
        let mut run = Run::new(Kind::String);
        for (at, (replica, step)) in additions.iter().enumerate() {
            run.step(&Step::Ask { replica: *replica, ask: Ask::Increment(*step), skew: 3 });
            if order >> (at % 64) & 1 == 1 {
                run.step(&Step::Send { from: *replica, to: (replica + 1) % REPLICAS });
            }
        }
        for from in 0..REPLICAS {
            for to in 0..REPLICAS {
                run.step(&Step::Send { from, to });
            }
        }
        run.step(&Step::Send { from: 0, to: 1 });
        let sum: i64 = additions.iter().map(|(_, step)| step).sum();
        let shown = run.replicas[REPLICAS - 1].object.visible(0).unwrap().string();
        prop_assert_eq!(shown, sum.to_string());
    }
}

fn by(actor: u64, timestamp: u64, now_ms: u64) -> By {
    By { actor: Actor { incarnation: actor, birth: 1 }, timestamp: Hlc::from_wall(timestamp), now_ms }
}

fn changed(object: &Object, change: &Change, by: By) -> Object {
    object.change(change, by).0.unwrap()
}

fn text(object: &Object, now_ms: u64) -> Option<Bytes> {
    object.visible(now_ms).map(|visible| visible.string())
}

fn string(text: &'static str, timestamp: u64, expires_at_ms: Option<u64>) -> Value {
    let payload = Payload::Bytes(Bytes::from_static(text.as_bytes()));
    Value { timestamp: Hlc::from_wall(timestamp), expires_at_ms, payload }
}

#[test]
fn adding_to_a_number_that_was_set_as_in_redis() {
    let five = Object::default().overwrite(by(1, 0, 0).actor, string("5", 10, None));
    let (six, outcome) = five.change(&Change::Increment { by: 1 }, by(1, 20, 20));
    assert_eq!(outcome, Outcome::Number(6));
    assert_eq!(text(&six.unwrap(), 20).unwrap(), "6");
}

/// A counter whose time has come counts from zero, and whoever adds to it at that time is not lost.
#[test]
fn a_counter_that_expired_starts_anew_at_every_replica() {
    let old = Object::default().overwrite(by(1, 0, 0).actor, string("5", 10, Some(100)));
    let old = changed(&old, &Change::Increment { by: 2 }, by(2, 20, 20));
    assert_eq!(text(&old, 99).unwrap(), "7");
    assert_eq!(text(&old, 100), None);
    let one = changed(&old, &Change::Increment { by: 1 }, by(1, 101, 101));
    let other = changed(&old, &Change::Increment { by: 1 }, by(2, 105, 105));
    assert_eq!(text(&one, 200).unwrap(), "1");
    assert_eq!(text(&one.merge(&other), 200).unwrap(), "2");
    assert_eq!(text(&one.merge(&other).merge(&old), 200).unwrap(), "2");
}

#[test]
fn an_expiry_does_not_undo_what_is_added_or_set_at_the_same_time() {
    let old = Object::default().overwrite(by(1, 0, 0).actor, string("5", 10, None));
    let expire = Change::Expire { at_ms: Some(1000), only: dynamo::object::ExpiryCondition::Always, read: false };
    let expiring = changed(&old, &expire, by(1, 30, 30));
    let added = changed(&old, &Change::Increment { by: 1 }, by(2, 20, 20));
    assert_eq!(text(&expiring.merge(&added), 999).unwrap(), "6");
    assert_eq!(text(&expiring.merge(&added), 1000), None);
    let set = old.overwrite(by(2, 0, 0).actor, string("new", 20, None));
    let both = expiring.merge(&set);
    assert_eq!(text(&both, 1001).unwrap(), "new", "as if the expiry had been set just before");
}

#[test]
fn a_set_that_expired_is_empty_and_what_is_added_then_stays() {
    let add = |object: &Object, member: &'static str, by| {
        changed(object, &Change::AddMembers(vec![Bytes::from_static(member.as_bytes())]), by)
    };
    let expire = Change::Expire { at_ms: Some(100), only: dynamo::object::ExpiryCondition::Always, read: false };
    let old = changed(&add(&Object::default(), "a", by(1, 10, 10)), &expire, by(1, 11, 11));
    assert_eq!(old.visible(99).unwrap().members().count(), 1);
    assert!(old.visible(100).is_none());
    let one = add(&old, "b", by(1, 100, 100));
    let other = add(&old, "c", by(2, 110, 110));
    let both = one.merge(&other).merge(&old);
    let members: Vec<_> = both.visible(200).unwrap().members().cloned().collect();
    assert_eq!(members, ["b", "c"]);
    assert_eq!(both.visible(200).unwrap().expires_at_ms, None);
}

#[test]
fn of_two_kinds_written_at_the_same_time_the_later_is_seen_and_the_next_change_clears_up() {
    let set = changed(&Object::default(), &Change::AddMembers(vec!["a".into()]), by(1, 10, 10));
    let field = vec![("f".into(), "v".into())];
    let hash = changed(&Object::default(), &Change::SetFields(field), by(2, 20, 20));
    let both = set.merge(&hash);
    assert_eq!(both.visible(30).unwrap().kind, Kind::Hash);
    let (_, refused) = both.change(&Change::AddMembers(vec!["b".into()]), by(1, 30, 30));
    assert_eq!(refused, Outcome::Refused(dynamo::object::Refusal::WrongKind));
    let gone = changed(&both, &Change::RemoveFields(vec!["f".into()]), by(1, 30, 30));
    assert!(gone.visible(30).is_none() && gone.only_tombstones());
    assert_eq!(gone.merge(&set), gone, "what was hidden is gone, too");
}

/// A delete reaches what its coordinator has not seen, as long as it is older.
#[test]
fn a_delete_takes_all_that_was_before_it() {
    let set = changed(&Object::default(), &Change::AddMembers(vec!["a".into()]), by(1, 10, 10));
    let counted = changed(&Object::default(), &Change::Increment { by: 1 }, by(1, 10, 10));
    let tombstone = Value { timestamp: Hlc::from_wall(20), expires_at_ms: None, payload: Payload::Tombstone };
    let deleted = Object::default().overwrite(by(2, 0, 0).actor, tombstone);
    for older in [set, counted] {
        let merged = deleted.merge(&older);
        assert!(merged.visible(30).is_none() && merged.only_tombstones(), "{merged:?}");
    }
}

#[test]
fn keeping_and_testing() {
    let replace = |bytes: &'static str, only| Change::Replace {
        bytes: Some(Bytes::from_static(bytes.as_bytes())),
        expiry: Expiry::Keep,
        only,
        read: true,
    };
    let object = Object::default().overwrite(by(1, 0, 0).actor, string("a", 10, Some(500)));
    let (none, outcome) = object.change(&replace("b", dynamo::object::Condition::Absent), by(1, 20, 20));
    assert!(none.is_none());
    assert_eq!(outcome, Outcome::Replaced { done: false, existed: true, before: Some("a".into()) });
    let after = changed(&object, &replace("b", dynamo::object::Condition::Equal("a".into())), by(1, 20, 20));
    assert_eq!(after.visible(20).unwrap().expires_at_ms, Some(500));
    assert_eq!(text(&after, 499).unwrap(), "b");
    assert_eq!(text(&after, 500), None);
}

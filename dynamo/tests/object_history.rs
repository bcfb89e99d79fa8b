//! Objects against an oracle: several replicas and clients put, get, exchange and forget in random order, and every
//! object must hold exactly the writes that the explicit causal history says are concurrent.
//!
//! The oracle knows nothing of dots, counters or contexts. It keeps, for every write, the set of writes its client had
//! seen; for every replica, the set of writes it knows of; siblings are the maximal elements of that set.

use bytes::Bytes;
use dynamo::hlc::Hlc;
use dynamo::object::{Actor, Context, Object, Payload, Value};
use proptest::prelude::*;
use std::collections::BTreeSet;

const REPLICAS: usize = 4;
const CLIENTS: usize = 3;

/// Writes are numbered in the order in which they happen; the number is the value, too.
type Event = u64;
type History = BTreeSet<Event>;

/// One step of a run. Replicas and clients are numbers below [`REPLICAS`] and [`CLIENTS`]; messages are taken modulo
/// the number of those sent so far.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A client reads and remembers the context instead of what it remembered before.
    Get { client: usize, replica: usize },
    /// A client reads one more replica, and remembers both.
    GetMore { client: usize, replica: usize },
    /// A client writes with what it remembers, which stays what it is: the next write races with this one.
    Put { client: usize, replica: usize },
    /// A client that has read nothing writes.
    PutBlind { replica: usize },
    /// A write that covers all the replica knows.
    Overwrite { replica: usize },
    /// A replica sends its object; it stays in the network and can arrive any number of times, at any time.
    Send { replica: usize },
    /// An object that was sent arrives.
    Arrive { message: usize, replica: usize },
    /// A fallback takes a write for a key of which it knows nothing, and sends it on.
    PutElsewhere { client: usize },
    /// A replica starts again from the state it saved last: what came later is lost to it.
    Restart { replica: usize },
    /// A replica's state is durable up to here.
    Save { replica: usize },
    /// A replica has dropped the partition. What it wrote before may come back to it from others.
    Wipe { replica: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let (replica, client) = (0..REPLICAS, 0..CLIENTS);
    let both = (client.clone(), replica.clone());
    prop_oneof![
        3 => both.clone().prop_map(|(client, replica)| Step::Get { client, replica }),
        1 => both.clone().prop_map(|(client, replica)| Step::GetMore { client, replica }),
        5 => both.prop_map(|(client, replica)| Step::Put { client, replica }),
        1 => replica.clone().prop_map(|replica| Step::PutBlind { replica }),
        1 => replica.clone().prop_map(|replica| Step::Overwrite { replica }),
        4 => replica.clone().prop_map(|replica| Step::Send { replica }),
        5 => (any::<usize>(), replica.clone()).prop_map(|(message, replica)| Step::Arrive { message, replica }),
        1 => client.prop_map(|client| Step::PutElsewhere { client }),
        1 => replica.clone().prop_map(|replica| Step::Restart { replica }),
        1 => replica.clone().prop_map(|replica| Step::Save { replica }),
        1 => replica.prop_map(|replica| Step::Wipe { replica }),
    ]
}

/// An object and what the oracle says is known where it lies.
#[derive(Clone, Default)]
struct Copy {
    object: Object,
    known: History,
}

#[derive(Clone, Default)]
struct Replica {
    now: Copy,
    saved: Copy,
    /// Births before this one belong to a state that is lost in part.
    birth_floor: u64,
}

#[derive(Clone, Default)]
struct Client {
    context: Context,
    seen: History,
}

#[derive(Default)]
struct World {
    replicas: [Replica; REPLICAS],
    clients: [Client; CLIENTS],
    network: Vec<Copy>,
    /// By event: what its client had seen. Closed: with an event it contains what that one had seen.
    past: Vec<History>,
    births: u64,
}

impl World {
    /// The maximal elements: known events that no known event's client had seen.
    fn siblings(&self, known: &History) -> History {
        let replaced: History = known.iter().flat_map(|event| &self.past[*event as usize]).copied().collect();
        known.difference(&replaced).copied().collect()
    }

    fn check(&self, copy: &Copy) {
        let found: Vec<Event> = copy.object.siblings().map(|(_, value)| event_of(value)).collect();
        let expected = self.siblings(&copy.known);
        assert_eq!(found.iter().copied().collect::<History>(), expected);
        assert_eq!(found.len(), expected.len(), "no event twice");
        assert_eq!(copy.object.sibling_count(), expected.len());
        for (dot, _) in copy.object.siblings() {
            assert!(copy.object.context().covers(dot));
        }
        let encoded = copy.object.encode();
        assert_eq!(encoded.len(), copy.object.encoded_len());
        assert_eq!(Object::decode(encoded), Ok(copy.object.clone()));
    }

    fn birth(&mut self) -> u64 {
        self.births += 1;
        self.births
    }

    /// The replica's own actor if it is of a state that is complete, else a new one.
    fn actor(&mut self, replica: usize) -> Actor {
        let incarnation = replica as u64;
        let own = self.replicas[replica].now.object.own_actor(incarnation);
        let floor = self.replicas[replica].birth_floor;
        own.filter(|actor| actor.birth >= floor).unwrap_or_else(|| Actor { incarnation, birth: self.birth() })
    }

    fn put(&mut self, copy: &mut Copy, actor: Actor, client: &Client) {
        let event = self.past.len() as Event;
        self.past.push(client.seen.clone());
        copy.object = copy.object.put(actor, &client.context, value_of(event));
        copy.known.extend(&client.seen);
        copy.known.insert(event);
    }

    fn put_at(&mut self, replica: usize, client: &Client) {
        let actor = self.actor(replica);
        let mut copy = std::mem::take(&mut self.replicas[replica].now);
        self.put(&mut copy, actor, client);
        self.replicas[replica].now = copy;
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Get { client, replica } => self.clients[client] = self.read(replica),
            Step::GetMore { client, replica } => {
                let read = self.read(replica);
                let client = &mut self.clients[client];
                client.context = client.context.join(&read.context);
                client.seen.extend(read.seen);
            }
            Step::Put { client, replica } => self.put_at(replica, &self.clients[client].clone()),
            Step::PutBlind { replica } => self.put_at(replica, &Client::default()),
            Step::Overwrite { replica } => {
                let everything = self.read(replica);
                let by_context = self.replicas[replica].now.object.clone();
                self.put_at(replica, &everything);
                let after = &self.replicas[replica].now.object;
                let Some((dot, value)) = after.siblings().next() else { panic!("nothing was written") };
                assert_eq!(by_context.overwrite(dot.actor, value.clone()), *after);
                assert_eq!(after.sibling_count(), 1);
            }
            Step::Send { replica } => self.network.push(self.replicas[replica].now.clone()),
            Step::Arrive { message, replica } => {
                if let Some(sent) = self.network.len().checked_sub(1).map(|last| message % (last + 1)) {
                    let sent = self.network[sent].clone();
                    receive(&mut self.replicas[replica].now, &sent);
                }
            }
            Step::PutElsewhere { client } => {
                let actor = Actor { incarnation: 99, birth: self.birth() };
                let mut copy = Copy::default();
                self.put(&mut copy, actor, &self.clients[client].clone());
                self.network.push(copy);
            }
            Step::Restart { replica } => {
                let floor = self.births + 1;
                let replica = &mut self.replicas[replica];
                replica.now = replica.saved.clone();
                replica.birth_floor = floor;
            }
            Step::Save { replica } => self.replicas[replica].saved = self.replicas[replica].now.clone(),
            Step::Wipe { replica } => {
                self.replicas[replica] = Replica { birth_floor: self.births + 1, ..Replica::default() };
            }
        }
    }

    fn read(&self, replica: usize) -> Client {
        let Copy { object, known } = &self.replicas[replica].now;
        let context = object.context();
        assert_eq!(Context::decode(&context.encode()), Ok(context.clone()));
        Client { context, seen: known.clone() }
    }
}

fn receive(copy: &mut Copy, sent: &Copy) {
    let merged = copy.object.merge(&sent.object);
    let changed = match copy.object.sync(&sent.object) {
        dynamo::object::Merged::Unchanged => copy.object.clone(),
        dynamo::object::Merged::Changed(changed) => {
            assert_ne!(changed, copy.object, "a change changes something");
            changed
        }
    };
    assert_eq!(changed, merged);
    copy.object = merged;
    copy.known.extend(&sent.known);
}

fn value_of(event: Event) -> Value {
    let payload = match event % 7 {
        6 => Payload::Tombstone,
        _ => Payload::Bytes(Bytes::from(event.to_string())),
    };
    Value { timestamp: Hlc(event), expires_at_ms: (event % 5 == 4).then_some(event), payload }
}

fn event_of(value: &Value) -> Event {
    assert_eq!(*value, value_of(value.timestamp.0));
    value.timestamp.0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// At every step every replica and every message holds exactly the maximal elements of its history; and when all
    /// that survives has met, every replica holds the same object.
    #[test]
    fn siblings_are_the_maximal_elements_of_the_history(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::default();
        for step in steps {
            world.take(step);
            for replica in &world.replicas {
                world.check(&replica.now);
            }
            if let Some(sent) = world.network.last() {
                world.check(sent);
            }
        }
        let forward = world.replicas.iter().map(|replica| &replica.now).chain(&world.network);
        let mut all = Copy::default();
        forward.clone().for_each(|copy| receive(&mut all, copy));
        let mut backward = Copy::default();
        forward.collect::<Vec<_>>().into_iter().rev().for_each(|copy| receive(&mut backward, copy));
        world.check(&all);
        prop_assert_eq!(&all.object, &backward.object);
        prop_assert_eq!(all.object.digest(), backward.object.digest());
        prop_assert_eq!(all.object.encode(), backward.object.encode());
        for replica in &world.replicas {
            prop_assert_eq!(all.object.merge(&replica.now.object), all.object.clone());
            prop_assert!(all.object.includes(&replica.now.object));
        }
    }

    /// The last writer is the sibling with the highest timestamp, deletes and expiry included, read either way.
    #[test]
    fn the_last_writer_is_the_newest_sibling(steps in prop::collection::vec(step(), 1..60), now_ms in 0u64..60) {
        let mut world = World::default();
        for step in steps {
            world.take(step);
        }
        for Replica { now, .. } in &world.replicas {
            let newest = world.siblings(&now.known).last().copied();
            let expected = newest.map(value_of).filter(|value| {
                value.payload != Payload::Tombstone && value.expires_at_ms.is_none_or(|at| at > now_ms)
            });
            prop_assert_eq!(now.object.last_writer(now_ms), expected.as_ref());
            prop_assert_eq!(dynamo::object::peek_last_writer(&now.object.encode(), now_ms), Ok(expected));
            prop_assert_eq!(now.object.max_timestamp(), newest.map(Hlc));
        }
    }
}

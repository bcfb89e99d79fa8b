//! Clients that change counters, sets and hashes, and write if a condition holds.

use super::{Change, Command, Held, Told, check, value_of};
use crate::host::{RESP_PORT, name};
use crate::resp::{Connection, Reply};
use crate::scenario::{pick, stream};
use crate::shared::{Phase, Shared};
use crate::{client, trace, wire};
use annulus_node::net::Connector;
use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A node answers within its request timeout; a connection that is cut does not say so.
const PATIENCE: Duration = Duration::from_millis(2500);
/// How long the same keys are raced for with `NX` before there are new ones.
const RACE: Duration = Duration::from_secs(2);
/// Errors that say that nothing was written, as `docs/redis.md` lists them.
const NOTHING_WRITTEN: [&str; 4] = ["LOADING", "OVERLOADED", "TRYAGAIN", "DISKFULL"];
/// Increments are below this and so different from each other that their sum tells which of them are in it.
const STEP_END: i64 = 1 << 40;

/// One client, with its connections.
pub struct Client {
    shared: Arc<Shared>,
    connector: Connector,
    rng: StdRng,
    connections: BTreeMap<usize, Connection>,
    /// The value it has read last of each key that is written to on conditions.
    known: BTreeMap<Bytes, Bytes>,
}

impl Client {
    /// The client with this number.
    #[must_use]
    pub fn new(shared: &Arc<Shared>, number: u64) -> Self {
        Self {
            connector: wire::connector(shared, client::HOST + 100 + number),
            rng: stream(shared.scenario.seed, 1000 + number),
            shared: shared.clone(),
            connections: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    /// Works until the chaos is over.
    pub async fn work(mut self) {
        while self.shared.phase() == Phase::Chaos {
            let members: Vec<usize> = self.shared.wanted.lock().slots.iter().copied().collect();
            let slot = *pick(&mut self.rng, &members);
            self.step(slot).await;
            let pause = self.shared.scenario.think_max.mul_f64(2.0 * self.rng.random::<f64>());
            tokio::time::sleep(pause).await;
        }
    }

    async fn step(&mut self, slot: usize) {
        let which = self.rng.random_range(0..2);
        let step = self.rng.random_range(-STEP_END..STEP_END);
        let name = |kind: &str, number: u32| Bytes::from(format!("{kind}{number}"));
        let member = name("m", self.rng.random_range(0..4));
        let (key, command) = match self.rng.random_range(0..100) {
            0..20 => (name("counter-", which), Command::Increment(step)),
            20..35 => (name("set-", which), Command::Add(member)),
            35..45 => (name("set-", which), Command::Remove(member)),
            45..55 => (name("hash-", which), Command::SetField(member)),
            55..60 => (name("hash-", which), Command::RemoveField(member)),
            60..67 => (name("hash-", which), Command::IncrementField(name("n", which), step)),
            67..92 => self.conditional(),
            _ => {
                let kind = *pick(&mut self.rng, &["counter-", "set-"]);
                let key = name(kind, which);
                let began = trace::now();
                if let Some(held) = self.read(slot, &key).await {
                    check::read(&self.shared, &key, &held, began);
                }
                return;
            }
        };
        self.change(slot, key, command).await;
    }

    /// A command that tests before it writes, to a key that others race for at this time.
    fn conditional(&mut self) -> (Bytes, Command) {
        let race = trace::now().as_millis() / RACE.as_millis();
        let key = Bytes::from(format!("owned-{race}"));
        let command = match (self.known.get(&key), self.rng.random_range(0..10)) {
            (None, _) | (_, 0) => Command::Create,
            (_, 1) => Command::Overwrite,
            (Some(value), _) => Command::Replace(value.clone()),
        };
        (key, command)
    }

    async fn change(&mut self, slot: usize, key: Bytes, command: Command) {
        let began = trace::now();
        let id = {
            let mut changes = self.shared.changes.lock();
            let change =
                Change { key: key.clone(), command: command.clone(), began, ended: None, told: Told::Unsure };
            changes.push(change);
            changes.len() - 1
        };
        let own = value_of(id);
        let conditional = matches!(command, Command::Create | Command::Overwrite | Command::Replace(_));
        let words = self.words(&key, &command, &own);
        let words: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
        let told = match self.call(slot, &words).await {
            None => Told::Unsure,
            Some(Reply::Error(error)) if NOTHING_WRITTEN.iter().any(|known| error.starts_with(known)) => {
                Told::NotDone
            }
            Some(Reply::Error(_)) => Told::Unsure,
            Some(Reply::Bulk(None)) => Told::NotDone,
            Some(Reply::Line(number)) if conditional && number == "0" => Told::NotDone,
            Some(_) => Told::Done,
        };
        let change = {
            let mut changes = self.shared.changes.lock();
            let change = &mut changes[id];
            (change.told, change.ended) = (told, Some(trace::now()));
            change.clone()
        };
        self.shared.trace.note(b'c', id as u64, format!("{change:?}").as_bytes());
        if !conditional {
            return;
        }
        match told {
            Told::Done => drop(self.known.insert(key, own)),
            // Others have been here: look again.
            Told::NotDone | Told::Unsure => match self.read(slot, &key).await {
                Some(Held::Value(Some(value))) => drop(self.known.insert(key, value)),
                _ => drop(self.known.remove(&key)),
            },
        }
    }

    fn words(&mut self, key: &Bytes, command: &Command, own: &Bytes) -> Vec<Bytes> {
        let word = Bytes::from_static;
        let number = |number: i64| Bytes::from(number.to_string());
        let mut words = match command {
            Command::Increment(step) if *step < 0 => vec![word(b"DECRBY"), number(-step)],
            Command::Increment(step) => vec![word(b"INCRBY"), number(*step)],
            Command::Add(member) => vec![word(b"SADD"), member.clone()],
            Command::Remove(member) => vec![word(b"SREM"), member.clone()],
            Command::SetField(field) => vec![word(b"HSET"), field.clone(), own.clone()],
            Command::RemoveField(field) => vec![word(b"HDEL"), field.clone()],
            Command::IncrementField(field, step) => vec![word(b"HINCRBY"), field.clone(), number(*step)],
            Command::Create if self.rng.random_bool(0.5) => vec![word(b"SETNX"), own.clone()],
            Command::Create => vec![word(b"SET"), own.clone(), word(b"NX")],
            Command::Overwrite => vec![word(b"SET"), own.clone(), word(b"XX")],
            Command::Replace(before) => vec![word(b"SET"), own.clone(), word(b"IFEQ"), before.clone()],
        };
        words.insert(1, key.clone());
        words
    }

    async fn read(&mut self, slot: usize, key: &Bytes) -> Option<Held> {
        let command: &[u8] = match key.first() {
            Some(b's') => b"SMEMBERS",
            Some(b'h') => b"HGETALL",
            _ => b"GET",
        };
        match (command, self.call(slot, &[command, key]).await?) {
            (b"GET", Reply::Bulk(value)) => Some(Held::Value(value)),
            (b"SMEMBERS", Reply::Array(members)) => Some(Held::Members(members)),
            (b"HGETALL", Reply::Array(words)) => {
                let pairs = words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
                Some(Held::Fields(pairs.collect()))
            }
            _ => None,
        }
    }

    /// The reply; `None`: there was none.
    async fn call(&mut self, slot: usize, words: &[&[u8]]) -> Option<Reply> {
        let address = format!("{}:{RESP_PORT}", name(slot));
        let work = async {
            let mut connection = match self.connections.remove(&slot) {
                Some(connection) => connection,
                None => Connection::open(&self.connector, address).await.ok()?,
            };
            let reply = connection.call(words).await.ok()?;
            self.connections.insert(slot, connection);
            Some(reply)
        };
        tokio::time::timeout(PATIENCE, work).await.ok().flatten()
    }
}

/// Reads every key from all its replicas, when everything is at rest.
pub async fn read_everything(shared: &Arc<Shared>) {
    let keys: BTreeSet<Bytes> = shared.changes.lock().iter().map(|change| change.key.clone()).collect();
    let slots: Vec<usize> = shared.wanted.lock().slots.iter().copied().collect();
    let mut client = Client::new(shared, 0);
    let n = shared.wanted.lock().quorums.n.to_string();
    for key in keys {
        let mut held = None;
        for _ in 0..20 {
            let slot = *pick(&mut client.rng, &slots);
            let all: [&[u8]; 5] = [b"ANNULUS", b"CONSISTENCY", n.as_bytes(), n.as_bytes(), b"STRICT"];
            if let Some(Reply::Line(_)) = client.call(slot, &all).await {
                held = client.read(slot, &key).await;
            }
            if held.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        match held {
            Some(held) => drop(shared.held.lock().insert(key, held)),
            None => {
                shared.find("serves-when-healed", format!("{key:?} cannot be read from all replicas"));
                return;
            }
        }
    }
}

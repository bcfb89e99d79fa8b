//! Clients: what they ask for is drawn from the seed, what they are told goes into the history.

use crate::check;
use crate::history::{Kind, Op, OpId, Outcome};
use crate::host::{GRPC_PORT, RESP_PORT, name};
use crate::oracle::{op_of_bytes, payload};
use crate::resp;
use crate::scenario::{pick, stream};
use crate::shared::{Phase, Shared, Volume};
use crate::trace;
use crate::wire;
use annulus_node::net::{self, Connector};
use annulus_proto::v1::key_value_client::KeyValueClient;
use annulus_proto::v1::{DeleteRequest, GetRequest, PutRequest, Quorum};
use bytes::Bytes;
use dynamo::object::Context;
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::transport::Channel;

/// Number of the clients' host in the trace.
pub const HOST: u64 = 200;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A node answers within its request timeout; a connection that is cut does not say so.
const PATIENCE: Duration = Duration::from_millis(2500);

/// One client, with its connections.
pub struct Client {
    shared: Arc<Shared>,
    connector: Connector,
    rng: StdRng,
    grpc: BTreeMap<usize, KeyValueClient<Channel>>,
    resp: BTreeMap<usize, resp::Connection>,
    /// What it has read of each key last, to put with.
    known: BTreeMap<Bytes, Context>,
}

/// What to ask for.
struct Ask {
    slot: usize,
    kind: Kind,
    key: Bytes,
    given: Option<Context>,
    strict: bool,
    over_resp: bool,
}

impl Client {
    /// The client with this number.
    #[must_use]
    pub fn new(shared: &Arc<Shared>, number: u64) -> Self {
        Self {
            connector: wire::connector(shared, HOST + number),
            rng: stream(shared.scenario.seed, 100 + number),
            shared: shared.clone(),
            grpc: BTreeMap::new(),
            resp: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    /// Works until the chaos is over.
    pub async fn work(mut self) {
        while self.shared.phase() == Phase::Chaos {
            let ask = self.choose();
            self.carry_out(ask).await;
            let pause = self.shared.scenario.think_max.mul_f64(self.rng.random::<f64>());
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads a key from as many replicas as it has, again and again until it works or patience ends.
    pub async fn read_fully(&mut self, key: &Bytes, slots: &[usize]) -> Option<OpId> {
        for _ in 0..20 {
            let slot = *pick(&mut self.rng, slots);
            let ask = Ask { slot, kind: Kind::Get, key: key.clone(), given: None, strict: true, over_resp: false };
            let replicas = u32::from(self.shared.wanted.lock().quorums.n);
            let id = self.begin(&ask);
            let outcome = self.over_grpc(id, &ask, replicas).await;
            self.end(id, outcome);
            if matches!(self.shared.history.lock()[id.0 as usize].outcome, Outcome::Read { .. }) {
                return Some(id);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        None
    }

    /// Writes a new key by way of one node; returns the slot that coordinated the write and the timestamp given to it.
    pub async fn write_once(&mut self, key: &Bytes, slot: usize) -> Option<(usize, u64)> {
        let mut client = self.grpc_client(slot).await?;
        let request =
            PutRequest { key: key.clone(), value: Bytes::from_static(b"probe"), ..PutRequest::default() };
        let answer = tokio::time::timeout(PATIENCE, client.put(request)).await.ok()?.ok()?;
        let answer = answer.into_inner();
        let (actor, _) = Context::decode(&answer.context).ok()?.iter().last()?;
        let slots = self.shared.slots.lock();
        let is_actor = |volume: &Volume| volume.incarnation.as_u64_pair().1 == actor.incarnation;
        let coordinator = slots.iter().position(|slot| slot.volume.as_ref().is_some_and(is_actor))?;
        Some((coordinator, answer.timestamp))
    }

    fn choose(&mut self) -> Ask {
        let members: Vec<usize> = self.shared.wanted.lock().slots.iter().copied().collect();
        let slot = *pick(&mut self.rng, &members);
        let key = Bytes::from(format!("k{}", self.rng.random_range(0..self.shared.scenario.keys)));
        let known = self.known.get(&key).cloned();
        let (kind, given) = match self.rng.random_range(0..100) {
            0..35 => (Kind::Get, None),
            // A put without a context stands beside what is there; not so often that siblings pile up.
            35..43 => (Kind::Put, Some(Context::default())),
            43..70 => (Kind::Put, Some(known.unwrap_or_default())),
            70..85 => (Kind::Overwrite, None),
            85..95 => (Kind::Delete, known.filter(|context| !context.is_empty())),
            _ => (Kind::Delete, None),
        };
        let over_resp = given.is_none() && self.rng.random_bool(0.3);
        let strict = !over_resp && self.rng.random_bool(0.5);
        Ask { slot, kind, key, given, strict, over_resp }
    }

    async fn carry_out(&mut self, ask: Ask) {
        let id = self.begin(&ask);
        let outcome = match ask.over_resp {
            true => self.over_resp(id, &ask).await,
            false => self.over_grpc(id, &ask, 0).await,
        };
        if let Outcome::Read { context: Some(context), .. } = &outcome {
            self.known.insert(ask.key.clone(), context.clone());
        }
        if ask.kind != Kind::Get {
            self.known.remove(&ask.key);
        }
        self.end(id, outcome);
    }

    fn begin(&self, ask: &Ask) -> OpId {
        let disks_lost = self.shared.disks_lost.load(Ordering::Relaxed);
        self.shared.begin(|id, began| Op {
            id,
            kind: ask.kind,
            key: ask.key.clone(),
            given: ask.given.clone(),
            strict: ask.strict || !self.shared.scenario.quorums.sloppy,
            began,
            ended: None,
            outcome: Outcome::Unknown,
            disks_lost,
        })
    }

    fn end(&self, id: OpId, outcome: Outcome) {
        let op = {
            let mut history = self.shared.history.lock();
            let op = &mut history[id.0 as usize];
            op.ended = Some(trace::now());
            op.outcome = outcome;
            op.clone()
        };
        self.shared.trace.note(b'o', u64::from(id.0), format!("{:?}", op.outcome).as_bytes());
        check::answered(&self.shared, &op);
    }

    async fn over_grpc(&mut self, id: OpId, ask: &Ask, replicas: u32) -> Outcome {
        let Some(mut client) = self.grpc_client(ask.slot).await else {
            return Outcome::Failed(String::from("no connection"));
        };
        let quorum = Some(Quorum { replicas, strict: ask.strict });
        let key = ask.key.clone();
        let context = ask.given.as_ref().map(Context::encode).unwrap_or_default();
        let filling = self.rng.random_range(0..64);
        let answer = tokio::time::timeout(PATIENCE, async {
            match ask.kind {
                Kind::Get => client.get(GetRequest { key, quorum }).await.map(|got| {
                    let got = got.into_inner();
                    let values = got.siblings.iter().map(|sibling| op_of_bytes(&sibling.value)).collect();
                    Outcome::Read { values, context: Context::decode(&got.context).ok() }
                }),
                Kind::Put | Kind::Overwrite => {
                    let value = payload(id, filling);
                    let overwrite = ask.kind == Kind::Overwrite;
                    let request = PutRequest { key, value, context, quorum, overwrite, ..PutRequest::default() };
                    client.put(request).await.map(|_| Outcome::Written)
                }
                Kind::Delete => {
                    client.delete(DeleteRequest { key, context, quorum }).await.map(|_| Outcome::Written)
                }
            }
        });
        match answer.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(status)) => {
                if status.code() != tonic::Code::Unavailable || status.message().contains("transport") {
                    self.grpc.remove(&ask.slot);
                }
                Outcome::Failed(status.message().to_owned())
            }
            Err(_) => {
                self.grpc.remove(&ask.slot);
                Outcome::Unknown
            }
        }
    }

    async fn grpc_client(&mut self, slot: usize) -> Option<KeyValueClient<Channel>> {
        if let Some(client) = self.grpc.get(&slot) {
            return Some(client.clone());
        }
        let address = format!("{}:{GRPC_PORT}", name(slot));
        let channel = net::channel(&self.connector, &address, CONNECT_TIMEOUT).await.ok()?;
        let client = KeyValueClient::new(channel);
        self.grpc.insert(slot, client.clone());
        Some(client)
    }

    async fn over_resp(&mut self, id: OpId, ask: &Ask) -> Outcome {
        let address = format!("{}:{RESP_PORT}", name(ask.slot));
        let filling = self.rng.random_range(0..64);
        let work = async {
            let mut connection = match self.resp.remove(&ask.slot) {
                Some(connection) => connection,
                None => resp::Connection::open(&self.connector, address).await.ok()?,
            };
            let value = payload(id, filling);
            let reply = match ask.kind {
                Kind::Get => connection.call(&[b"GET", &ask.key]).await,
                Kind::Put | Kind::Overwrite => connection.call(&[b"SET", &ask.key, &value]).await,
                Kind::Delete => connection.call(&[b"DEL", &ask.key]).await,
            };
            let reply = reply.ok()?;
            self.resp.insert(ask.slot, connection);
            Some(reply)
        };
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(Some(resp::Reply::Error(error))) => Outcome::Failed(error),
            Ok(Some(reply)) if ask.kind == Kind::Get => {
                let values = match reply {
                    resp::Reply::Bulk(Some(value)) => vec![op_of_bytes(&value)],
                    _ => Vec::new(),
                };
                Outcome::Read { values, context: None }
            }
            Ok(Some(_)) => Outcome::Written,
            Ok(None) | Err(_) => Outcome::Unknown,
        }
    }
}

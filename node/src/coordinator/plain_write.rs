//! The usual write, without ado: this node is a replica of the key, all others can be reached, and the lists stay.
//!
//! One object in memory counts the copies. Answers of peers come to it directly, not to a task that waits for each, and
//! nobody is woken by an answer that decides nothing. As soon as anything else happens, [`Replication`] takes over,
//! which can do it all.

use super::replicate::{Arrival, Replication, arrival_of_store};
use super::{Coordinator, RequestError, Write, WriteOptions, Written};
use crate::peers::{Answer, Listener, Peer};
use crate::planted;
use crate::replica::{Coordinated, InFlight, ReplicaError};
use crate::ring_state::Installed;
use crate::storage::{StorageError, Submitted};
use annulus_proto::v1::{reply, request::Operation};
use bytes::Bytes;
use dynamo::preference::MemberIndex;
use parking_lot::Mutex;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, Waker};
use tokio::time::Instant;

/// The other replicas of a key.
type Holders = Vec<(MemberIndex, Arc<Peer>)>;

/// A write under way, and what is known of its copies.
struct PlainWrite {
    coordinator: Coordinator,
    installed: Arc<Installed>,
    key: Bytes,
    object: Bytes,
    options: WriteOptions,
    /// Copies that the client waits for.
    need: usize,
    began: Instant,
    flight: InFlight,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the other replicas; `None`: has yet to come.
    answers: Vec<(MemberIndex, Option<Answer>)>,
    /// Those that have it.
    stored: usize,
    /// Something else came than that it was stored.
    troubled: bool,
    here: Here,
    phase: Phase,
    /// Who waits: the client's task, or after that whoever has taken over.
    waiting: Vec<Waker>,
}

/// This node's own copy.
#[derive(Clone, Default)]
enum Here {
    #[default]
    Queued,
    Stored,
    Failed(StorageError),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// The client waits.
    #[default]
    Counting,
    /// The client was answered.
    Answered,
    /// A [`Replication`] sees to the rest.
    TakenOver,
}

impl Coordinator {
    /// Coordinates the write here if that is as simple as it usually is. `None`: it is not, and nothing was done.
    pub(super) async fn write_plainly(
        &self,
        key: &Bytes,
        write: &Write,
        options: WriteOptions,
    ) -> Option<Result<Written, RequestError>> {
        let installed = self.parts.ring.load()?;
        let token = installed.view.token(key);
        let (need, peers) = self.plain_peers(&installed, token, options)?;
        let (replica, since) = (&self.parts.replica, installed.view.since(token));
        let flight = replica.take_off();
        let coordinated = match replica.try_coordinate(token, key, write.clone(), since) {
            Ok(coordinated) => coordinated,
            Err(
                ReplicaError::Stale
                | ReplicaError::Behind
                | ReplicaError::Storage(StorageError::Overloaded { .. }),
            ) => return None,
            Err(error) => return Some(Err(error.into())),
        };
        let Coordinated { encoded: object, object: decoded, timestamp, existed, durable } = coordinated;
        let written = Written { timestamp, context: decoded.context(), existed };
        let plain = Arc::new(PlainWrite {
            coordinator: self.clone(),
            installed,
            key: key.clone(),
            object,
            options,
            need,
            began: Instant::now(),
            flight,
            state: Mutex::default(),
        });
        plain.send(peers, since);
        Some(plain.finish(durable).await.map(|()| written))
    }

    /// How many copies are needed, and the peers that hold the key besides this node, if the write is a plain one.
    fn plain_peers(
        &self,
        installed: &Installed,
        token: dynamo::token::Token,
        options: WriteOptions,
    ) -> Option<(usize, Holders)> {
        let placement = installed.view.placement(installed.view.partition(token))?;
        let me = installed.me?;
        let list = &placement.preference;
        let plain = placement.also.is_none() && !options.fenced && list.contains(&me);
        if !plain || planted::is("quorum-counts-a-node-twice") {
            return None;
        }
        let others = list.iter().filter(|&&member| member != me);
        let up = |&member| {
            let peer = self.parts.peers.by_index(member).filter(|peer| peer.is_up())?;
            Some((member, peer))
        };
        let peers: Holders = others.map(up).collect::<Option<_>>()?;
        let w = options.replicas.map_or_else(|| installed.view.ring().quorums.of_list(list.len()).1, usize::from);
        Some((w.clamp(1, peers.len() + 1), peers))
    }
}

impl PlainWrite {
    fn send(self: &Arc<Self>, peers: Holders, since: u64) {
        self.state.lock().answers = peers.iter().map(|(member, _)| (*member, None)).collect();
        for (member, peer) in peers {
            let store = Operation::Store(self.object.clone());
            if let Err(error) = peer.send(self.key.clone(), since, store, member, self.clone()) {
                self.clone().hear(member, Err(error));
            }
        }
    }

    /// Returns once enough have it durably.
    async fn finish(self: Arc<Self>, durable: Submitted) -> Result<(), RequestError> {
        let limits = &self.coordinator.parts.limits;
        let mut durable = Some(durable);
        let mut slow = pin!(tokio::time::sleep_until(self.began + limits.replica_timeout));
        let counted = poll_fn(|cx| {
            if let Some(Poll::Ready(outcome)) = durable.as_mut().map(|durable| Pin::new(durable).poll(cx)) {
                durable = None;
                self.state.lock().here_is(outcome);
            }
            let mut state = self.state.lock();
            if state.troubled {
                return Poll::Ready(false);
            }
            if state.copies() >= self.need {
                state.phase = Phase::Answered;
                return Poll::Ready(true);
            }
            state.waiting.clear();
            state.waiting.push(cx.waker().clone());
            drop(state);
            slow.as_mut().poll(cx).map(|()| false)
        });
        if !counted.await {
            let until = self.began + limits.request_timeout;
            let replication = Box::pin(self.clone().take_over(durable).run());
            let timed_out = Err(RequestError::TimedOut(limits.request_timeout));
            return tokio::time::timeout_at(until, replication).await.unwrap_or(timed_out);
        }
        if let Some(durable) = durable {
            tokio::spawn(self.watch(durable));
        }
        Ok(())
    }

    /// The client was answered before this node's own copy was durable. Should it fail, it has to be made up for.
    async fn watch(self: Arc<Self>, durable: Submitted) {
        let outcome = durable.await;
        let failed = outcome.is_err();
        self.state.lock().here_is(outcome);
        if failed {
            self.take_over(None).go_on_behind();
        }
    }

    /// Has a [`Replication`] go on from what is known now.
    fn take_over(self: Arc<Self>, durable: Option<Submitted>) -> Replication {
        let (members, here) = {
            let mut state = self.state.lock();
            state.phase = Phase::TakenOver;
            let members: Vec<_> = state.answers.iter().map(|(member, _)| *member).collect();
            (members, state.here.clone())
        };
        let (installed, key, object) = (self.installed.clone(), self.key.clone(), self.object.clone());
        let me = installed.me;
        let mut replication =
            Replication::new(&self.coordinator, installed, key, object, self.options, self.flight.clone());
        replication.slow_from(self.began + self.coordinator.parts.limits.replica_timeout);
        if let Some(durable) = durable {
            replication.count_local(durable);
        } else if let Some(me) = me {
            let arrival = match here {
                Here::Failed(error) => Arrival::Failed { member: me, why: error.to_string() },
                Here::Queued | Here::Stored => Arrival::Stored(me),
            };
            replication.take_over(me, std::future::ready(arrival));
        }
        for member in members {
            replication.take_over(member, self.clone().answer_of(member));
        }
        replication
    }

    async fn answer_of(self: Arc<Self>, member: MemberIndex) -> Arrival {
        let answer = poll_fn(|cx| {
            let mut state = self.state.lock();
            let known = state.answers.iter_mut().find(|(other, _)| *other == member);
            // Left where it is: should this node's own copy fail later, that is taken over apart.
            match known.and_then(|(_, answer)| answer.clone()) {
                Some(answer) => Poll::Ready(answer),
                None => {
                    state.waiting.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        arrival_of_store(member, answer.await)
    }
}

impl State {
    fn copies(&self) -> usize {
        self.stored + usize::from(matches!(self.here, Here::Stored))
    }

    fn here_is(&mut self, outcome: Result<(), StorageError>) {
        match outcome {
            Ok(()) => self.here = Here::Stored,
            Err(error) => {
                self.here = Here::Failed(error);
                self.troubled = true;
            }
        }
    }
}

impl Listener for PlainWrite {
    fn hear(self: Arc<Self>, member: MemberIndex, answer: Answer) {
        let mut state = self.state.lock();
        let stored = matches!(answer, Ok(reply::Result::Stored(_)));
        state.stored += usize::from(stored);
        state.troubled |= !stored;
        if let Some((_, known)) = state.answers.iter_mut().find(|(other, _)| *other == member) {
            *known = Some(answer);
        }
        match state.phase {
            Phase::Counting if !state.troubled && state.copies() < self.need => {}
            Phase::Counting | Phase::TakenOver => {
                let waiting = std::mem::take(&mut state.waiting);
                drop(state);
                waiting.into_iter().for_each(Waker::wake);
            }
            Phase::Answered if stored => {}
            Phase::Answered => {
                drop(state);
                self.take_over(None).go_on_behind();
            }
        }
    }
}

//! A read: ask r replicas, merge what they have, repair those that had less.

use super::{Coordinator, ReadOptions, RequestError};
use crate::planted;
use crate::replica::InFlight;
use crate::ring_state::Installed;
use annulus_proto::v1::{Read, ReadHint, reply, request::Operation};
use bytes::Bytes;
use dynamo::object::Object;
use dynamo::preference::MemberIndex;
use dynamo::quorum::{Progress, ReadQuorum};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// A replica that has not answered after this time is given company if the budget allows, however long it usually takes.
const HEDGE_AFTER_MAX: Duration = Duration::from_millis(50);
/// And not before this time, however fast it usually is.
const HEDGE_AFTER_MIN: Duration = Duration::from_millis(1);
/// How long a read waits for a ring that a replica has and this node has not.
const RING_WAIT_MAX: Duration = Duration::from_secs(2);

/// What one replica answered.
enum Answer {
    Object {
        member: MemberIndex,
        object: Bytes,
    },
    Stale {
        epoch: u64,
    },
    Failed {
        member: MemberIndex,
        why: String,
    },
    /// One that was asked in the place of a member.
    FallbackFailed {
        member: MemberIndex,
        fallback: MemberIndex,
        why: String,
    },
}

/// What a round of asking found.
enum Round {
    Read(Object),
    RingChanged,
}

/// One read under way.
struct Asking<'a> {
    coordinator: &'a Coordinator,
    installed: Arc<Installed>,
    partition: u32,
    key: &'a Bytes,
    sloppy: bool,
    quorum: ReadQuorum,
    next: VecDeque<MemberIndex>,
    /// Those not yet asked; `None`: none was needed so far.
    fallbacks: Option<VecDeque<MemberIndex>>,
    answers: Vec<(Option<MemberIndex>, Bytes)>,
    failures: Vec<String>,
    under_way: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// Until what was read has been used for repair.
    flight: InFlight,
}

impl Coordinator {
    /// Reads a key from r replicas.
    pub(super) async fn read(&self, key: Bytes, options: ReadOptions) -> Result<Object, RequestError> {
        if let Some(object) = self.read_plainly(&key, options).await {
            return object;
        }
        // Boxed, so that the usual read, which does not come here, is no larger for it.
        Box::pin(self.in_time(self.read_from_many(&key, options))).await
    }

    async fn read_from_many(&self, key: &Bytes, options: ReadOptions) -> Result<Object, RequestError> {
        loop {
            let installed = self.installed()?;
            match Asking::new(self, installed, key, options).run().await? {
                Round::Read(object) => return Ok(object),
                Round::RingChanged => {}
            }
        }
    }

    fn repair(
        &self,
        installed: &Installed,
        key: &Bytes,
        merged: &Bytes,
        behind: Vec<MemberIndex>,
        flight: &InFlight,
    ) {
        let token = installed.view.token(key);
        let since = installed.view.since(token);
        for member in behind {
            let (key, merged, flight) = (key.clone(), merged.clone(), flight.clone());
            if installed.me == Some(member) {
                let replica = self.parts.replica.clone();
                tokio::spawn(async move {
                    let _ = replica.merge(token, &key, merged, since).await;
                    drop(flight);
                });
            } else if let Some(peer) = self.parts.peers.by_index(member) {
                tokio::spawn(async move {
                    let _ = peer.request(key, since, Operation::Store(merged)).await;
                    drop(flight);
                });
            }
        }
    }
}

impl<'a> Asking<'a> {
    fn new(coordinator: &'a Coordinator, installed: Arc<Installed>, key: &'a Bytes, options: ReadOptions) -> Self {
        let partition = installed.view.partition(installed.view.token(key));
        let quorums = installed.view.ring().quorums;
        let list =
            installed.view.placement(partition).map(|placement| placement.preference.clone()).unwrap_or_default();
        let quorum = ReadQuorum::new(&list, replicas(&installed, &list, options));
        let me = installed.me;
        let up = |&member: &MemberIndex| {
            me == Some(member) || coordinator.parts.peers.by_index(member).is_some_and(|peer| peer.is_up())
        };
        // This node first, which costs no hop; then who can be reached; then the others, to be refused at once.
        let mut next: Vec<MemberIndex> = list;
        next.sort_by_key(|member| (me != Some(*member), !up(member)));
        Self {
            coordinator,
            partition,
            key,
            sloppy: quorums.sloppy && (!options.strict || planted::is("strict-ignored-by-reads")),
            quorum,
            next: next.into(),
            fallbacks: None,
            answers: Vec::new(),
            failures: Vec::new(),
            under_way: FuturesUnordered::new(),
            flight: coordinator.parts.replica.take_off(),
            installed,
        }
    }

    async fn run(mut self) -> Result<Round, RequestError> {
        self.coordinator.parts.hedging.lock().earn();
        let mut usual = HEDGE_AFTER_MIN;
        for _ in 0..self.quorum.needed() {
            usual = usual.max(self.usual_of_next());
            self.ask_next();
        }
        let began = Instant::now();
        let mut hedge = began + usual;
        loop {
            let answer = tokio::select! {
                biased;
                answer = self.under_way.next() => answer,
                () = tokio::time::sleep_until(hedge), if !self.next.is_empty() => {
                    hedge += usual;
                    // A replica that is out of order, and not only slow, is replaced at any cost.
                    let overdue = began.elapsed() >= self.coordinator.parts.limits.replica_timeout / 2;
                    if overdue || self.coordinator.parts.hedging.lock().spend() {
                        self.coordinator.parts.hedged.fetch_add(u64::from(!overdue), Ordering::Relaxed);
                        usual = self.usual_of_next();
                        self.ask_next();
                        hedge = Instant::now() + usual;
                    }
                    continue;
                }
            };
            let progress = match answer {
                None => return Err(self.unavailable()),
                Some(Answer::Stale { epoch }) => {
                    let reached = self.coordinator.parts.ring.reached(epoch);
                    let _ = tokio::time::timeout(RING_WAIT_MAX, reached).await;
                    return Ok(Round::RingChanged);
                }
                Some(Answer::Object { member, object }) => {
                    self.answers.push((Some(member), object));
                    self.quorum.add_answer(member)
                }
                Some(Answer::Failed { member, why }) => {
                    self.failures.push(format!("{} ({why})", self.name(member)));
                    self.ask_next_or_fallback(member);
                    self.quorum.add_failure(member)
                }
                Some(Answer::FallbackFailed { member, fallback, why }) => {
                    let (name, of) = (self.name(fallback), self.name(member));
                    self.failures.push(format!("{name} in the place of {of} ({why})"));
                    self.ask_next_or_fallback(member);
                    self.quorum.add_failure(member)
                }
            };
            match progress {
                Progress::Done => return self.merge().map(Round::Read),
                Progress::Failed { .. } if self.under_way.is_empty() => return Err(self.unavailable()),
                Progress::Failed { .. } | Progress::Waiting => {}
            }
        }
    }

    fn name(&self, member: MemberIndex) -> &str {
        self.installed.view.member(member).map_or("?", |member| member.name.as_str())
    }

    /// How long the one to be asked next may take before another is.
    fn usual_of_next(&self) -> Duration {
        let peer = self.next.front().and_then(|&member| self.coordinator.parts.peers.by_index(member));
        peer.map_or(HEDGE_AFTER_MIN, |peer| hedge_after(peer.observed().usual_read()))
    }

    fn ask_next(&mut self) {
        if let Some(member) = self.next.pop_front() {
            self.ask(member);
        }
    }

    fn ask_next_or_fallback(&mut self, failed: MemberIndex) {
        if !self.next.is_empty() {
            self.ask_next();
        } else if self.sloppy {
            self.ask_fallback(failed);
        }
    }

    fn ask(&self, member: MemberIndex) {
        let (key, since) = (self.key.clone(), self.installed.view.since_of(self.partition));
        if self.installed.me == Some(member) {
            let token = self.installed.view.token(&key);
            let read = self.coordinator.parts.replica.read(token, &key, since);
            let now = self.coordinator.parts.ring.epoch();
            self.under_way.push(Box::pin(async move {
                use crate::replica::ReplicaError;
                match read {
                    Ok(object) => Answer::Object { member, object: object.unwrap_or_default() },
                    Err(ReplicaError::Stale) => Answer::Stale { epoch: now },
                    Err(error) => Answer::Failed { member, why: error.to_string() },
                }
            }));
            return;
        }
        let peer = self.coordinator.parts.peers.by_index(member);
        self.under_way.push(Box::pin(async move {
            let Some(peer) = peer else { return Answer::Failed { member, why: String::from("not connected") } };
            match peer.request(key, since, Operation::Read(Read { known: None })).await {
                Ok(reply::Result::Object(object)) => Answer::Object { member, object },
                Ok(reply::Result::StaleEpoch(stale)) => Answer::Stale { epoch: stale.epoch },
                Ok(reply::Result::Failure(failure)) => Answer::Failed { member, why: failure.message },
                Ok(_) => Answer::Failed { member, why: String::from("protocol error") },
                Err(error) => Answer::Failed { member, why: error.to_string() },
            }
        }));
    }

    /// Asks the next reachable fallback for what it holds in the place of a member.
    fn ask_fallback(&mut self, target: MemberIndex) {
        let Some(incarnation) = self.installed.view.member(target).map(|member| member.incarnation) else {
            return;
        };
        while let Some(fallback) = self.next_fallback() {
            if self.installed.me == Some(fallback) {
                let token = self.installed.view.token(self.key);
                let held = self.coordinator.parts.replica.hints.read(incarnation, token, self.key);
                let Ok(object) = held else { continue };
                let object = object.unwrap_or_default();
                self.under_way.push(Box::pin(async move { Answer::Object { member: target, object } }));
                return;
            }
            let Some(peer) = self.coordinator.parts.peers.by_index(fallback).filter(|peer| peer.is_up()) else {
                continue;
            };
            let (key, since) = (self.key.clone(), self.installed.view.since_of(self.partition));
            let hint = ReadHint { incarnation: Bytes::copy_from_slice(incarnation.as_bytes()) };
            self.under_way.push(Box::pin(async move {
                let why = match peer.request(key, since, Operation::ReadHint(hint)).await {
                    Ok(reply::Result::Object(object)) => return Answer::Object { member: target, object },
                    Ok(reply::Result::StaleEpoch(stale)) => return Answer::Stale { epoch: stale.epoch },
                    Ok(reply::Result::Failure(failure)) => failure.message,
                    Ok(_) => String::from("protocol error"),
                    Err(error) => error.to_string(),
                };
                Answer::FallbackFailed { member: target, fallback, why }
            }));
            return;
        }
    }

    fn next_fallback(&mut self) -> Option<MemberIndex> {
        let (view, partition) = (&self.installed.view, self.partition);
        self.fallbacks.get_or_insert_with(|| view.fallbacks(partition).into()).pop_front()
    }

    fn merge(self) -> Result<Object, RequestError> {
        let undecodable = |error: dynamo::object::CodecError| RequestError::Storage(error.to_string());
        let first = self.answers.first().map(|(_, object)| object.clone()).unwrap_or_default();
        if self.answers.iter().all(|(_, object)| *object == first) {
            return decode(first).map_err(undecodable);
        }
        let mut merged = Object::default();
        for (_, object) in &self.answers {
            merged = merged.merge(&decode(object.clone()).map_err(undecodable)?);
        }
        let encoded = merged.encode();
        let behind = self
            .answers
            .iter()
            .filter(|(_, object)| *object != encoded)
            .filter_map(|(member, _)| *member)
            .collect();
        self.coordinator.repair(&self.installed, self.key, &encoded, behind, &self.flight);
        Ok(merged)
    }

    fn unavailable(&self) -> RequestError {
        debug_assert!(self.partition < self.installed.view.count().get());
        RequestError::Unavailable {
            got: self.answers.len(),
            need: self.quorum.needed(),
            missing: self.failures.join(", "),
        }
    }
}

/// How many replicas a read asks.
pub(super) fn replicas(installed: &Installed, list: &[MemberIndex], options: ReadOptions) -> usize {
    let quorums = &installed.view.ring().quorums;
    let scaled = || match planted::is("quorums-of-another-list-length") {
        true => usize::from(quorums.r),
        false => quorums.of_list(list.len()).0,
    };
    let r = options.replicas.map_or_else(scaled, usize::from);
    if planted::is("read-quorum-of-1") { 1 } else { r }
}

/// When another replica is asked as well, if one usually answers within this time.
pub(super) fn hedge_after(usual: Duration) -> Duration {
    usual.clamp(HEDGE_AFTER_MIN, HEDGE_AFTER_MAX)
}

/// An empty text stands for "nothing here".
pub(super) fn decode(object: Bytes) -> Result<Object, dynamo::object::CodecError> {
    if object.is_empty() { Ok(Object::default()) } else { Object::decode(object) }
}

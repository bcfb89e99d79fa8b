//! Getting one object to the replicas of its key, with fallbacks for those that cannot be reached.
//!
//! The counting is [`dynamo::quorum::WriteQuorum`]'s; this file sends, waits and tells it what came back.

use super::{Coordinator, RequestError, WriteOptions};
use crate::peers::PeerError;
use crate::planted;
use crate::replica::InFlight;
use crate::ring_state::Installed;
use crate::storage::Submitted;
use annulus_proto::v1::{Hint, reply, request::Operation};
use bytes::Bytes;
use dynamo::preference::MemberIndex;
use dynamo::quorum::{Outcome, Progress, WriteQuorum};
use dynamo::ring::Placement;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// How long a write waits for a ring that a replica has and this node has not.
const RING_WAIT_MAX: Duration = Duration::from_secs(2);

/// One object on its way to its replicas.
pub(super) struct Replication {
    coordinator: Coordinator,
    installed: Arc<Installed>,
    partition: u32,
    key: Bytes,
    object: Bytes,
    options: WriteOptions,
    quorum: WriteQuorum,
    sent: BTreeSet<MemberIndex>,
    /// Members whose place a fallback has been asked to take.
    covered: BTreeSet<MemberIndex>,
    /// Those not yet asked; `None`: none was needed so far.
    fallbacks: Option<VecDeque<MemberIndex>>,
    failures: Vec<(MemberIndex, String)>,
    under_way: FuturesUnordered<BoxFuture<'static, Arrival>>,
    /// When those that have not answered are taken for out of order.
    slow: Instant,
    /// Until the last message has ended.
    _flight: InFlight,
}

/// What came of one message.
pub(super) enum Arrival {
    /// The member has the object durably.
    Stored(MemberIndex),
    /// The fallback has a hint for the target durably.
    HintStored { target: MemberIndex, fallback: MemberIndex },
    /// It has none.
    HintFailed { target: MemberIndex },
    /// The member knows a newer ring.
    Stale { member: MemberIndex, epoch: u64 },
    /// The member may or may not have it.
    Failed { member: MemberIndex, why: String },
}

impl Replication {
    /// A replication that has sent nothing yet, of an object made after the flight took off.
    pub(super) fn new(
        coordinator: &Coordinator,
        installed: Arc<Installed>,
        key: Bytes,
        object: Bytes,
        options: WriteOptions,
        flight: InFlight,
    ) -> Self {
        let partition = installed.view.partition(installed.view.token(&key));
        let quorum = quorum(&installed, partition, options);
        Self {
            coordinator: coordinator.clone(),
            installed,
            partition,
            key,
            object,
            options,
            quorum,
            sent: BTreeSet::new(),
            covered: BTreeSet::new(),
            fallbacks: None,
            failures: Vec::new(),
            under_way: FuturesUnordered::new(),
            slow: Instant::now() + coordinator.parts.limits.replica_timeout,
            _flight: flight,
        }
    }

    /// Takes over what was sent to a member otherwise.
    pub(super) fn take_over(
        &mut self,
        member: MemberIndex,
        arrival: impl Future<Output = Arrival> + Send + 'static,
    ) {
        self.sent.insert(member);
        self.under_way.push(Box::pin(arrival));
    }

    /// Takes those for out of order that have not answered at this time.
    pub(super) fn slow_from(&mut self, slow: Instant) {
        self.slow = slow;
    }

    /// Counts this node's own copy once it is durable.
    pub(super) fn count_local(&mut self, durable: Submitted) {
        let Some(me) = self.installed.me else { return };
        self.sent.insert(me);
        self.under_way.push(Box::pin(async move {
            match durable.await {
                Ok(()) => Arrival::Stored(me),
                Err(error) => Arrival::Failed { member: me, why: error.to_string() },
            }
        }));
    }

    /// Sends, and returns once the quorum has the object durably. What is still under way then goes on behind.
    pub(super) async fn run(mut self) -> Result<(), RequestError> {
        self.send_to_holders();
        let slow = self.slow;
        let mut slow_covered = false;
        loop {
            let arrival = tokio::select! {
                arrival = self.under_way.next() => arrival,
                () = tokio::time::sleep_until(slow), if !slow_covered => {
                    slow_covered = true;
                    self.cover_silent();
                    continue;
                }
            };
            let Some(arrival) = arrival else { return Err(self.unavailable()) };
            match self.take(arrival).await {
                Progress::Done => {
                    self.go_on_behind();
                    return Ok(());
                }
                Progress::Failed { .. } if self.under_way.is_empty() => return Err(self.unavailable()),
                Progress::Failed { .. } | Progress::Waiting => {}
            }
        }
    }

    /// Sees to what is still under way, for which no client waits.
    pub(super) fn go_on_behind(mut self) {
        if self.under_way.is_empty() {
            return;
        }
        tokio::spawn(async move {
            while let Some(arrival) = self.under_way.next().await {
                self.take(arrival).await;
            }
        });
    }

    async fn take(&mut self, arrival: Arrival) -> Progress {
        match arrival {
            Arrival::Stored(member) => {
                if planted::is("quorum-counts-a-node-twice")
                    && let Some(&other) = self.quorum.missing().iter().find(|other| **other != member)
                {
                    self.quorum.add_result(other, Outcome::Stored);
                }
                self.quorum.add_result(member, Outcome::Stored)
            }
            Arrival::HintStored { target, fallback } => {
                self.quorum.add_result(target, Outcome::StoredByFallback(fallback))
            }
            Arrival::HintFailed { target } => {
                self.covered.remove(&target);
                self.cover(target)
            }
            Arrival::Failed { member, why } => {
                self.failures.push((member, why));
                self.cover(member)
            }
            Arrival::Stale { member, .. } if self.options.fenced => {
                self.failures.push((member, String::from("the lists of the key's partition have changed")));
                self.quorum.add_result(member, Outcome::Failed)
            }
            Arrival::Stale { member, epoch } => {
                self.sent.remove(&member);
                self.follow_ring(epoch).await;
                self.quorum.progress()
            }
        }
    }

    /// The lists changed: what was stored counts on, and whoever is new to the lists is sent the object too.
    async fn follow_ring(&mut self, epoch: u64) {
        let ring = &self.coordinator.parts.ring;
        let _ = tokio::time::timeout(RING_WAIT_MAX, ring.reached(epoch)).await;
        let Some(installed) = ring.load() else { return };
        if installed.view.epoch() > self.installed.view.epoch() {
            self.quorum = self.quorum.replace_lists(&lists(&installed, self.partition, self.options));
            self.fallbacks = None;
            self.installed = installed;
        }
        self.send_to_holders();
    }

    fn placement(&self) -> Option<&Placement> {
        self.installed.view.placement(self.partition)
    }

    /// Since when the lists are those by which the replicas are chosen.
    fn since(&self) -> u64 {
        self.installed.view.since_of(self.partition)
    }

    fn send_to_holders(&mut self) {
        let holders = self.placement().map(|placement| match planted::is("second-list-ignored") {
            true => placement.preference.clone(),
            false => placement.holders(),
        });
        for member in holders.unwrap_or_default() {
            if self.sent.insert(member) {
                self.send(member);
            }
        }
    }

    fn send(&mut self, member: MemberIndex) {
        if self.installed.me == Some(member) {
            // This node became a replica while the write was under way.
            self.under_way.push(self.store_here(member));
            return;
        }
        let Some(peer) = self.coordinator.parts.peers.by_index(member) else {
            let why = String::from("not connected");
            self.under_way.push(Box::pin(async move { Arrival::Failed { member, why } }));
            return;
        };
        let (key, object, since) = (self.key.clone(), self.object.clone(), self.since());
        // It is sent the object all the same, should it be there after all; but nobody waits for it.
        let suspected = peer.is_connected() && !peer.is_up();
        self.under_way.push(Box::pin(async move {
            let answer = peer.request(key, since, Operation::Store(object)).await;
            arrival_of_store(member, answer)
        }));
        if suspected {
            self.cover(member);
        }
    }

    fn store_here(&self, member: MemberIndex) -> BoxFuture<'static, Arrival> {
        let replica = self.coordinator.parts.replica.clone();
        let (key, object, since) = (self.key.clone(), self.object.clone(), self.since());
        let token = self.installed.view.token(&key);
        Box::pin(async move {
            let merged = match replica.merge(token, &key, object, since).await {
                Ok(Some(durable)) => durable.await.map_err(|error| error.to_string()),
                Ok(None) => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            match merged {
                Ok(()) => Arrival::Stored(member),
                Err(why) => Arrival::Failed { member, why },
            }
        })
    }

    /// Members that have not answered for longer than one replica may take.
    fn cover_silent(&mut self) {
        for member in self.quorum.missing() {
            self.cover(member);
        }
    }

    /// Has the next fallback hold a hint for a member. When no fallback is left, this node keeps the hint: it brings
    /// the member up to date later, and counts for no quorum unless this node is no replica itself.
    fn cover(&mut self, target: MemberIndex) -> Progress {
        if self.quorum.has(target) || !self.covered.insert(target) {
            return self.quorum.progress();
        }
        let Some(member) = self.installed.view.member(target) else {
            return self.quorum.add_result(target, Outcome::Failed);
        };
        let incarnation = member.incarnation;
        let peers = self.coordinator.parts.peers.clone();
        let me = self.installed.me;
        while let Some(fallback) = self.next_fallback() {
            if me == Some(fallback) {
                self.under_way.push(self.hint_here(target, Some(fallback), incarnation));
                return self.quorum.progress();
            }
            if let Some(peer) = peers.by_index(fallback).filter(|peer| peer.is_up()) {
                let (key, since) = (self.key.clone(), self.since());
                let hint = Hint { incarnation: uuid_bytes(incarnation), object: self.object.clone() };
                self.under_way.push(Box::pin(async move {
                    match peer.request(key, since, Operation::Hint(hint)).await {
                        Ok(reply::Result::Stored(_)) => Arrival::HintStored { target, fallback },
                        _ => Arrival::HintFailed { target },
                    }
                }));
                return self.quorum.progress();
            }
        }
        self.under_way.push(self.hint_here(target, None, incarnation));
        self.quorum.add_result(target, Outcome::Failed)
    }

    fn next_fallback(&mut self) -> Option<MemberIndex> {
        let (view, partition) = (&self.installed.view, self.partition);
        self.fallbacks.get_or_insert_with(|| view.fallbacks(partition).into()).pop_front()
    }

    fn hint_here(
        &self,
        target: MemberIndex,
        stands_in: Option<MemberIndex>,
        incarnation: Uuid,
    ) -> BoxFuture<'static, Arrival> {
        let replica = self.coordinator.parts.replica.clone();
        let (key, object) = (self.key.clone(), self.object.clone());
        let token = self.installed.view.token(&key);
        Box::pin(async move {
            let held = match replica.hints.hold(incarnation, token, &key, object).await {
                Ok(Some(durable)) => durable.await.map_err(|error| error.to_string()),
                Ok(None) => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            match (held, stands_in) {
                (Ok(()), Some(fallback)) => Arrival::HintStored { target, fallback },
                (Err(_), Some(_)) => Arrival::HintFailed { target },
                // Counted as failed already; the hint is for later.
                (_, None) => Arrival::Failed { member: target, why: String::from("unreachable") },
            }
        })
    }

    fn unavailable(&self) -> RequestError {
        let missing: Vec<String> = self
            .quorum
            .missing()
            .into_iter()
            .map(|index| {
                let name = self.installed.view.member(index).map_or("?", |member| member.name.as_str());
                let why = self.failures.iter().find(|(member, _)| *member == index);
                format!("{name} ({})", why.map_or("no answer", |(_, why)| why.as_str()))
            })
            .collect();
        let (got, need) = self.quorum.furthest_behind();
        RequestError::Unavailable { got, need, missing: missing.join(", ") }
    }
}

pub(super) fn arrival_of_store(member: MemberIndex, answer: Result<reply::Result, PeerError>) -> Arrival {
    match answer {
        Ok(reply::Result::Stored(_)) => Arrival::Stored(member),
        Ok(reply::Result::StaleEpoch(stale)) => Arrival::Stale { member, epoch: stale.epoch },
        Ok(reply::Result::Failure(failure)) => Arrival::Failed { member, why: failure.message },
        Ok(_) => Arrival::Failed { member, why: PeerError::Protocol.to_string() },
        Err(error) => Arrival::Failed { member, why: error.to_string() },
    }
}

/// Both lists of the partition, each with the number of members that must have the write.
fn lists(installed: &Installed, partition: u32, options: WriteOptions) -> Vec<(Vec<MemberIndex>, usize)> {
    let Some(placement) = installed.view.placement(partition) else { return Vec::new() };
    let quorums = &installed.view.ring().quorums;
    let w = |list: &[MemberIndex]| options.replicas.map_or_else(|| quorums.of_list(list.len()).1, usize::from);
    let also = placement.also.iter().filter(|_| !planted::is("second-list-ignored"));
    let also = also.map(|also| also.list.clone());
    std::iter::once(placement.preference.clone()).chain(also).map(|list| (list.clone(), w(&list))).collect()
}

fn quorum(installed: &Installed, partition: u32, options: WriteOptions) -> WriteQuorum {
    let strict = options.strict && !planted::is("strict-ignored-by-writes");
    let sloppy = installed.view.ring().quorums.sloppy && !strict;
    WriteQuorum::new(&lists(installed, partition, options), sloppy)
}

fn uuid_bytes(uuid: Uuid) -> Bytes {
    Bytes::copy_from_slice(uuid.as_bytes())
}

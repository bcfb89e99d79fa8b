//! The usual read, without ado: this node is one of at most two replicas to be asked, the other answers soon, and both
//! have the same, which their hashes tell (Cassandra's digest reads). As soon as it is not that simple, nothing has been
//! decided, and the read is done as any other.

use super::get::{decode, hedge_after, replicas};
use super::{Coordinator, ReadOptions, RequestError};
use crate::peers::{Asking, Peer};
use crate::ring_state::Installed;
use annulus_proto::v1::{Read, reply, request::Operation};
use bytes::Bytes;
use dynamo::object::Object;
use dynamo::preference::MemberIndex;
use dynamo::token::Token;
use futures::future::{Either, select};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

/// How far a read gets without waiting.
enum Begun {
    /// To its end.
    Here(Bytes),
    /// One other replica was asked whether it has the same.
    Asked(Asked),
}

/// A read that waits for one other replica.
struct Asked {
    here: Bytes,
    asking: Asking,
    question: Question,
}

/// What another replica is asked.
#[derive(Clone, Copy)]
struct Question {
    /// Epoch since which the lists are those by which the first was chosen.
    since: u64,
    /// Hash of what is here.
    known: u64,
    /// Who has been asked.
    first: MemberIndex,
}

/// A key of which this node is a replica.
struct Place<'a> {
    token: Token,
    /// Epoch since which the list is what it is.
    since: u64,
    me: MemberIndex,
    list: &'a [MemberIndex],
    /// How many are to be asked.
    replicas: usize,
}

impl<'a> Place<'a> {
    fn here(installed: &'a Installed, key: &[u8], options: ReadOptions) -> Option<Self> {
        let token = installed.view.token(key);
        let placement = installed.view.placement(installed.view.partition(token))?;
        let (list, since) = (&placement.preference, placement.since);
        let me = installed.me.filter(|me| list.contains(me))?;
        Some(Self { token, since, me, list, replicas: replicas(installed, list, options).clamp(1, list.len()) })
    }
}

impl Coordinator {
    /// Reads a key if that is as simple as it usually is; `None`: it is not, and nothing was decided.
    pub(super) async fn read_plainly(
        &self,
        key: &Bytes,
        options: ReadOptions,
    ) -> Option<Result<Object, RequestError>> {
        let object = match self.begin_plain_read(key, options)? {
            Begun::Here(object) => object,
            Begun::Asked(Asked { here, mut asking, question }) => {
                let usual = hedge_after(asking.usual());
                let answer = match tokio::time::timeout(usual, &mut asking).await {
                    Ok(answer) => answer.ok(),
                    // Boxed, so that the usual read, which does not come here, is no larger for it.
                    Err(_) => Box::pin(self.hedge(key, asking, question)).await,
                };
                matches!(answer, Some(reply::Result::Same(_))).then_some(here)?
            }
        };
        Some(decode(object).map_err(|error| RequestError::Storage(error.to_string())))
    }

    /// Reads a key of which this node is the one replica to be asked. `None`: it is not, or it cannot answer.
    pub(super) fn read_here(&self, key: &Bytes, options: ReadOptions) -> Option<Object> {
        let (replica, ring) = (&self.parts.replica, &self.parts.ring);
        let (token, since) = ring.look(|installed| {
            let place = Place::here(installed, key, options).filter(|place| place.replicas == 1)?;
            Some((place.token, place.since))
        })??;
        let object = replica.read(token, key, since).ok()?;
        decode(object.unwrap_or_default()).ok()
    }

    fn begin_plain_read(&self, key: &Bytes, options: ReadOptions) -> Option<Begun> {
        let parts = &self.parts;
        let installed = parts.ring.load()?;
        let Place { token, since, me, list, replicas } = Place::here(&installed, key, options)?;
        match replicas {
            1 => Some(Begun::Here(parts.replica.read(token, key, since).ok()?.unwrap_or_default())),
            2 => {
                let here = parts.replica.read_known(token, key, since).ok()?;
                let (here, known) = here.map(|here| (here.value, here.hash)).unwrap_or_default();
                let now = Instant::now();
                let (first, peer) = list.iter().find_map(|&member| self.up(member, me, now))?;
                parts.hedging.lock().earn();
                let question = Question { since, known, first };
                let asking = question.ask(&peer, key, now)?;
                Some(Begun::Asked(Asked { here, asking, question }))
            }
            _ => None,
        }
    }

    /// The peer that is this member of the list, if it is one and can be asked.
    fn up(&self, member: MemberIndex, me: MemberIndex, now: Instant) -> Option<(MemberIndex, Arc<Peer>)> {
        let peer = (member != me).then(|| self.parts.peers.by_index(member))??;
        peer.is_up_at(now).then_some((member, peer))
    }

    /// It takes longer than it usually does: asks one more if the budget allows, and takes whichever answers sooner.
    async fn hedge(&self, key: &Bytes, first: Asking, question: Question) -> Option<reply::Result> {
        let patience = self.parts.limits.replica_timeout;
        let Some(second) = self.ask_another(key, question) else {
            return tokio::time::timeout(patience, first).await.ok()?.ok();
        };
        self.parts.hedged.fetch_add(1, Ordering::Relaxed);
        let (answer, other) = match tokio::time::timeout(patience, select(first, second)).await.ok()? {
            Either::Left(answered) => answered,
            Either::Right(answered) => answered,
        };
        match answer {
            Ok(answer @ (reply::Result::Object(_) | reply::Result::Same(_))) => Some(answer),
            _ => tokio::time::timeout(patience, other).await.ok()?.ok(),
        }
    }

    fn ask_another(&self, key: &Bytes, question: Question) -> Option<Asking> {
        let installed = self.parts.ring.load()?;
        let placement = installed.view.placement(installed.view.partition(installed.view.token(key)))?;
        if placement.since != question.since {
            return None;
        }
        let (me, now) = (installed.me?, Instant::now());
        let mut others = placement.preference.iter().filter(|&&member| member != question.first);
        let (_, second) = others.find_map(|&member| self.up(member, me, now))?;
        self.parts.hedging.lock().spend().then(|| question.ask(&second, key, now))?
    }
}

impl Question {
    fn ask(&self, peer: &Arc<Peer>, key: &Bytes, now: Instant) -> Option<Asking> {
        peer.ask(key.clone(), self.since, Operation::Read(Read { known: Some(self.known) }), now).ok()
    }
}

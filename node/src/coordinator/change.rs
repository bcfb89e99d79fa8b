//! A change of what a key holds, in one step at one replica.
//!
//! The coordinator first asks r replicas what they know, so that what was acknowledged before is seen, then carries the
//! change out under the key's lock and replicates the result like any write. Changes that need one coordinator go to
//! the owner of the key's partition and to nobody else, who asks a majority and needs one to store: whoever owned the
//! partition before has either left its write with one of those asked, or is refused by them from then on.

use super::put::{CoordinateError, RETRY_PAUSE};
use super::replicate::Replication;
use super::{Coordinator, ReadOptions, RequestError, WriteOptions};
use crate::planted;
use crate::replica::ReplicaError;
use crate::ring_state::Installed;
use annulus_proto::v1::{Coordinate, failure, reply, request::Operation};
use bytes::Bytes;
use dynamo::object::{Change, Object, Outcome};
use dynamo::preference::MemberIndex;
use std::sync::Arc;

impl Coordinator {
    /// Carries a change out here if this node may coordinate it, else has it carried out.
    pub(super) async fn write_change(
        &self,
        key: Bytes,
        change: Change,
        options: WriteOptions,
    ) -> Result<Outcome, RequestError> {
        loop {
            let installed = self.installed()?;
            let coordinators = coordinators(&installed, &key, &change);
            if installed.me.is_some_and(|me| coordinators.contains(&me)) {
                match self.coordinate_change(&installed, &key, &change, options).await {
                    Err(CoordinateError::RingChanged) => {}
                    Err(CoordinateError::Request(error)) => return Err(error),
                    Ok(outcome) => return Ok(outcome),
                }
            } else if let Some(outcome) =
                self.forward_change(&installed, coordinators, &key, &change, options).await?
            {
                return Ok(outcome);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Carries a change out as a replica of its key.
    pub(super) async fn coordinate_change(
        &self,
        installed: &Arc<Installed>,
        key: &Bytes,
        change: &Change,
        options: WriteOptions,
    ) -> Result<Outcome, CoordinateError> {
        let flight = self.parts.replica.take_off();
        let (reading, writing) = if change.needs_one_coordinator() {
            majorities(installed, key, options)
        } else {
            (ReadOptions { replicas: None, strict: options.strict }, options)
        };
        let known = match self.read(key.clone(), reading).await {
            Ok(known) => known,
            // With too few replicas to ask, what commutes goes on top of what is known here.
            Err(RequestError::Unavailable { .. }) if !reading.strict && installed.view.ring().quorums.sloppy => {
                Object::default()
            }
            Err(error) => return Err(error.into()),
        };
        let token = installed.view.token(key);
        let since = installed.view.since(token);
        let (outcome, stored) = match self.parts.replica.change(token, key, change, &known, since).await {
            Err(ReplicaError::Stale | ReplicaError::Behind) => return Err(CoordinateError::RingChanged),
            other => other?,
        };
        if let Some((encoded, durable)) = stored {
            let mut replication = Replication::new(self, installed.clone(), key.clone(), encoded, writing, flight);
            replication.count_local(durable);
            replication.run().await?;
        }
        Ok(outcome)
    }

    /// Asks those who may coordinate the change in turn. `Ok(None)`: the ring changed meanwhile and nothing was
    /// written; look again.
    ///
    /// One that fails after it was sent the change may have carried it out. The next is asked only if carrying it out
    /// twice does no harm.
    async fn forward_change(
        &self,
        installed: &Arc<Installed>,
        coordinators: Vec<MemberIndex>,
        key: &Bytes,
        change: &Change,
        options: WriteOptions,
    ) -> Result<Option<Outcome>, RequestError> {
        let since = installed.view.since(installed.view.token(key));
        let patience = self.parts.limits.replica_timeout * 2;
        let mut last = None;
        for &member in &coordinators {
            let Some(peer) = self.parts.peers.by_index(member).filter(|peer| peer.is_up()) else { continue };
            let request = Operation::Coordinate(to_message(change, options));
            match tokio::time::timeout(patience, peer.request(key.clone(), since, request)).await {
                Ok(Ok(reply::Result::Coordinated(done))) => {
                    let outcome = Outcome::decode(done.outcome);
                    return outcome.map(Some).map_err(|error| RequestError::Storage(error.to_string()));
                }
                Ok(Ok(reply::Result::StaleEpoch(stale))) => {
                    let reached = self.parts.ring.reached(stale.epoch);
                    let _ = tokio::time::timeout(self.parts.limits.replica_timeout, reached).await;
                    return Ok(None);
                }
                Ok(Ok(reply::Result::Failure(failure))) if failure.code == failure::Code::NotAReplica as i32 => {
                    return Ok(None);
                }
                Ok(Ok(reply::Result::Failure(failure))) => {
                    let unsure = failure.code == failure::Code::Unavailable as i32;
                    let error = super::forward::from_failure(failure);
                    if unsure && !may_be_sent_again(change) {
                        return Err(error);
                    }
                    last = Some(error);
                }
                Ok(Ok(_) | Err(_)) | Err(_) => {
                    let missing = format!("{} (no answer)", name(installed, member));
                    let error = RequestError::Unavailable { got: 0, need: 1, missing };
                    if !may_be_sent_again(change) {
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
        }
        if let Some(error) = last {
            return Err(error);
        }
        if change.needs_no_state() && !options.strict && installed.view.ring().quorums.sloppy {
            return self.keep_change_at_fallbacks(installed, key, change, options).await.map(Some);
        }
        let missing: Vec<_> =
            coordinators.iter().map(|&member| format!("{} (unreachable)", name(installed, member))).collect();
        Err(RequestError::Unavailable { got: 0, need: 1, missing: missing.join(", ") })
    }

    /// Keeps a change for replicas none of which can be reached: it adds to whatever they have.
    async fn keep_change_at_fallbacks(
        &self,
        installed: &Arc<Installed>,
        key: &Bytes,
        change: &Change,
        options: WriteOptions,
    ) -> Result<Outcome, RequestError> {
        let flight = self.parts.replica.take_off();
        let (object, outcome) = self.parts.replica.change_blind(change);
        if let Some(object) = object {
            let encoded = object.encode();
            Replication::new(self, installed.clone(), key.clone(), encoded, options, flight).run().await?;
        }
        Ok(outcome)
    }
}

/// Whether this node may coordinate the change.
pub(super) fn may_coordinate(installed: &Installed, key: &Bytes, change: &Change) -> bool {
    installed.me.is_some_and(|me| coordinators(installed, key, change).contains(&me))
}

/// Whether a change that may have been carried out does no harm when it is carried out again.
fn may_be_sent_again(change: &Change) -> bool {
    change.is_idempotent() || planted::is("increment-sent-again")
}

/// Who may coordinate the change: all that hold the key, or the owner alone.
fn coordinators(installed: &Installed, key: &Bytes, change: &Change) -> Vec<MemberIndex> {
    let partition = installed.view.partition(installed.view.token(key));
    let Some(placement) = installed.view.placement(partition) else { return Vec::new() };
    if change.needs_one_coordinator() && !planted::is("condition-tested-by-anyone") {
        placement.preference.first().copied().into_iter().collect()
    } else {
        placement.holders()
    }
}

/// A majority to read from and one to write to, whatever the cluster's quorums are: any two have a member in common.
fn majorities(installed: &Installed, key: &Bytes, options: WriteOptions) -> (ReadOptions, WriteOptions) {
    let partition = installed.view.partition(installed.view.token(key));
    let placement = installed.view.placement(partition);
    let longest = placement.map_or(1, |placement| {
        let also = placement.also.as_ref().map_or(0, |also| also.list.len());
        placement.preference.len().max(also)
    });
    let needed = if planted::is("condition-without-majority") { 1 } else { longest / 2 + 1 };
    let count = |replicas: usize| u8::try_from(replicas).unwrap_or(u8::MAX);
    let majority = count(needed);
    let wanted = options.replicas.unwrap_or_else(|| count(installed.view.ring().quorums.of_list(longest).1));
    let writing = WriteOptions { replicas: Some(majority.max(wanted)), strict: true, fenced: true };
    (ReadOptions { replicas: Some(majority), strict: true }, writing)
}

fn name(installed: &Installed, member: MemberIndex) -> &str {
    installed.view.member(member).map_or("?", |member| member.name.as_str())
}

fn to_message(change: &Change, options: WriteOptions) -> Coordinate {
    Coordinate {
        change: Some(change.encode()),
        replicas: u32::from(options.replicas.unwrap_or(0)),
        strict: options.strict,
        ..Coordinate::default()
    }
}

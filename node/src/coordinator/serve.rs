//! What this node does for its peers' coordinators.

use super::change::may_coordinate;
use super::put::CoordinateError;
use super::replicate::Replication;
use super::{Causality, Coordinator, RequestError, Write, WriteOptions, Written};
use crate::handoff;
use crate::peers::{Begun, RequestHandler};
use crate::planted;
use crate::repair;
use crate::replica::{InFlight, ReplicaError};
use crate::ring_state::Installed;
use crate::storage::StorageError;
use annulus_proto::uuid_from;
use annulus_proto::v1::{
    CollectReply, CollectRequest, Coordinate, Coordinated, DigestReply, DigestRequest, Failure, ItemsReply,
    ItemsRequest, PageReply, PageRequest, Request, RootsReply, RootsRequest, Same, StaleEpoch, Stored, coordinate,
    failure, reply, request::Operation,
};
use bytes::Bytes;
use dynamo::object::{Change, Context, Payload};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

impl RequestHandler for Coordinator {
    fn begin(self: &Arc<Self>, request: Request) -> Begun {
        let Some(installed) = self.parts.ring.load() else {
            return Begun::Done(failed(failure::Code::NotAReplica, "no ring yet"));
        };
        if let Err(error) = self.check_key(&request.key) {
            return Begun::Done(failed(failure::Code::Invalid, &error.to_string()));
        }
        let token = installed.view.token(&request.key);
        match &request.operation {
            Some(Operation::Read(read)) => {
                let answer = self.read_for(&installed, &request.key, request.since, read.known);
                Begun::Done(answer.unwrap_or_else(|error| self.refusal(error)))
            }
            Some(Operation::Store(object)) => {
                match self.parts.replica.try_merge(token, &request.key, object.clone(), request.since) {
                    Ok(Some(durable)) => Begun::Storing(durable),
                    Ok(None) => Begun::Done(reply::Result::Stored(Stored {})),
                    // There is no room in the commit queue now: wait for it.
                    Err(ReplicaError::Storage(StorageError::Overloaded { .. })) => {
                        Begun::Waiting(self.clone().handle(request))
                    }
                    Err(error) => Begun::Done(self.refusal(error)),
                }
            }
            _ => Begun::Waiting(self.clone().handle(request)),
        }
    }

    fn stored(&self, outcome: Result<(), StorageError>) -> reply::Result {
        match outcome {
            Ok(()) => reply::Result::Stored(Stored {}),
            Err(_) if planted::is("failed-commit-acknowledged") => reply::Result::Stored(Stored {}),
            Err(error) => self.refusal(error.into()),
        }
    }

    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<'static, reply::Result> {
        Box::pin(async move { self.carry_out(request).await.unwrap_or_else(|failure| failure) })
    }

    fn page(&self, request: PageRequest) -> BoxFuture<'_, Result<PageReply, Status>> {
        Box::pin(handoff::page(&self.parts.ring, &self.parts.replica, &self.parts.foreground, request))
    }

    fn digest(&self, request: DigestRequest) -> BoxFuture<'_, Result<DigestReply, Status>> {
        Box::pin(handoff::digest(&self.parts.ring, &self.parts.replica, &self.parts.foreground, request))
    }

    fn roots(&self, request: &RootsRequest) -> Result<RootsReply, Status> {
        repair::roots(&self.parts.ring, &self.parts.replica, request)
    }

    fn items(&self, request: ItemsRequest) -> BoxFuture<'_, Result<ItemsReply, Status>> {
        Box::pin(repair::items(&self.parts.ring, &self.parts.replica, request))
    }

    fn collect(&self, request: CollectRequest) -> BoxFuture<'_, Result<CollectReply, Status>> {
        let parts = &self.parts;
        Box::pin(async move { repair::collect(&parts.ring, &parts.replica, &parts.peers, &request).await })
    }

    fn take_off(&self) -> InFlight {
        self.parts.replica.take_off()
    }

    fn answered(&self, requests: usize, took: Duration) {
        self.parts.foreground.record_of_peer(took, requests);
    }
}

impl Coordinator {
    async fn carry_out(&self, request: Request) -> Result<reply::Result, reply::Result> {
        let Request { key, since, operation, .. } = request;
        let Some(installed) = self.parts.ring.load() else {
            return Err(failed(failure::Code::NotAReplica, "no ring yet"));
        };
        self.check_key(&key).map_err(|error| failed(failure::Code::Invalid, &error.to_string()))?;
        let token = installed.view.token(&key);
        let replica = &self.parts.replica;
        let refused = |error| self.refusal(error);
        match operation {
            Some(Operation::Store(object)) => {
                match replica.merge(token, &key, object, since).await.map_err(refused)? {
                    Some(durable) => Ok(self.stored(durable.await)),
                    None => Ok(reply::Result::Stored(Stored {})),
                }
            }
            Some(Operation::Read(read)) => self.read_for(&installed, &key, since, read.known).map_err(refused),
            Some(Operation::Hint(hint)) => {
                // A sender that is behind may take this node for one that stays; what is kept here could go with it.
                if !installed.me.is_some_and(|me| installed.view.owns(me)) {
                    return Err(failed(failure::Code::NotAReplica, "this node stands in for nobody"));
                }
                let target = uuid_from("incarnation", &hint.incarnation).map_err(|error| invalid(&error))?;
                let held = replica.hints.hold(target, token, &key, hint.object).await;
                let held = held.map_err(|error| failed(failure::Code::Storage, &error.to_string()))?;
                if let Some(durable) = held.filter(|_| !planted::is("hint-counted-before-sync")) {
                    durable.await.map_err(|error| self.refusal(error.into()))?;
                }
                Ok(reply::Result::Stored(Stored {}))
            }
            Some(Operation::ReadHint(hint)) => {
                let target = uuid_from("incarnation", &hint.incarnation).map_err(|error| invalid(&error))?;
                let object = replica.hints.read(target, token, &key);
                let object = object.map_err(|error| failed(failure::Code::Storage, &error.to_string()))?;
                Ok(reply::Result::Object(object.unwrap_or_default()))
            }
            Some(Operation::Coordinate(message)) => self.coordinate_for(&installed, &key, message).await,
            None => Err(failed(failure::Code::Invalid, "no operation")),
        }
    }

    /// The object here, or that it is the one which the asker has.
    fn read_for(
        &self,
        installed: &Installed,
        key: &Bytes,
        since: u64,
        known: Option<u64>,
    ) -> Result<reply::Result, ReplicaError> {
        let (replica, token) = (&self.parts.replica, installed.view.token(key));
        if let Some(known) = known
            && (replica.read_hash(token, key, since)?.unwrap_or(0) == known || planted::is("digest-not-compared"))
        {
            return Ok(reply::Result::Same(Same {}));
        }
        Ok(reply::Result::Object(replica.read(token, key, since)?.unwrap_or_default()))
    }

    /// Coordinates a write for a node that is no replica of its key.
    async fn coordinate_for(
        &self,
        installed: &Arc<Installed>,
        key: &Bytes,
        message: Coordinate,
    ) -> Result<reply::Result, reply::Result> {
        if let Some(change) = message.change.clone() {
            return self.change_for(installed, key, change, options_of(&message)).await;
        }
        let partition = installed.view.partition(installed.view.token(key));
        let holds = |me| installed.view.placement(partition).is_some_and(|placement| placement.names(me));
        if !installed.me.is_some_and(holds) {
            return Err(failed(failure::Code::NotAReplica, "this node is no replica of the key"));
        }
        let (write, options) = from_message(message).map_err(|error| invalid(&error))?;
        let written = self.in_time(async {
            match self.coordinate(installed, key, write, options).await {
                Ok(written) => Ok(Some(written)),
                Err(CoordinateError::RingChanged) => Ok(None),
                Err(CoordinateError::Request(error)) => Err(error),
            }
        });
        match written.await {
            Ok(Some(written)) => Ok(reply::Result::Coordinated(Coordinated {
                timestamp: written.timestamp.0,
                context: written.context.encode(),
                existed: written.existed,
                outcome: Bytes::new(),
            })),
            Ok(None) => Err(self.stale()),
            Err(error) => Err(failed(code_of(&error), &error.to_string())),
        }
    }

    /// Carries a change out for a node that may not coordinate it.
    async fn change_for(
        &self,
        installed: &Arc<Installed>,
        key: &Bytes,
        change: Bytes,
        options: WriteOptions,
    ) -> Result<reply::Result, reply::Result> {
        let change = Change::decode(change).map_err(|error| invalid(&error))?;
        self.check_change(&change).map_err(|error| invalid(&error))?;
        if !may_coordinate(installed, key, &change) {
            return Err(failed(failure::Code::NotAReplica, "this node may not coordinate the change"));
        }
        let outcome = self.in_time(async {
            match self.coordinate_change(installed, key, &change, options).await {
                Ok(outcome) => Ok(Some(outcome)),
                Err(CoordinateError::RingChanged) => Ok(None),
                Err(CoordinateError::Request(error)) => Err(error),
            }
        });
        match outcome.await {
            Ok(Some(outcome)) => {
                let outcome = outcome.encode();
                Ok(reply::Result::Coordinated(Coordinated { outcome, ..Coordinated::default() }))
            }
            Ok(None) => Err(self.stale()),
            Err(error) => Err(failed(code_of(&error), &error.to_string())),
        }
    }

    /// Keeps a write for replicas none of which can be reached: the value stands beside whatever they have.
    pub(super) async fn keep_at_fallbacks(
        &self,
        installed: &Arc<Installed>,
        key: &Bytes,
        write: &Write,
        options: WriteOptions,
    ) -> Result<Written, RequestError> {
        let flight = self.parts.replica.take_off();
        let (object, encoded, timestamp) = self.parts.replica.coordinate_blind(write.clone())?;
        Replication::new(self, installed.clone(), key.clone(), encoded, options, flight).run().await?;
        Ok(Written { timestamp, context: object.context(), existed: false })
    }

    fn refusal(&self, error: ReplicaError) -> reply::Result {
        match error {
            ReplicaError::Stale => self.stale(),
            ReplicaError::Behind => {
                failed(failure::Code::NotAReplica, "the sender's ring is newer than this node's")
            }
            ReplicaError::TooManySiblings { .. } => failed(failure::Code::Siblings, &error.to_string()),
            ReplicaError::Codec(_) => invalid(&error),
            ReplicaError::Engine(_) | ReplicaError::Storage(_) => {
                failed(failure::Code::Storage, &error.to_string())
            }
        }
    }

    fn stale(&self) -> reply::Result {
        reply::Result::StaleEpoch(StaleEpoch { epoch: self.parts.ring.epoch() })
    }
}

fn options_of(message: &Coordinate) -> WriteOptions {
    let replicas = u8::try_from(message.replicas).ok().filter(|&replicas| replicas > 0);
    WriteOptions { replicas, strict: message.strict, fenced: false }
}

fn from_message(message: Coordinate) -> Result<(Write, WriteOptions), dynamo::object::ContextError> {
    let options = options_of(&message);
    let causality = match message.causality {
        Some(coordinate::Causality::Context(context)) => Causality::Context(Context::decode(&context)?),
        Some(coordinate::Causality::Overwrite(_)) | None => Causality::Overwrite,
    };
    let payload = message.value.map_or(Payload::Tombstone, Payload::Bytes);
    Ok((Write { payload, expires_at_ms: message.expires_at_ms, causality }, options))
}

fn code_of(error: &RequestError) -> failure::Code {
    match error {
        RequestError::Unavailable { .. } | RequestError::TimedOut(_) => failure::Code::Unavailable,
        RequestError::Overloaded(_) => failure::Code::Overloaded,
        RequestError::DiskFull { .. } | RequestError::Storage(_) => failure::Code::Storage,
        RequestError::TooManySiblings { .. } => failure::Code::Siblings,
        RequestError::NoRing => failure::Code::NotAReplica,
        RequestError::KeyTooLong { .. } | RequestError::ValueTooLong { .. } | RequestError::Invalid(_) => {
            failure::Code::Invalid
        }
    }
}

fn invalid(error: &dyn std::fmt::Display) -> reply::Result {
    failed(failure::Code::Invalid, &error.to_string())
}

fn failed(code: failure::Code, message: &str) -> reply::Result {
    reply::Result::Failure(Failure { code: code as i32, message: message.to_owned() })
}

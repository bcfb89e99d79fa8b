//! What this node answers to the member that leads a collection; see `dynamo::collect`.

use super::serve::check;
use crate::peers::Peers;
use crate::planted;
use crate::replica::{Replica, storage_key};
use crate::ring_state::{Installed, RingState};
use crate::storage::EngineError;
use annulus_proto::v1::collect_request::Stage;
use annulus_proto::v1::{CollectReply, CollectRequest, DeadObject, Read, request::Operation};
use bytes::Bytes;
use dynamo::object::Object;
use dynamo::reconcile::item_hash;
use std::time::Duration;
use tonic::Status;

/// Most objects of one collection.
pub const OBJECTS_MAX: usize = 1024;
/// Read only to see that a peer has begun what it was sent before.
const PING_KEY: &[u8] = b"settle";
/// How long a peer may take to begin what it was sent.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Carries out one stage here.
///
/// # Errors
/// `FAILED_PRECONDITION` for another cluster, incarnation or epoch; `INVALID_ARGUMENT`; `UNAVAILABLE` when something
/// that must be waited for does not come to an end. Nothing is removed then, but at the last stage perhaps some.
pub async fn collect(
    ring: &RingState,
    replica: &Replica,
    peers: &Peers,
    request: &CollectRequest,
) -> Result<CollectReply, Status> {
    let installed = check(ring, &request.cluster, &request.incarnation, request.epoch)?;
    if request.objects.len() > OBJECTS_MAX {
        return Err(Status::invalid_argument("too many objects"));
    }
    let refused = match request.stage() {
        Stage::Confirm | Stage::Check => refused(&installed, replica, request).await?,
        Stage::Settle => {
            settle(&installed, replica, peers).await?;
            Vec::new()
        }
        Stage::Remove => remove(&installed, replica, &request.objects).await?,
        Stage::Unknown => return Err(Status::invalid_argument("no such stage")),
    };
    Ok(CollectReply { refused })
}

/// Positions of the objects for which it is not so. What is said of the others is durable.
async fn refused(installed: &Installed, replica: &Replica, request: &CollectRequest) -> Result<Vec<u32>, Status> {
    let internal = |error: EngineError| Status::internal(error.to_string());
    let hints_count = request.stage() == Stage::Check && !planted::is("collected-despite-hints");
    let find = || {
        let mut refused = Vec::new();
        for (position, object) in (0u32..).zip(&request.objects) {
            let near = hints_count && replica.hints.any_near(installed.view.token(&object.key));
            if near || !is_so(installed, replica, object)? {
                refused.push(position);
            }
        }
        Ok::<_, EngineError>(refused)
    };
    let mut refused = find().map_err(internal)?;
    // What was seen may have been on its way to the disk; now it is there, or has been taken back and is seen no more.
    replica.committer().barrier().await.map_err(|error| Status::unavailable(error.to_string()))?;
    refused.extend(find().map_err(internal)?);
    if planted::is("collected-unconfirmed") {
        refused.clear();
    }
    Ok(refused)
}

/// A holder has this very object and finds it dead by its own clock; nobody else has anything of it, and nothing moves.
fn is_so(installed: &Installed, replica: &Replica, object: &DeadObject) -> Result<bool, EngineError> {
    let token = installed.view.token(&object.key);
    let Some(placement) = installed.view.placement(installed.view.partition(token)) else { return Ok(false) };
    if placement.also.is_some() {
        return Ok(false);
    }
    let storage_key = storage_key(token, &object.key);
    let here = replica.stored(&storage_key)?;
    let holder = installed.me.is_some_and(|me| placement.names(me));
    Ok(match here {
        Some(here) => holder && is_same(object, &storage_key, &here) && is_dead(&here, replica.now_ms()),
        None => !holder,
    })
}

fn is_same(object: &DeadObject, storage_key: &[u8], here: &[u8]) -> bool {
    item_hash(storage_key, here) == object.hash
}

pub(super) fn is_dead(encoded: &Bytes, now_ms: u64) -> bool {
    Object::decode(encoded.clone()).is_ok_and(|object| !object.is_empty() && !object.live_at(now_ms))
}

/// Returns when what was under way at the call has ended, and peers have begun what they were sent until then.
async fn settle(installed: &Installed, replica: &Replica, peers: &Peers) -> Result<(), Status> {
    if planted::is("collected-unsettled") {
        return Ok(());
    }
    replica.grace().passed().await;
    // Requests are begun in the order in which they were sent: what is answered has everything before it behind it.
    let since = installed.view.since(installed.view.token(PING_KEY));
    let members = installed.view.ring().members.iter().filter(|member| installed.me != Some(member.index));
    let pings = members.map(|member| async move {
        let unavailable = |why: String| Status::unavailable(format!("{}: {why}", member.name));
        let peer = peers.by_incarnation(member.incarnation).filter(|peer| peer.is_up());
        let peer = peer.ok_or_else(|| unavailable(String::from("not connected")))?;
        let ping = peer.request(Bytes::from_static(PING_KEY), since, Operation::Read(Read { known: None }));
        let answer = tokio::time::timeout(PING_TIMEOUT, ping).await;
        let answer = answer.map_err(|elapsed| unavailable(elapsed.to_string()))?;
        answer.map(drop).map_err(|error| unavailable(error.to_string()))
    });
    futures::future::try_join_all(pings).await.map(drop)
}

async fn remove(installed: &Installed, replica: &Replica, objects: &[DeadObject]) -> Result<Vec<u32>, Status> {
    let (mut refused, mut removals) = (Vec::new(), Vec::new());
    for (position, object) in (0u32..).zip(objects) {
        let token = installed.view.token(&object.key);
        let Some(placement) = installed.view.placement(installed.view.partition(token)) else { continue };
        if !installed.me.is_some_and(|me| placement.names(me)) {
            continue;
        }
        let storage_key = storage_key(token, &object.key);
        let same = |current: &Bytes| {
            let so = placement.also.is_none() && is_same(object, &storage_key, current);
            so && is_dead(current, replica.now_ms())
        };
        let removed = replica.collect(&storage_key, installed.view.epoch(), same).await;
        match removed.map_err(|error| Status::internal(error.to_string()))? {
            Some(removal) => removals.push(removal),
            None => refused.push(position),
        }
    }
    for removal in removals {
        removal.await.map_err(|error| Status::unavailable(error.to_string()))?;
    }
    Ok(refused)
}

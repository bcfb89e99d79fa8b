//! Between messages and the coordinator's types.

use crate::coordinator::{Causality, ReadOptions, Write, WriteOptions};
use annulus_proto::v1::{DeleteRequest, GetResponse, PutRequest, Quorum, ScanItem, Sibling};
use bytes::Bytes;
use dynamo::object::{Context, Kind, Object, Payload, Visible};
use tonic::Status;

pub(super) fn read_options(quorum: Option<Quorum>) -> Result<ReadOptions, Status> {
    let (replicas, strict) = asked(quorum)?;
    Ok(ReadOptions { replicas, strict })
}

pub(super) fn write_options(quorum: Option<Quorum>) -> Result<WriteOptions, Status> {
    let (replicas, strict) = asked(quorum)?;
    Ok(WriteOptions { replicas, strict, fenced: false })
}

/// The write that a put asks for.
pub(super) fn put_write(request: &PutRequest, now_ms: u64) -> Result<Write, Status> {
    let causality = match (request.overwrite, request.context.is_empty()) {
        (true, false) => {
            return Err(Status::invalid_argument("overwrite and context exclude each other: give one of them"));
        }
        (true, true) => Causality::Overwrite,
        (false, _) => Causality::Context(context(&request.context)?),
    };
    let expires_at_ms = match request.ttl_ms {
        0 => None,
        ttl_ms => Some(now_ms.checked_add(ttl_ms).ok_or_else(|| Status::invalid_argument("ttl_ms is too large"))?),
    };
    Ok(Write { payload: Payload::Bytes(request.value.clone()), expires_at_ms, causality })
}

/// The write that a delete asks for.
pub(super) fn delete_write(request: &DeleteRequest) -> Result<Write, Status> {
    let causality = match request.context.is_empty() {
        true => Causality::Overwrite,
        false => Causality::Context(context(&request.context)?),
    };
    Ok(Write { payload: Payload::Tombstone, expires_at_ms: None, causality })
}

/// All values of an object, and its context.
pub(super) fn get_response(object: &Object, now_ms: u64) -> Result<GetResponse, Status> {
    if let Some(Visible { kind: Kind::Set | Kind::Hash, .. }) = object.visible(now_ms) {
        return Err(Status::failed_precondition(
            "the key holds a set or a hash, which the Redis interface reads and writes",
        ));
    }
    Ok(GetResponse { siblings: siblings(object, now_ms, true), context: object.context().encode() })
}

/// A key with its values; a set or a hash has none here. `None` when there is no such key.
pub(super) fn scan_item(key: Bytes, object: &Object, now_ms: u64, keys_only: bool) -> Option<ScanItem> {
    let siblings = siblings(object, now_ms, !keys_only);
    (!siblings.is_empty() || object.visible(now_ms).is_some()).then_some(ScanItem { key, siblings })
}

/// Tombstones and expired values are no siblings to a reader: the context stands for them. A counter is one value.
fn siblings(object: &Object, now_ms: u64, values: bool) -> Vec<Sibling> {
    if !object.is_plain() {
        let timestamp = object.max_timestamp().unwrap_or_default().0;
        let string = object.visible(now_ms).filter(|visible| visible.kind == Kind::String);
        let sibling = string.map(|visible| Sibling {
            value: if values { visible.string() } else { Bytes::new() },
            timestamp,
            expires_at_ms: visible.expires_at_ms,
        });
        return sibling.into_iter().collect();
    }
    let live = object
        .siblings()
        .map(|(_, sibling)| sibling)
        .filter(|sibling| sibling.expires_at_ms.is_none_or(|at_ms| at_ms > now_ms));
    live.filter_map(|sibling| match &sibling.payload {
        Payload::Tombstone => None,
        Payload::Bytes(bytes) => Some(Sibling {
            value: if values { bytes.clone() } else { Bytes::new() },
            timestamp: sibling.timestamp.0,
            expires_at_ms: sibling.expires_at_ms,
        }),
    })
    .collect()
}

fn context(bytes: &Bytes) -> Result<Context, Status> {
    if bytes.is_empty() {
        return Ok(Context::default());
    }
    Context::decode(bytes).map_err(|error| Status::invalid_argument(format!("context: {error}")))
}

fn asked(quorum: Option<Quorum>) -> Result<(Option<u8>, bool), Status> {
    let quorum = quorum.unwrap_or_default();
    let replicas = u8::try_from(quorum.replicas)
        .map_err(|_| Status::invalid_argument("quorum.replicas: a preference list has at most 255 members"))?;
    Ok(((replicas > 0).then_some(replicas), quorum.strict))
}

//! What this node answers to members that compare with it.

use super::range;
use crate::replica::{Replica, storage_key};
use crate::ring_state::{Installed, RingState};
use annulus_proto::uuid_from;
use annulus_proto::v1::{
    ItemRange, ItemsReply, ItemsRequest, PageItem, RangeReply, RootsReply, RootsRequest, Seen,
};
use bytes::Bytes;
use dynamo::object::Object;
use dynamo::preference::MemberIndex;
use dynamo::reconcile::{LEAVES, holders, root, short, unmatched};
use dynamo::token::Token;
use std::ops::Range;
use std::sync::Arc;
use tonic::Status;
use uuid::Uuid;

/// Most partitions whose leaves are asked for at once.
pub(super) const PARTITIONS_MAX: usize = 256;
/// Most ranges asked about at once.
pub(super) const RANGES_MAX: usize = 1024;
/// A reply takes no further range once it has this many bytes of keys and objects.
const REPLY_BYTES_MAX: usize = 4 << 20;

/// Whether what both members hold is equal, and if not, where it may not be.
///
/// # Errors
/// `FAILED_PRECONDITION` for another cluster, incarnation or epoch; `INVALID_ARGUMENT`.
pub fn roots(ring: &RingState, replica: &Replica, request: &RootsRequest) -> Result<RootsReply, Status> {
    let installed = check(ring, &request.cluster, &request.incarnation, request.epoch)?;
    let count = installed.view.count().get();
    if !request.partitions.is_empty() {
        if request.partitions.len() > PARTITIONS_MAX || request.partitions.iter().any(|&p| p >= count) {
            return Err(Status::invalid_argument("too many partitions, or one that there is not"));
        }
        let leaves = request.partitions.iter().flat_map(|&p| replica.leaves().sums(leaves_of(p, count)));
        let roots = leaves.flat_map(|sum| short(sum, request.salt).to_le_bytes()).collect::<Vec<u8>>();
        return Ok(RootsReply { roots: Bytes::from(roots) });
    }
    let sender =
        uuid_from("sender", &request.sender).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let roots = partition_roots(replica, &installed, &shared_with(&installed, sender));
    if root(roots.iter().copied()) == request.root {
        return Ok(RootsReply::default());
    }
    Ok(RootsReply { roots: Bytes::from(roots.into_iter().flat_map(u64::to_le_bytes).collect::<Vec<u8>>()) })
}

/// What of some ranges differs.
///
/// # Errors
/// As [`roots`], and `INTERNAL` when the engine cannot be read.
pub async fn items(ring: &RingState, replica: &Replica, request: ItemsRequest) -> Result<ItemsReply, Status> {
    check(ring, &request.cluster, &request.incarnation, request.epoch)?;
    if request.ranges.len() > RANGES_MAX {
        return Err(Status::invalid_argument("too many ranges"));
    }
    replica.committer().barrier().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut reply = ItemsReply::default();
    let mut bytes = 0;
    for asked in &request.ranges {
        let found = answer(replica, asked, request.salt, REPLY_BYTES_MAX).await?;
        bytes += found.items.iter().map(|item| item.key.len() + item.object.len()).sum::<usize>();
        reply.ranges.push(found);
        if bytes >= REPLY_BYTES_MAX {
            break;
        }
    }
    Ok(reply)
}

async fn answer(replica: &Replica, asked: &ItemRange, salt: u64, bytes_max: usize) -> Result<RangeReply, Status> {
    let internal = |error: crate::storage::EngineError| Status::internal(error.to_string());
    let here = range::read(replica, asked.first_token, asked.last_token).await.map_err(internal)?;
    let mut reply = RangeReply::default();
    if let Some(sum) = asked.sum {
        reply.differs = u32::from(range::sum(&here, salt)) != sum;
        return Ok(reply);
    }
    let (theirs, _) = asked.hashes.as_chunks::<2>();
    let theirs: Vec<u16> = theirs.iter().map(|hash| u16::from_le_bytes(*hash)).collect();
    let differing = unmatched(&range::shortened(&here, salt), &theirs);
    reply.unknown = differing.second.iter().map(|&at| u32::try_from(at).unwrap_or(u32::MAX)).collect();
    let mut bytes = 0;
    for item in differing.first.iter().map(|&at| &here[at]) {
        let stored = replica.engine().get(crate::storage::Space::Data, &storage_key(Token(item.token), &item.key));
        let Some(object) = stored.map_err(internal)? else { continue };
        bytes += item.key.len() + object.len();
        if reply.unknown.is_empty() {
            reply.items.push(PageItem { key: item.key.clone(), object });
        } else if let Ok(object) = Object::decode(object) {
            reply.seen.push(Seen { key: item.key.clone(), context: object.context().encode() });
        }
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(reply)
}

pub(super) fn check(
    ring: &RingState,
    cluster: &[u8],
    incarnation: &[u8],
    epoch: u64,
) -> Result<Arc<Installed>, Status> {
    let invalid = |error: annulus_proto::FieldError| Status::invalid_argument(error.to_string());
    if uuid_from("cluster", cluster).map_err(invalid)? != ring.cluster() {
        return Err(Status::failed_precondition("this node belongs to another cluster"));
    }
    if uuid_from("incarnation", incarnation).map_err(invalid)? != ring.incarnation() {
        return Err(Status::failed_precondition("this node is another incarnation than the one asked"));
    }
    let installed = ring.load().filter(|installed| installed.view.epoch() == epoch);
    installed.ok_or_else(|| Status::failed_precondition(format!("this node does not serve by epoch {epoch}")))
}

/// Leaves of a partition.
pub(super) fn leaves_of(partition: u32, count: u32) -> Range<usize> {
    let width = LEAVES / count as usize;
    let first = partition as usize * width;
    first..first + width
}

/// Partitions that both this node and the member have to have, ascending.
pub(super) fn shared_with(installed: &Installed, incarnation: Uuid) -> Vec<u32> {
    let other = installed.view.ring().member_by_incarnation(incarnation).map(|member| member.index);
    let (Some(me), Some(other)) = (installed.me, other) else { return Vec::new() };
    let both = |holders: Vec<MemberIndex>| holders.contains(&me) && holders.contains(&other);
    (0u32..)
        .zip(&installed.view.ring().partitions)
        .filter(|(_, placement)| both(holders(placement)))
        .map(|(partition, _)| partition)
        .collect()
}

pub(super) fn partition_roots(replica: &Replica, installed: &Installed, partitions: &[u32]) -> Vec<u64> {
    let count = installed.view.count().get();
    partitions.iter().map(|&partition| root(replica.leaves().sums(leaves_of(partition, count)))).collect()
}

//! What this node answers to members that copy or compare a token range.

use super::foreground::Foreground;
use super::packed::Packer;
use crate::replica::{Replica, split_storage_key, storage_key, token_and_key};
use crate::ring_state::RingState;
use crate::storage::{ScanRange, Space};
use annulus_proto::uuid_from;
use annulus_proto::v1::{BucketDigest, DigestReply, DigestRequest, PageReply, PageRequest};
use bytes::Bytes;
use dynamo::digest::{Buckets, RangeDigest};
use dynamo::object::digest_of_encoded;
use dynamo::reconcile::{leaf, leaf_tokens};
use dynamo::throttle::CALL_BYTES;
use dynamo::token::Token;
use std::ops::ControlFlow;
use std::time::Duration;
use tonic::Status;

/// Largest page handed out, in bytes of keys and objects, give or take one item.
pub const PAGE_BYTES_MAX: u32 = 4 << 20;
/// Most items of one page.
pub const PAGE_ITEMS_MAX: u32 = 16 << 10;
const FANOUT_MAX: u32 = 1024;
const SCAN_ITEMS: usize = 1024;
const SCAN_BYTES: usize = 2 << 20;
const RING_WAIT_MAX: Duration = Duration::from_secs(2);

/// One page of a token range. Holds every write that this node let in before it installed the epoch asked for.
///
/// # Errors
/// `UNAVAILABLE` while this node is behind that epoch, `FAILED_PRECONDITION` for another cluster or another
/// incarnation.
pub async fn page(
    ring: &RingState,
    replica: &Replica,
    foreground: &Foreground,
    request: PageRequest,
) -> Result<PageReply, Status> {
    check(ring, &request.cluster, &request.incarnation, request.epoch).await?;
    if request.after.is_empty() {
        settle(replica).await?;
    }
    let after = (!request.after.is_empty()).then(|| request.after.clone());
    let range = ScanRange { after, ..ScanRange::tokens(request.first_token, request.last_token) };
    let items_max = request.items_max.clamp(1, PAGE_ITEMS_MAX) as usize;
    let bytes_max = request.bytes_max.clamp(1, PAGE_BYTES_MAX) as usize;
    let mut packer = Packer::new(bytes_max + bytes_max / 64);
    let mut more = false;
    let visited = replica.engine().visit(Space::Data, &range, &mut |storage_key, object| {
        if packer.items() >= items_max || packer.bytes() >= bytes_max {
            more = true;
            return ControlFlow::Break(());
        }
        if let Some((_, key)) = token_and_key(storage_key) {
            packer.push(key, object);
        }
        ControlFlow::Continue(())
    });
    visited.map_err(|error| internal(&error))?;
    let bytes = packer.bytes() as u64;
    let (packed, checksum) = packer.finish();
    foreground.hand_out(bytes);
    foreground.work(CALL_BYTES);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "neither negative nor large")]
    let pressure_percent = (foreground.pressure() * 100.0) as u32;
    let slots = usize::from(Token(request.first_token).slot())..=usize::from(Token(request.last_token).slot());
    Ok(PageReply {
        packed,
        checksum,
        more,
        epoch: ring.epoch(),
        pressure_percent,
        range_bytes: replica.counters().of_slots(slots).bytes,
    })
}

/// Digests of the buckets of a token range, or which of its leaves have other sums than the sender's.
///
/// # Errors
/// As [`page`]; `INVALID_ARGUMENT` for a fanout that is no power of two up to 1024, and for sums that do not fit the
/// range.
pub async fn digest(
    ring: &RingState,
    replica: &Replica,
    foreground: &Foreground,
    request: DigestRequest,
) -> Result<DigestReply, Status> {
    check(ring, &request.cluster, &request.incarnation, request.epoch).await?;
    foreground.work(CALL_BYTES);
    if !request.leaf_sums.is_empty() {
        let leaves = leaves_of(request.first_token, request.last_token);
        let leaves = leaves.filter(|leaves| leaves.len() == request.leaf_sums.len());
        let leaves =
            leaves.ok_or_else(|| Status::invalid_argument("the sums do not fit the leaves of the range"))?;
        // The sums have every write that was let in, durable or not.
        let differing = (0u32..).zip(replica.leaves().sums(leaves)).zip(&request.leaf_sums);
        let differing = differing.filter(|((_, ours), theirs)| ours != *theirs).map(|((at, _), _)| at).collect();
        settle(replica).await?;
        return Ok(DigestReply { differing, epoch: ring.epoch(), ..DigestReply::default() });
    }
    if !request.fanout.is_power_of_two() || request.fanout > FANOUT_MAX {
        return Err(Status::invalid_argument(format!("a fanout of {} is not supported", request.fanout)));
    }
    settle(replica).await?;
    let buckets = Buckets::new(request.first_token, request.last_token, request.fanout as usize)
        .ok_or_else(|| Status::invalid_argument("the token range cannot be split into that many buckets"))?;
    let digests = local_digests(replica, &buckets).await.map_err(|error| internal(&error))?;
    let buckets = digests
        .into_iter()
        .map(|digest| BucketDigest { count: digest.count, sum: Bytes::copy_from_slice(&digest.sum.to_le_bytes()) })
        .collect();
    Ok(DigestReply { buckets, epoch: ring.epoch(), ..DigestReply::default() })
}

/// Leaves of an inclusive token range; `None` if it ends within one.
pub(super) fn leaves_of(first_token: u64, last_token: u64) -> Option<std::ops::Range<usize>> {
    let (first, last) = (leaf(Token(first_token)), leaf(Token(last_token)));
    let whole = leaf_tokens(first).0 == first_token && leaf_tokens(last).1 == last_token && first <= last;
    whole.then_some(first..last + 1)
}

/// Digests of what this node has in each bucket.
///
/// # Errors
/// When the engine cannot be read.
pub(super) async fn local_digests(
    replica: &Replica,
    buckets: &Buckets,
) -> Result<Vec<RangeDigest>, crate::storage::EngineError> {
    let mut digests = vec![RangeDigest::default(); buckets.fanout()];
    let mut range = ScanRange::tokens(buckets.first(), buckets.last());
    loop {
        let page = replica.engine().scan(Space::Data, &range, SCAN_ITEMS, SCAN_BYTES)?;
        for (storage_key, object) in &page.items {
            let Some((token, key)) = split_storage_key(storage_key) else { continue };
            digests[buckets.bucket_of(token.0)].add(token.0, &key, digest_of_encoded(object));
        }
        match page.items.last() {
            Some((last, _)) if page.more => range.after = Some(last.clone()),
            _ => return Ok(digests),
        }
        // A large partition takes a while; requests go first.
        tokio::task::yield_now().await;
    }
}

/// Everything queued so far is applied to the engine, where scans see it.
async fn settle(replica: &Replica) -> Result<(), Status> {
    replica.committer().barrier().await.map_err(|error| Status::unavailable(error.to_string()))
}

async fn check(ring: &RingState, cluster: &[u8], incarnation: &[u8], epoch: u64) -> Result<(), Status> {
    let invalid = |error: annulus_proto::FieldError| Status::invalid_argument(error.to_string());
    let theirs = uuid_from("cluster", cluster).map_err(invalid)?;
    if theirs != ring.cluster() {
        return Err(Status::failed_precondition("this node belongs to another cluster"));
    }
    let meant = uuid_from("incarnation", incarnation).map_err(invalid)?;
    if meant != ring.incarnation() {
        return Err(Status::failed_precondition("this node is another incarnation than the one asked"));
    }
    let reached = tokio::time::timeout(RING_WAIT_MAX, ring.reached(epoch)).await;
    reached.map_err(|_| Status::unavailable(format!("this node has not installed ring epoch {epoch} yet")))
}

fn internal(error: &dyn std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

/// Cursor behind an item, as [`PageRequest::after`] takes it.
#[must_use]
pub(super) fn cursor(token: Token, key: &[u8]) -> Bytes {
    storage_key(token, key)
}

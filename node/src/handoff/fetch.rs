//! Asking a member for a page or for digests, and checking what it sends.

use super::packed::unpack;
use crate::peers::{BulkError, Peers};
use annulus_proto::v1::peer_client::PeerClient;
use annulus_proto::v1::{DigestReply, DigestRequest, PageReply, PageRequest};
use bytes::Bytes;
use dynamo::digest::RangeDigest;
use dynamo::preference::MemberIndex;
use std::time::Duration;

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Why a member's answer cannot be used. Nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It cannot be reached.
    #[error(transparent)]
    Bulk(#[from] BulkError),
    /// It refused or the call failed.
    #[error("{0}")]
    Status(#[from] tonic::Status),
    /// It took too long.
    #[error("no answer within {CALL_TIMEOUT:?}")]
    TimedOut(#[from] tokio::time::error::Elapsed),
    /// The page does not have the checksum it came with.
    #[error("a page was damaged on its way")]
    Checksum,
    /// Another number of buckets than asked for.
    #[error("the digests do not fit the request")]
    Shape,
}

/// A page that a member has sent.
#[derive(Debug)]
pub struct FetchedPage {
    /// Keys and objects in token order, slices of one buffer.
    pub items: Vec<(Bytes, Bytes)>,
    /// That buffer.
    pub packed: Bytes,
    /// Its CRC-32.
    pub checksum: u32,
    /// Whether the range has more items behind the last.
    pub more: bool,
    /// What the clients of the sender feel, in percent of what is usual; 0: too few to tell.
    pub pressure_percent: u32,
    /// Bytes of keys and objects in the hash slots of the whole range.
    pub range_bytes: u64,
}

/// Fetches one page; fills in whom it is for.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch_page(
    peers: &Peers,
    member: MemberIndex,
    mut request: PageRequest,
) -> Result<FetchedPage, FetchError> {
    let (channel, incarnation) = peers.bulk_channel(member).await?;
    request.incarnation = Bytes::copy_from_slice(incarnation.as_bytes());
    let mut client = PeerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let page = tokio::time::timeout(CALL_TIMEOUT, client.page(request)).await??.into_inner();
    let PageReply { packed, checksum, more, pressure_percent, range_bytes, .. } = page;
    let items = unpack(packed.clone(), checksum).ok_or(FetchError::Checksum)?;
    Ok(FetchedPage { items, packed, checksum, more, pressure_percent, range_bytes })
}

/// Asks which of these leaves have other sums there; fills in whom it is for.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch_differing(
    peers: &Peers,
    member: MemberIndex,
    request: DigestRequest,
) -> Result<Vec<usize>, FetchError> {
    let asked = request.leaf_sums.len();
    let reply = ask_digest(peers, member, request).await?;
    let differing: Vec<usize> = reply.differing.iter().map(|&at| at as usize).collect();
    let ascending = differing.is_sorted_by(|one, next| one < next);
    (ascending && differing.last().is_none_or(|&last| last < asked)).then_some(differing).ok_or(FetchError::Shape)
}

/// Fetches the digests of a range's buckets; fills in whom it is for.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch_digest(
    peers: &Peers,
    member: MemberIndex,
    request: DigestRequest,
) -> Result<Vec<RangeDigest>, FetchError> {
    let fanout = request.fanout as usize;
    let reply = ask_digest(peers, member, request).await?;
    let digests: Option<Vec<RangeDigest>> = reply
        .buckets
        .iter()
        .map(|bucket| {
            let sum = u128::from_le_bytes(bucket.sum.as_ref().try_into().ok()?);
            Some(RangeDigest { count: bucket.count, sum })
        })
        .collect();
    digests.filter(|digests| digests.len() == fanout).ok_or(FetchError::Shape)
}

async fn ask_digest(
    peers: &Peers,
    member: MemberIndex,
    mut request: DigestRequest,
) -> Result<DigestReply, FetchError> {
    let (channel, incarnation) = peers.bulk_channel(member).await?;
    request.incarnation = Bytes::copy_from_slice(incarnation.as_bytes());
    let mut client = PeerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    Ok(tokio::time::timeout(CALL_TIMEOUT, client.digest(request)).await??.into_inner())
}

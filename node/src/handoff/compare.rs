//! Making this node's copy of a token range hold everything that another member has, at the cost of what differs.
//!
//! First the sums of leaves, which both have at hand (see [`dynamo::reconcile`]). Where they differ, digests of buckets
//! are compared; a bucket that differs is fetched whole if it is small and split again if it is not (a Merkle tree
//! walked from the top, as in Dynamo §4.7, built on the way instead of kept).

use super::fetch::{FetchError, fetch_differing, fetch_digest, fetch_page};
use super::serve::{self, leaves_of, local_digests};
use crate::peers::Peers;
use crate::replica::{Replica, ReplicaError};
use crate::storage::EngineError;
use annulus_proto::v1::{DigestRequest, PageRequest};
use bytes::Bytes;
use dynamo::digest::{Buckets, differing};
use dynamo::preference::MemberIndex;
use dynamo::reconcile::leaf_tokens;
use dynamo::token::Token;

/// Buckets a range is split into at each level.
const FANOUT: usize = 16;
/// A differing bucket with at most this many items is fetched instead of split.
const FETCH_ITEMS_MAX: u64 = 64;

/// Why a range could not be compared. What had been fetched until then is merged and stays.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The member cannot be asked.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// This node's engine cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An object was not taken.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// It could not be stored.
    #[error(transparent)]
    Storage(#[from] crate::storage::StorageError),
}

/// Where and under which ring a range is compared.
pub(super) struct Comparison<'a> {
    pub peers: &'a Peers,
    pub replica: &'a Replica,
    pub cluster: Bytes,
    /// Of the ring.
    pub epoch: u64,
    /// Since when the lists of the range are those of this ring.
    pub since: u64,
    pub member: MemberIndex,
    pub token_of: &'a (dyn Fn(&[u8]) -> Token + Sync),
}

/// What a comparison fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fetched {
    pub bytes: u64,
    pub items: u64,
}

/// Parts of the range of a request whose leaves have other sums at a member; all of it, if it has no whole leaves. What
/// is equal is durable there.
pub(super) async fn differing_ranges(
    peers: &Peers,
    replica: &Replica,
    member: MemberIndex,
    request: DigestRequest,
) -> Result<Vec<(u64, u64)>, FetchError> {
    let Some(leaves) = leaves_of(request.first_token, request.last_token) else {
        return Ok(vec![(request.first_token, request.last_token)]);
    };
    let leaf_sums = replica.leaves().sums(leaves.clone()).collect();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for at in fetch_differing(peers, member, DigestRequest { leaf_sums, ..request }).await? {
        let (first, last) = leaf_tokens(leaves.start + at);
        match ranges.last_mut() {
            Some(before) if before.1.wrapping_add(1) == first => before.1 = last,
            _ => ranges.push((first, last)),
        }
    }
    Ok(ranges)
}

impl Comparison<'_> {
    /// Merges what the member has and this node lacks in an inclusive token range. Durable when it returns.
    pub(super) async fn run(&self, first: u64, last: u64) -> Result<Fetched, CompareError> {
        let mut fetched = Fetched::default();
        let request = self.digest_request(first, last);
        let mut ranges = differing_ranges(self.peers, self.replica, self.member, request).await?;
        while let Some((first, last)) = ranges.pop() {
            let Some(buckets) = Buckets::new(first, last, FANOUT) else {
                self.fetch(first, last, &mut fetched).await?;
                continue;
            };
            let theirs = fetch_digest(self.peers, self.member, self.digest_request(first, last)).await?;
            self.replica.committer().barrier().await?;
            let ours = local_digests(self.replica, &buckets).await?;
            for bucket in differing(&ours, &theirs) {
                let (first, last) = buckets.bucket_range(bucket);
                match theirs[bucket].count {
                    0 => {}
                    1..=FETCH_ITEMS_MAX => self.fetch(first, last, &mut fetched).await?,
                    _ => ranges.push((first, last)),
                }
            }
        }
        // What is equal may have come by other ways and not be durable yet.
        self.replica.committer().barrier().await?;
        Ok(fetched)
    }

    fn digest_request(&self, first_token: u64, last_token: u64) -> DigestRequest {
        let (cluster, epoch) = (self.cluster.clone(), self.epoch);
        let fanout = u32::try_from(FANOUT).unwrap_or(1);
        DigestRequest { cluster, epoch, first_token, last_token, fanout, ..DigestRequest::default() }
    }

    async fn fetch(&self, first_token: u64, last_token: u64, fetched: &mut Fetched) -> Result<(), CompareError> {
        let mut after = Bytes::new();
        loop {
            let request = PageRequest {
                cluster: self.cluster.clone(),
                epoch: self.epoch,
                first_token,
                last_token,
                after: after.clone(),
                items_max: serve::PAGE_ITEMS_MAX,
                bytes_max: 1 << 20,
                incarnation: Bytes::new(),
            };
            let _flight = self.replica.take_off();
            let page = fetch_page(self.peers, self.member, request).await?;
            let mut durable = Vec::with_capacity(page.items.len());
            for (key, object) in page.items {
                fetched.items += 1;
                fetched.bytes += (key.len() + object.len()) as u64;
                let token = (self.token_of)(&key);
                after = serve::cursor(token, &key);
                durable.extend(self.replica.merge(token, &key, object, self.since).await?);
            }
            for submitted in durable {
                submitted.await?;
            }
            if !page.more {
                return Ok(());
            }
        }
    }
}

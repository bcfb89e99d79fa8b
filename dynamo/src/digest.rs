//! Digests of token ranges, to find out cheaply where two replicas differ.
//!
//! In place of a Merkle tree that is kept (Dynamo §4.7), a range is split into buckets, each with the *sum* of the
//! hashes of its items. A sum does not depend on order and can be taken back, so digests can be computed by one
//! scan or kept up to date by every write; buckets that differ are split again, which is the walk down the tree.
//!
//! The hashes find accidents, not attacks: they have no secret key, and sums of hashes can be steered by someone who
//! chooses many values on purpose. Nothing worse than a difference found late would come of it.

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// Digest of the items of a token range: how many there are and the sum of their hashes, modulo 2¹²⁸.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RangeDigest {
    /// Number of items.
    pub count: u64,
    /// Sum of the 128-bit hashes of (token, key, object digest), modulo 2¹²⁸.
    pub sum: u128,
}

impl RangeDigest {
    /// Takes an item in. `object_digest` is [`Object::digest`](crate::object::Object::digest).
    pub fn add(&mut self, token: u64, key: &[u8], object_digest: u64) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(item(token, key, object_digest));
    }

    /// Takes an item out that was added with the same arguments.
    pub fn remove(&mut self, token: u64, key: &[u8], object_digest: u64) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(item(token, key, object_digest));
    }

    /// Digest of the items of two disjoint ranges.
    #[must_use]
    pub fn combine(self, other: Self) -> Self {
        Self { count: self.count.wrapping_add(other.count), sum: self.sum.wrapping_add(other.sum) }
    }
}

/// Token and digest have a fixed width and stand in front, so no two items are the same text.
fn item(token: u64, key: &[u8], object_digest: u64) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write(&token.to_le_bytes());
    hasher.write(&object_digest.to_le_bytes());
    hasher.write(key);
    hasher.finish128().as_u128()
}

/// An inclusive token range, split into equal buckets.
///
/// When the number of tokens is a multiple of the number of buckets, as it is for partitions and their buckets, all
/// buckets have the same width; else widths differ by at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    first: u64,
    last: u64,
    fanout: usize,
}

impl Buckets {
    /// Splits the tokens from `first` to `last`, both included, into `fanout` buckets. `None` when the range is
    /// empty or has fewer tokens than that, or when `fanout` is no power of two.
    #[must_use]
    pub fn new(first: u64, last: u64, fanout: usize) -> Option<Self> {
        let buckets = Self { first, last, fanout };
        let splits = first <= last && fanout.is_power_of_two() && buckets.tokens() >= fanout as u128;
        splits.then_some(buckets)
    }

    /// First token of the range.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Last token of the range.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Number of buckets.
    #[must_use]
    pub fn fanout(&self) -> usize {
        self.fanout
    }

    /// Bucket of a token, below [`fanout`](Buckets::fanout). Tokens outside of the range belong to the bucket at
    /// that end of it.
    #[must_use]
    pub fn bucket_of(&self, token: u64) -> usize {
        let offset = u128::from(token.clamp(self.first, self.last) - self.first);
        let bucket = offset * self.fanout as u128 / self.tokens();
        usize::try_from(bucket).unwrap_or(self.fanout - 1)
    }

    /// First and last token of a bucket, both included. A bucket beyond the last counts as the last.
    #[must_use]
    pub fn bucket_range(&self, bucket: usize) -> (u64, u64) {
        let bucket = bucket.min(self.fanout - 1);
        let last = if bucket + 1 == self.fanout { self.last } else { self.start(bucket + 1) - 1 };
        (self.start(bucket), last)
    }

    /// First token of a bucket: the first whose offset, scaled, rounds down to the bucket.
    fn start(&self, bucket: usize) -> u64 {
        let offset = (bucket as u128 * self.tokens()).div_ceil(self.fanout as u128);
        // The offset of an existing bucket is below the number of tokens, which fits.
        self.first.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
    }

    fn tokens(&self) -> u128 {
        u128::from(self.last - self.first) + 1
    }
}

/// Buckets in which two replicas differ, ascending. Buckets that only one of them reports differ, unless empty.
#[must_use]
pub fn differing(local: &[RangeDigest], remote: &[RangeDigest]) -> Vec<usize> {
    let at = |digests: &[RangeDigest], bucket| digests.get(bucket).copied().unwrap_or_default();
    (0..local.len().max(remote.len())).filter(|&bucket| at(local, bucket) != at(remote, bucket)).collect()
}

//! Sums of the hashes of what is here, leaf by leaf, kept as it changes: what anti-entropy compares.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dynamo::reconcile::{LEAVES, item_hash, leaf};
use dynamo::token::Token;
use std::sync::atomic::{AtomicU64, Ordering};

/// The sums, durable or not: they are those of the newest objects. Half a mebibyte.
#[derive(Debug)]
pub struct Leaves {
    sums: Vec<AtomicU64>,
}

impl Default for Leaves {
    /// Nothing is here.
    fn default() -> Self {
        Self { sums: (0..LEAVES).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Leaves {
    /// An item has changed. Called under the lock of its key, so that no state of it is left out or counted twice.
    pub fn replace(&self, storage_key: &[u8], before: Option<&Bytes>, after: Option<&Bytes>) {
        let hash = |object: Option<&Bytes>| object.map(|object| item_hash(storage_key, object));
        self.replace_hash(storage_key, hash(before), hash(after));
    }

    /// The same for items whose [`item_hash`] is known.
    pub fn replace_hash(&self, storage_key: &[u8], before: Option<u64>, after: Option<u64>) {
        let Some(token) = storage_key.first_chunk::<8>() else { return };
        let difference = after.unwrap_or(0).wrapping_sub(before.unwrap_or(0));
        // Relaxed: nobody draws conclusions about other memory from a sum.
        self.sums[leaf(Token(u64::from_be_bytes(*token)))].fetch_add(difference, Ordering::Relaxed);
    }

    /// Writes all sums down.
    pub(super) fn encode(&self, bytes: &mut BytesMut) {
        self.sums(0..LEAVES).for_each(|sum| bytes.put_u64_le(sum));
    }

    /// Reads what [`encode`](Leaves::encode) has written; `None`: it ends too early.
    pub(super) fn decode(bytes: &mut Bytes) -> Option<Self> {
        let sums = (0..LEAVES).map(|_| bytes.try_get_u64_le().ok().map(AtomicU64::new));
        Some(Self { sums: sums.collect::<Option<_>>()? })
    }

    /// Sums of a run of leaves.
    pub fn sums(&self, leaves: std::ops::Range<usize>) -> impl Iterator<Item = u64> {
        self.sums[leaves].iter().map(|sum| sum.load(Ordering::Relaxed))
    }
}

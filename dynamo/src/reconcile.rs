//! Anti-entropy: finding where two replicas differ for a few bytes, and who is to send what.
//!
//! A Merkle tree (Dynamo §4.7) of which only the lower of two levels is kept: the tokens are cut into [`LEAVES`]
//! equal leaves, each with the *sum* of the hashes of its items, which every write keeps up to date in constant time.
//! Roots of partitions are made of leaves when they are asked for, so they fit any number of partitions. Below a leaf
//! that differs, the items' hashes themselves are compared, in short: two bytes each.
//!
//! Set reconciliation by rateless sketches (Yang, Gilad, Alizadeh, "Practical Rateless Set Reconciliation", SIGCOMM
//! 2024) would send fewer bytes than the leaves of a partition when hardly anything differs, but each sketch takes a
//! hash of every item of the partition, read from disk at both ends; the leaves are at hand and confine reading to
//! the leaves that differ. `tests/reconcile.rs` has the figures.
//!
//! What is short is salted: two items that look alike in one comparison do not in the next. So it can be very short: of
//! 2¹⁶ differences one is found a round later, and whoever compares a leaf sends two bytes for each of its items.

use crate::object::Context;
use crate::preference::MemberIndex;
use crate::ring::{Phase, Placement};
use crate::token::Token;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Number of leaves that all tokens are cut into. Four to each hash slot, so at least four to each partition.
pub const LEAVES: usize = 1 << LEAF_BITS;
const LEAF_BITS: u32 = 16;

/// Leaf of a token, below [`LEAVES`].
#[must_use]
pub fn leaf(token: Token) -> usize {
    // 16 bits are left.
    (token.0 >> (u64::BITS - LEAF_BITS)) as usize
}

/// First and last token of a leaf, both included.
#[must_use]
pub fn leaf_tokens(leaf: usize) -> (u64, u64) {
    let first = (leaf as u64) << (u64::BITS - LEAF_BITS);
    (first, first | (u64::MAX >> LEAF_BITS))
}

/// Hash of an item: a key as it is stored (the token before it) and its encoded object. Equal if and, but for one in
/// 2⁶⁴, only if both are. It finds accidents, not attacks.
#[must_use]
pub fn item_hash(storage_key: &[u8], object: &[u8]) -> u64 {
    xxh3_64_with_seed(object, xxh3_64(storage_key))
}

/// Root of a run of leaves: of a partition, or of all that two members share. No items at all have some root too.
#[must_use]
pub fn root(leaf_sums: impl IntoIterator<Item = u64>) -> u64 {
    // A hash in order, not another sum: the same items in different leaves are a difference.
    let mut bytes = Vec::new();
    for sum in leaf_sums {
        bytes.extend_from_slice(&sum.to_le_bytes());
    }
    xxh3_64(&bytes)
}

/// A hash or a sum of hashes in two bytes. What is equal under one salt is, but for one in 2¹⁶, not under another.
#[must_use]
pub fn short(hash: u64, salt: u64) -> u16 {
    // The upper bits of a multiplication by an odd number depend on all bits below; folded down and multiplied again,
    // all depend on all (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
    let mixed = (hash ^ salt).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ (mixed >> 32)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 48) as u16
}

/// Who has to have all items of a partition: the effective list, and the old one while it retires. A newcomer whose
/// copy is being filled is left to the move, which counts what it costs.
#[must_use]
pub fn holders(placement: &Placement) -> Vec<MemberIndex> {
    let mut holders = placement.preference.clone();
    if let Some(also) = placement.also.as_ref().filter(|also| also.phase == Phase::Retiring) {
        holders.extend(also.list.iter().filter(|member| !placement.preference.contains(member)));
    }
    holders
}

/// Where two lists of short hashes differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unmatched {
    /// Positions in the first list of what the second lacks, ascending.
    pub first: Vec<usize>,
    /// Positions in the second list of what the first lacks, ascending.
    pub second: Vec<usize>,
}

/// Compares two lists of short hashes as sets.
#[must_use]
pub fn unmatched(first: &[u16], second: &[u16]) -> Unmatched {
    let lacking = |list: &[u16], other: &[u16]| {
        let mut known = other.to_vec();
        known.sort_unstable();
        list.iter()
            .enumerate()
            .filter(|(_, hash)| known.binary_search(hash).is_err())
            .map(|(at, _)| at)
            .collect::<Vec<_>>()
    };
    Unmatched { first: lacking(first, second), second: lacking(second, first) }
}

/// What to do about a key of which both sides have another state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// The other side has seen all that this one has: fetch its object.
    Fetch,
    /// This side has seen all that the other one has: send the object.
    Send,
    /// Neither, or there is no telling: fetch, merge, and send the result.
    Both,
}

/// Decides by what either side has seen. When that is wrong, since what was seen does not tell all, the sides differ
/// still after the exchange while having seen the same, and the next comparison says [`Exchange::Both`].
#[must_use]
pub fn exchange(ours: &Context, theirs: &Context) -> Exchange {
    let covers = |one: &Context, other: &Context| other.iter().all(|(actor, counter)| one.get(actor) >= counter);
    match (covers(ours, theirs), covers(theirs, ours)) {
        (true, false) => Exchange::Send,
        (false, true) => Exchange::Fetch,
        _ => Exchange::Both,
    }
}

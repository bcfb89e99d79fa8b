//! Tokens: where a key lies on the ring, and which partition that is.
//!
//! The ring is the circle of 64-bit numbers. A key's token has its Redis Cluster hash slot in the top 14 bits, so
//! every Redis Cluster client can find the partition of a key without being told how, and a keyed hash in the low
//! 50 bits, so keys of one slot are spread and have an order. Partitions are Q equal arcs of the circle, Q a power
//! of two (Dynamo, `DeCandia` et al., SOSP 2007, §6.2, strategy 3): the partition of a token is its top log2 Q bits,
//! and because Q ≤ 16384 a hash slot never straddles two partitions.

use crc::{CRC_16_XMODEM, Crc, Table};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use siphasher::sip::SipHasher13;
use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

/// Position on the ring; positions are ordered clockwise and wrap round after `u64::MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub u64);

/// `SipHash` key of a cluster: drawn once from a good source of randomness and never changed, so that nobody outside
/// can choose keys that all land on one spot of a slot. Written as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashKey(pub [u8; 16]);

/// A text that is not a hash key. Nothing of it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash key is 32 hexadecimal digits")]
pub struct HashKeyError;

/// Number of hash slots of Redis Cluster.
pub const SLOTS: u16 = 16384;

/// Bits of a token below the hash slot.
const SLOT_SHIFT: u32 = 50;

// A 16-lane table: slicing is what makes the checksum cheap next to everything else a request does.
const CRC16: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

/// Hash slot of a key: CRC16/XMODEM mod 16384 of its hash tag, or of the whole key if it has none.
///
/// The tag is what stands between the first `{` and the first `}` after it, if that is not empty (Redis Cluster
/// specification, "Hash tags"): keys with the same tag share a slot, hence a partition and its replicas.
#[must_use]
pub fn slot(key: &[u8]) -> u16 {
    CRC16.checksum(hash_tag(key).unwrap_or(key)) % SLOTS
}

impl Token {
    /// Token of a key: top 14 bits its [`slot`], low 50 bits the low 50 bits of SipHash-1-3 (Aumasson and Bernstein
    /// 2012) of the whole key, hash tag or not.
    #[must_use]
    pub fn of(hash_key: &HashKey, key: &[u8]) -> Self {
        let mut hasher = SipHasher13::new_with_key(&hash_key.0);
        hasher.write(key);
        let low = hasher.finish() & ((1 << SLOT_SHIFT) - 1);
        Self((u64::from(slot(key)) << SLOT_SHIFT) | low)
    }

    /// Hash slot that the token lies in.
    #[must_use]
    pub fn slot(self) -> u16 {
        // Fourteen bits remain, so nothing is cut off.
        (self.0 >> SLOT_SHIFT) as u16
    }
}

/// Number of partitions Q of a ring: a power of two, 16 ≤ Q ≤ 16384.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionCount(u32);

/// A number that no ring can have as its number of partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} partitions: must be a power of two between 16 and 16384")]
pub struct PartitionCountError(pub u32);

impl PartitionCount {
    /// Checks a number of partitions.
    ///
    /// # Errors
    /// [`PartitionCountError`] unless it is a power of two between 16 and 16384.
    pub fn new(count: u32) -> Result<Self, PartitionCountError> {
        let possible = count.is_power_of_two() && (16..=u32::from(SLOTS)).contains(&count);
        if possible { Ok(Self(count)) } else { Err(PartitionCountError(count)) }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// Its logarithm to base 2: how many top bits of a token name the partition.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0.trailing_zeros()
    }
}

/// Partition that a token lies in: its top log2 Q bits.
#[must_use]
pub fn partition(token: Token, count: PartitionCount) -> u32 {
    // At most fourteen bits remain, so nothing is cut off.
    (token.0 >> (u64::BITS - count.bits())) as u32
}

/// First token of a partition. `partition` is below Q; of a larger number the excess bits are lost.
#[must_use]
pub fn first_token(partition: u32, count: PartitionCount) -> Token {
    Token(u64::from(partition) << (u64::BITS - count.bits()))
}

/// Last token of a partition, inclusive.
#[must_use]
pub fn last_token(partition: u32, count: PartitionCount) -> Token {
    Token(first_token(partition, count).0 | (u64::MAX >> count.bits()))
}

/// Hash slots of a partition. No slot is part of two partitions, whatever Q is.
#[must_use]
pub fn slots(partition: u32, count: PartitionCount) -> std::ops::Range<usize> {
    let width = usize::from(SLOTS) >> count.bits();
    let first = partition as usize * width;
    first..first + width
}

/// First and last token of a hash slot, both included.
#[must_use]
pub fn slot_tokens(slot: u16) -> (u64, u64) {
    let first = u64::from(slot) << SLOT_SHIFT;
    (first, first | ((1 << SLOT_SHIFT) - 1))
}

fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&byte| byte == b'{')?;
    let rest = &key[open + 1..];
    let close = rest.iter().position(|&byte| byte == b'}')?;
    (close > 0).then(|| &rest[..close])
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for PartitionCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for HashKey {
    /// Says only that there is a key: logs are read by more people than may choose where keys collide.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(..)")
    }
}

impl FromStr for HashKey {
    type Err = HashKeyError;

    fn from_str(text: &str) -> Result<Self, HashKeyError> {
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return Err(HashKeyError);
        }
        let mut key = [0; 16];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Ok(Self(key))
    }
}

fn hex_digit(digit: u8) -> Result<u8, HashKeyError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(HashKeyError),
    }
}

impl Serialize for HashKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HashKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

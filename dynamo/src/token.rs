//! Tokens and partitions.
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// Position on the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// `SipHash` key of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashKey(pub [u8; 16]);

/// Number of Redis Cluster hash slots.
pub const SLOTS: u16 = 16384;

/// Hash slot of a key.
#[must_use]
pub fn slot(key: &[u8]) -> u16 {
    crc::Crc::<u16>::new(&crc::CRC_16_XMODEM).checksum(key) % SLOTS
}

impl Token {
    /// Token of a key.
    #[must_use]
    pub fn of(hash_key: &HashKey, key: &[u8]) -> Self {
        let mut hasher = SipHasher13::new_with_key(&hash_key.0);
        hasher.write(key);
        Self((u64::from(slot(key)) << 50) | (hasher.finish() & ((1 << 50) - 1)))
    }
}

/// Number of partitions Q.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionCount(u32);

/// Not a power of two between 16 and 16384.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} partitions: must be a power of two between 16 and 16384")]
pub struct PartitionCountError(pub u32);

impl PartitionCount {
    /// Checks.
    ///
    /// # Errors
    /// Not a power of two between 16 and 16384.
    pub fn new(count: u32) -> Result<Self, PartitionCountError> {
        if count.is_power_of_two() && (16..=16384).contains(&count) { Ok(Self(count)) } else { Err(PartitionCountError(count)) }
    }
    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
    /// Its logarithm.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0.trailing_zeros()
    }
}

/// Partition of a token.
#[must_use]
pub fn partition(token: Token, count: PartitionCount) -> u32 {
    u32::try_from(token.0 >> (64 - count.bits())).unwrap_or(0)
}

/// First token of a partition.
#[must_use]
pub fn first_token(partition: u32, count: PartitionCount) -> Token {
    Token(u64::from(partition) << (64 - count.bits()))
}

/// Last token of a partition, inclusive.
#[must_use]
pub fn last_token(partition: u32, count: PartitionCount) -> Token {
    Token(first_token(partition, count).0 | (u64::MAX >> count.bits()))
}

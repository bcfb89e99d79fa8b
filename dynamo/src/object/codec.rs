//! Objects and contexts as bytes. The format is what is on disk and between nodes: it does not change; another one
//! gets another version byte.
//!
//! ```text
//! object   = version:u8 (1)  entries:varint  entry*              entries ascending by actor, none twice
//!          | version:u8 (2)  entries:varint  entry*  structure   see `structure_codec.rs`; only if there is anything
//!                                                               in it that the entries do not say
//! entry    = actor  counter:varint (≥ 1)  values:varint (≤ counter)  value*
//!                                            the values of counter, counter − 1, …: newest first
//! actor    = incarnation:u64 little endian  birth:varint
//! value    = flags:u8  timestamp:u64 little endian  [expires_at_ms:varint]  [length:varint  bytes]
//!            flags bit 0: a tombstone, without length and bytes; bit 1: expires_at_ms is there; other bits zero
//! context  = nothing, if empty; else version:u8 (1)  actors:varint  (actor  counter:varint)*    as in an object
//! varint   = unsigned LEB128: 7 bits a byte, lowest first, the top bit says that more follow; shortest form only
//! ```
//!
//! One entry with one value of up to 127 bytes takes 22 bytes beside the value and the birth's varint, up to 16,383
//! bytes one more; an expiry takes 6.
//!
//! There is exactly one encoding of an object and nothing else decodes, so objects are equal if and only if their
//! encodings are. Nothing follows an object: bytes left over are an error.

use super::siblings::{Entry, Object};
use super::{Actor, Dot, Payload, Value};
use crate::hlc::Hlc;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// First byte of every encoded context, and of every encoded object that is but a string.
pub const VERSION: u8 = 1;
/// First byte of encoded objects with more to them: counters, sets, hashes.
pub const VERSION_STRUCTURED: u8 = 2;

const TOMBSTONE: u8 = 1;
const EXPIRES: u8 = 2;
/// Least bytes of an actor, of an entry without values and of a value: what bounds the counts in hostile input.
pub(super) const ACTOR_BYTES_MIN: usize = 9;
const ENTRY_BYTES_MIN: usize = ACTOR_BYTES_MIN + 2;
const VALUE_BYTES_MIN: usize = 9;

/// Why bytes are no encoded object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Another format, or no object at all.
    #[error("version {0} of the format is unknown")]
    Version(u8),
    /// The input ends too early, or a length in it is too large.
    #[error("the input ends before the object does")]
    Truncated,
    /// Something follows the object.
    #[error("{0} bytes follow the object")]
    Trailing(usize),
    /// Bytes that no encoder writes: actors out of order, a counter that is zero or smaller than its number of
    /// values, unknown flags, a number in more bytes than it needs or beyond 64 bits.
    #[error("the encoding is not canonical")]
    NotCanonical,
}

impl Object {
    /// Number of bytes of the encoding.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let entries = self.entries.iter().map(|entry| {
            let values = entry.values.iter().map(value_len).sum::<usize>();
            ACTOR_BYTES_MIN - 1
                + varint_len(entry.actor.birth)
                + varint_len(entry.counter)
                + varint_len(entry.values.len() as u64)
                + values
        });
        let structure = if self.is_structured() { self.structure_len() } else { 0 };
        1 + varint_len(self.entries.len() as u64) + entries.sum::<usize>() + structure
    }

    /// The encoding, in memory of its own.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.encoded_len());
        self.encode_into(&mut bytes);
        bytes.freeze()
    }

    /// Appends the encoding.
    pub fn encode_into(&self, bytes: &mut BytesMut) {
        let structured = self.is_structured();
        bytes.put_u8(if structured { VERSION_STRUCTURED } else { VERSION });
        put_varint(bytes, self.entries.len() as u64);
        for entry in &self.entries {
            put_actor(bytes, entry.actor);
            put_varint(bytes, entry.counter);
            put_varint(bytes, entry.values.len() as u64);
            for value in &entry.values {
                put_value(bytes, value);
            }
        }
        if structured {
            self.encode_structure(bytes);
        }
    }

    /// Reads an encoding. Values are slices of the input, which stays in memory as long as one of them does.
    ///
    /// # Errors
    /// [`CodecError`], for anything that [`encode`](Object::encode) would not have written.
    pub fn decode(encoded: Bytes) -> Result<Self, CodecError> {
        let mut reader = Reader::new(encoded);
        let structured = match reader.byte()? {
            VERSION => false,
            VERSION_STRUCTURED => true,
            other => return Err(CodecError::Version(other)),
        };
        let count = reader.count(ENTRY_BYTES_MIN)?;
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        for _ in 0..count {
            let (actor, counter, value_count) = reader.entry(entries.last().map(|entry| entry.actor))?;
            let mut values = Vec::with_capacity(value_count);
            for _ in 0..value_count {
                values.push(reader.value()?);
            }
            entries.push(Entry { actor, counter, values });
        }
        let mut object = Self { entries, ..Self::default() };
        object.wiped = object.newest_sibling();
        if structured {
            object.decode_structure(&mut reader)?;
        }
        reader.end()?;
        Ok(object)
    }

    /// What `wiped` is unless it is written down.
    fn newest_sibling(&self) -> Hlc {
        self.siblings().map(|(_, value)| value.timestamp).max().unwrap_or_default()
    }

    /// Whether the entries do not say it all.
    fn is_structured(&self) -> bool {
        !self.is_plain() || self.wiped != self.newest_sibling()
    }

    /// Hash of the object: equal objects have equal digests, others almost certainly (one in 2⁶⁴) not. For an
    /// object that is at hand as bytes, [`digest_of_encoded`] is the same at less cost.
    #[must_use]
    pub fn digest(&self) -> u64 {
        digest_of_encoded(&self.encode())
    }
}

/// [`Object::digest`] of an encoded object.
#[must_use]
pub fn digest_of_encoded(encoded: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(encoded);
    hasher.finish()
}

/// [`Object::last_writer`] of an encoded object that is but a string, without building the object: for reads that need
/// no more. The value is a slice of the input.
///
/// # Errors
/// Those of [`Object::decode`], and [`CodecError::Version`] of [`VERSION_STRUCTURED`] for an object with more to it,
/// which has to be decoded.
pub fn peek_last_writer(encoded: &Bytes, now_ms: u64) -> Result<Option<Value>, CodecError> {
    let mut reader = Reader::new(encoded.clone());
    reader.version()?;
    let mut before = None;
    let mut winner: Option<(Hlc, Dot, Value)> = None;
    for _ in 0..reader.count(ENTRY_BYTES_MIN)? {
        let (actor, newest, value_count) = reader.entry(before)?;
        before = Some(actor);
        for counter in (0..value_count as u64).map(|age| newest - age) {
            let value = reader.value()?;
            let rank = (value.timestamp, Dot { actor, counter });
            if winner.as_ref().is_none_or(|(timestamp, dot, _)| rank > (*timestamp, *dot)) {
                winner = Some((rank.0, rank.1, value));
            }
        }
    }
    reader.end()?;
    Ok(winner.map(|(_, _, value)| value).filter(|value| value.live_at(now_ms)))
}

/// Reads one field after the other; every length is checked against what is left.
pub(super) struct Reader<B> {
    rest: B,
}

impl<B: Buf> Reader<B> {
    pub(super) fn new(rest: B) -> Self {
        Self { rest }
    }

    pub(super) fn version(&mut self) -> Result<(), CodecError> {
        match self.byte()? {
            VERSION => Ok(()),
            other => Err(CodecError::Version(other)),
        }
    }

    /// A number of things of which each takes some bytes: no more than what is left has room for.
    pub(super) fn count(&mut self, bytes_min: usize) -> Result<usize, CodecError> {
        let count = usize::try_from(self.varint()?).map_err(|_| CodecError::Truncated)?;
        if count > self.rest.remaining() / bytes_min {
            return Err(CodecError::Truncated);
        }
        Ok(count)
    }

    /// An actor that must come after the one before.
    pub(super) fn actor(&mut self, before: Option<Actor>) -> Result<Actor, CodecError> {
        let incarnation = self.fixed()?;
        let birth = self.varint()?;
        let actor = Actor { incarnation, birth };
        if before.is_some_and(|before| before >= actor) {
            return Err(CodecError::NotCanonical);
        }
        Ok(actor)
    }

    pub(super) fn counter(&mut self) -> Result<u64, CodecError> {
        match self.varint()? {
            0 => Err(CodecError::NotCanonical),
            counter => Ok(counter),
        }
    }

    pub(super) fn end(self) -> Result<(), CodecError> {
        match self.rest.remaining() {
            0 => Ok(()),
            trailing => Err(CodecError::Trailing(trailing)),
        }
    }

    /// Actor, counter and number of values of an entry.
    fn entry(&mut self, before: Option<Actor>) -> Result<(Actor, u64, usize), CodecError> {
        let actor = self.actor(before)?;
        let counter = self.counter()?;
        let value_count = self.count(VALUE_BYTES_MIN)?;
        if value_count as u64 > counter {
            return Err(CodecError::NotCanonical);
        }
        Ok((actor, counter, value_count))
    }

    fn value(&mut self) -> Result<Value, CodecError> {
        let flags = self.byte()?;
        if flags & !(TOMBSTONE | EXPIRES) != 0 {
            return Err(CodecError::NotCanonical);
        }
        let timestamp = Hlc(self.fixed()?);
        let expires_at_ms = if flags & EXPIRES == 0 { None } else { Some(self.varint()?) };
        let payload = if flags & TOMBSTONE == 0 { Payload::Bytes(self.bytes()?) } else { Payload::Tombstone };
        Ok(Value { timestamp, expires_at_ms, payload })
    }

    /// A length and as many bytes.
    pub(super) fn bytes(&mut self) -> Result<Bytes, CodecError> {
        let length = self.count(1)?;
        // On `Bytes` this shares the memory.
        Ok(self.rest.copy_to_bytes(length))
    }

    pub(super) fn byte(&mut self) -> Result<u8, CodecError> {
        self.rest.try_get_u8().map_err(|_| CodecError::Truncated)
    }

    pub(super) fn fixed(&mut self) -> Result<u64, CodecError> {
        self.rest.try_get_u64_le().map_err(|_| CodecError::Truncated)
    }

    pub(super) fn varint(&mut self) -> Result<u64, CodecError> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                return Err(CodecError::NotCanonical);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                let shortest = bits != 0 || shift == 0;
                return if shortest { Ok(number) } else { Err(CodecError::NotCanonical) };
            }
        }
        Err(CodecError::NotCanonical)
    }
}

fn value_len(value: &Value) -> usize {
    let payload = match &value.payload {
        Payload::Tombstone => 0,
        Payload::Bytes(bytes) => varint_len(bytes.len() as u64) + bytes.len(),
    };
    VALUE_BYTES_MIN + value.expires_at_ms.map_or(0, varint_len) + payload
}

fn put_value(bytes: &mut BytesMut, value: &Value) {
    let tombstone = if value.payload == Payload::Tombstone { TOMBSTONE } else { 0 };
    let expires = if value.expires_at_ms.is_some() { EXPIRES } else { 0 };
    bytes.put_u8(tombstone | expires);
    bytes.put_u64_le(value.timestamp.0);
    if let Some(expires_at_ms) = value.expires_at_ms {
        put_varint(bytes, expires_at_ms);
    }
    if let Payload::Bytes(payload) = &value.payload {
        put_varint(bytes, payload.len() as u64);
        bytes.put_slice(payload);
    }
}

pub(super) fn put_bytes(bytes: &mut BytesMut, written: &[u8]) {
    put_varint(bytes, written.len() as u64);
    bytes.put_slice(written);
}

pub(super) fn put_actor(bytes: &mut BytesMut, actor: Actor) {
    bytes.put_u64_le(actor.incarnation);
    put_varint(bytes, actor.birth);
}

pub(super) fn put_varint(bytes: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        // The mask leaves seven bits.
        bytes.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.put_u8(number as u8);
}

pub(super) fn varint_len(number: u64) -> usize {
    // Seven bits a byte, and one byte for zero.
    (u64::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
}

//! Changes and outcomes as bytes, between nodes. Like objects they are versioned, and nothing else decodes.
//!
//! ```text
//! change    = version:u8 (1)  kind:u8  arguments              see `encode`
//! outcome   = version:u8 (1)  kind:u8  arguments
//! bytes     = length:varint  bytes
//! optional  = 0 | 1 …
//! ```

use super::change::{Change, Condition, Expiry, ExpiryCondition, Outcome, Refusal};
use super::codec::{CodecError, Reader, put_bytes, put_varint};
use super::structure_codec::{unzigzag, zigzag};
use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;
/// Most room that is made at once, in bytes.
const ROOM_BYTES_MAX: usize = 64 << 10;

impl Change {
    /// The change as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        // Of what is written at an offset, only a part is carried.
        let mut to = BytesMut::with_capacity(self.bytes().min(ROOM_BYTES_MAX) + 32);
        to.put_u8(VERSION);
        match self {
            Self::Increment { by } => {
                to.put_u8(0);
                put_varint(&mut to, zigzag(*by));
            }
            Self::AddMembers(names) => put_names(&mut to, 1, names),
            Self::RemoveMembers(names) => put_names(&mut to, 2, names),
            Self::TakeMembers(names) => put_names(&mut to, 11, names),
            Self::TakeFields(fields) => {
                to.put_u8(12);
                put_varint(&mut to, fields.len() as u64);
                for (field, value) in fields {
                    put_bytes(&mut to, field);
                    put_optional_bytes(&mut to, value.as_ref());
                }
            }
            Self::SetFields(fields) => {
                to.put_u8(3);
                put_varint(&mut to, fields.len() as u64);
                for (field, value) in fields {
                    put_bytes(&mut to, field);
                    put_bytes(&mut to, value);
                }
            }
            Self::RemoveFields(names) => put_names(&mut to, 4, names),
            Self::IncrementField { field, by } => {
                to.put_u8(5);
                put_bytes(&mut to, field);
                put_varint(&mut to, zigzag(*by));
            }
            Self::ReplaceField { field, expected, value } => {
                to.put_u8(6);
                put_bytes(&mut to, field);
                put_optional_bytes(&mut to, expected.as_ref());
                put_bytes(&mut to, value);
            }
            Self::Expire { at_ms, only, read } => {
                to.put_u8(7);
                put_optional(&mut to, *at_ms);
                to.put_u8(expiry_condition(*only));
                to.put_u8(u8::from(*read));
            }
            Self::Replace { bytes, expiry, only, read } => {
                to.put_u8(8);
                put_optional_bytes(&mut to, bytes.as_ref());
                match expiry {
                    Expiry::Keep => to.put_u8(2),
                    Expiry::At(at_ms) => put_optional(&mut to, *at_ms),
                }
                put_condition(&mut to, only);
                to.put_u8(u8::from(*read));
            }
            Self::Append(bytes) => {
                to.put_u8(9);
                put_bytes(&mut to, bytes);
            }
            Self::SetRange { offset, bytes } => {
                to.put_u8(10);
                put_varint(&mut to, *offset);
                put_bytes(&mut to, bytes);
            }
        }
        to.freeze()
    }

    /// Reads what [`encode`](Change::encode) wrote.
    ///
    /// # Errors
    /// [`CodecError`], for anything that it would not have written.
    pub fn decode(encoded: Bytes) -> Result<Self, CodecError> {
        let mut from = Reader::new(encoded);
        from.version()?;
        let change = match from.byte()? {
            0 => Self::Increment { by: unzigzag(from.varint()?) },
            1 => Self::AddMembers(names(&mut from)?),
            2 => Self::RemoveMembers(names(&mut from)?),
            3 => Self::SetFields(several(2, &mut from, |from| Ok((from.bytes()?, from.bytes()?)))?),
            4 => Self::RemoveFields(names(&mut from)?),
            5 => Self::IncrementField { field: from.bytes()?, by: unzigzag(from.varint()?) },
            6 => Self::ReplaceField {
                field: from.bytes()?,
                expected: optional_bytes(&mut from)?,
                value: from.bytes()?,
            },
            7 => Self::Expire {
                at_ms: optional(&mut from)?,
                only: expiry_condition_of(from.byte()?)?,
                read: flag(&mut from)?,
            },
            8 => Self::Replace {
                bytes: optional_bytes(&mut from)?,
                expiry: match from.byte()? {
                    0 => Expiry::At(None),
                    1 => Expiry::At(Some(from.varint()?)),
                    2 => Expiry::Keep,
                    _ => return Err(CodecError::NotCanonical),
                },
                only: condition(&mut from)?,
                read: flag(&mut from)?,
            },
            9 => Self::Append(from.bytes()?),
            11 => Self::TakeMembers(names(&mut from)?),
            12 => Self::TakeFields(several(2, &mut from, |from| Ok((from.bytes()?, optional_bytes(from)?)))?),
            10 => Self::SetRange { offset: from.varint()?, bytes: from.bytes()? },
            _ => return Err(CodecError::NotCanonical),
        };
        from.end()?;
        Ok(change)
    }
}

impl Outcome {
    /// The outcome as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        to.put_u8(VERSION);
        match self {
            Self::Number(number) => {
                to.put_u8(0);
                put_varint(&mut to, zigzag(*number));
            }
            Self::Replaced { done, existed, before } => {
                to.put_u8(1);
                to.put_u8(u8::from(*done));
                to.put_u8(u8::from(*existed));
                put_optional_bytes(&mut to, before.as_ref());
            }
            Self::Refused(refusal) => {
                to.put_u8(2);
                match refusal {
                    Refusal::WrongKind => to.put_u8(0),
                    Refusal::NotInteger => to.put_u8(1),
                    Refusal::FieldNotInteger => to.put_u8(2),
                    Refusal::Overflow => to.put_u8(3),
                    Refusal::TooLarge { bytes, bytes_max } => {
                        to.put_u8(4);
                        put_varint(&mut to, *bytes);
                        put_varint(&mut to, *bytes_max);
                    }
                }
            }
        }
        to.freeze()
    }

    /// Reads what [`encode`](Outcome::encode) wrote.
    ///
    /// # Errors
    /// [`CodecError`], for anything that it would not have written.
    pub fn decode(encoded: Bytes) -> Result<Self, CodecError> {
        let mut from = Reader::new(encoded);
        from.version()?;
        let outcome = match from.byte()? {
            0 => Self::Number(unzigzag(from.varint()?)),
            1 => Self::Replaced {
                done: flag(&mut from)?,
                existed: flag(&mut from)?,
                before: optional_bytes(&mut from)?,
            },
            2 => Self::Refused(match from.byte()? {
                0 => Refusal::WrongKind,
                1 => Refusal::NotInteger,
                2 => Refusal::FieldNotInteger,
                3 => Refusal::Overflow,
                4 => Refusal::TooLarge { bytes: from.varint()?, bytes_max: from.varint()? },
                _ => return Err(CodecError::NotCanonical),
            }),
            _ => return Err(CodecError::NotCanonical),
        };
        from.end()?;
        Ok(outcome)
    }
}

fn put_names(to: &mut BytesMut, kind: u8, names: &[Bytes]) {
    to.put_u8(kind);
    put_varint(to, names.len() as u64);
    for name in names {
        put_bytes(to, name);
    }
}

fn names<B: Buf>(from: &mut Reader<B>) -> Result<Vec<Bytes>, CodecError> {
    several(1, from, Reader::bytes)
}

/// A count, and so many of something that takes so many bytes at least. Room is made for all of them at once: where it grows
/// as they come, it is three times as much for a moment.
fn several<B: Buf, T>(
    bytes_min: usize,
    from: &mut Reader<B>,
    mut one: impl FnMut(&mut Reader<B>) -> Result<T, CodecError>,
) -> Result<Vec<T>, CodecError> {
    let count = from.count(bytes_min)?;
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        all.push(one(from)?);
    }
    Ok(all)
}

fn put_optional(to: &mut BytesMut, number: Option<u64>) {
    to.put_u8(u8::from(number.is_some()));
    if let Some(number) = number {
        put_varint(to, number);
    }
}

fn optional<B: Buf>(from: &mut Reader<B>) -> Result<Option<u64>, CodecError> {
    if flag(from)? { Ok(Some(from.varint()?)) } else { Ok(None) }
}

fn put_optional_bytes(to: &mut BytesMut, bytes: Option<&Bytes>) {
    to.put_u8(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        put_bytes(to, bytes);
    }
}

fn optional_bytes<B: Buf>(from: &mut Reader<B>) -> Result<Option<Bytes>, CodecError> {
    if flag(from)? { Ok(Some(from.bytes()?)) } else { Ok(None) }
}

fn flag<B: Buf>(from: &mut Reader<B>) -> Result<bool, CodecError> {
    match from.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CodecError::NotCanonical),
    }
}

fn expiry_condition(only: ExpiryCondition) -> u8 {
    match only {
        ExpiryCondition::Always => 0,
        ExpiryCondition::Absent => 1,
        ExpiryCondition::Later => 2,
        ExpiryCondition::Earlier => 3,
        ExpiryCondition::Present { later, earlier } => 4 + u8::from(later) + 2 * u8::from(earlier),
    }
}

fn expiry_condition_of(byte: u8) -> Result<ExpiryCondition, CodecError> {
    Ok(match byte {
        0 => ExpiryCondition::Always,
        1 => ExpiryCondition::Absent,
        2 => ExpiryCondition::Later,
        3 => ExpiryCondition::Earlier,
        4..=7 => ExpiryCondition::Present { later: byte & 1 != 0, earlier: byte & 2 != 0 },
        _ => return Err(CodecError::NotCanonical),
    })
}

fn put_condition(to: &mut BytesMut, only: &Condition) {
    match only {
        Condition::Always => to.put_u8(0),
        Condition::Absent => to.put_u8(1),
        Condition::Present => to.put_u8(2),
        Condition::Equal(bytes) => {
            to.put_u8(3);
            put_bytes(to, bytes);
        }
        Condition::Different(bytes) => {
            to.put_u8(4);
            put_bytes(to, bytes);
        }
    }
}

fn condition<B: Buf>(from: &mut Reader<B>) -> Result<Condition, CodecError> {
    Ok(match from.byte()? {
        0 => Condition::Always,
        1 => Condition::Absent,
        2 => Condition::Present,
        3 => Condition::Equal(from.bytes()?),
        4 => Condition::Different(from.bytes()?),
        _ => return Err(CodecError::NotCanonical),
    })
}

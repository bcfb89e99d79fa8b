//! What an object holds beside its siblings, as bytes: see `codec.rs`.
//!
//! ```text
//! structure = wiped:u64 little endian  deadline  tallies  cells:varint  cell*   cells ascending by kind and name
//! deadline  = 0 | 1 timestamp:u64 little endian | 2 timestamp expires_at_ms:varint
//! tallies   = count:varint  (actor  mark  mark)*          reached, cleared; ascending by actor
//! mark      = timestamp:u64 little endian  sum:varint     the sum in zigzag
//! cell      = kind:u8 (0 member, 1 field)  length:varint  name  values:varint  cellvalue*  [tallies, of a field]
//! cellvalue = entry:varint  counter:varint  timestamp:u64 little endian  [length:varint  bytes, of a field]
//!                                                     ascending by dot; its actor is that of the object's entry
//! ```

use super::cells::{Cell, CellKind, CellValue};
use super::codec::{ACTOR_BYTES_MIN, CodecError, Reader, put_actor, put_bytes, put_varint, varint_len};
use super::siblings::{Deadline, Object};
use super::tally::{Mark, Tallies, Tally};
use super::{Actor, Dot};
use crate::hlc::Hlc;
use bytes::{Buf, BufMut, Bytes, BytesMut};

const TALLY_BYTES_MIN: usize = ACTOR_BYTES_MIN + 18;
const CELL_BYTES_MIN: usize = 3;
const CELL_VALUE_BYTES_MIN: usize = 10;

impl Object {
    pub(super) fn structure_len(&self) -> usize {
        let deadline = match self.deadline {
            None => 1,
            Some(Deadline { at_ms: None, .. }) => 9,
            Some(Deadline { at_ms: Some(at_ms), .. }) => 9 + varint_len(at_ms),
        };
        let cells = self.cells.0.iter().map(|cell| self.cell_len(cell)).sum::<usize>();
        8 + deadline + tallies_len(&self.tallies) + varint_len(self.cells.0.len() as u64) + cells
    }

    fn cell_len(&self, cell: &Cell) -> usize {
        let field = cell.kind == CellKind::Field;
        let values = cell.values.iter().map(|value| {
            let bytes = if field { prefixed_len(&value.bytes) } else { 0 };
            varint_len(self.entry_of(value.dot.actor)) + varint_len(value.dot.counter) + 8 + bytes
        });
        let tallies = if field { tallies_len(&cell.tallies) } else { 0 };
        1 + prefixed_len(&cell.name) + varint_len(cell.values.len() as u64) + values.sum::<usize>() + tallies
    }

    /// Which entry is the actor's. Whose event is here has one; were it not so, decoding would say so.
    fn entry_of(&self, actor: Actor) -> u64 {
        self.entries.partition_point(|entry| entry.actor < actor) as u64
    }

    pub(super) fn encode_structure(&self, bytes: &mut BytesMut) {
        bytes.put_u64_le(self.wiped.0);
        match self.deadline {
            None => bytes.put_u8(0),
            Some(Deadline { timestamp, at_ms }) => {
                bytes.put_u8(if at_ms.is_none() { 1 } else { 2 });
                bytes.put_u64_le(timestamp.0);
                if let Some(at_ms) = at_ms {
                    put_varint(bytes, at_ms);
                }
            }
        }
        put_tallies(bytes, &self.tallies);
        put_varint(bytes, self.cells.0.len() as u64);
        for cell in &self.cells.0 {
            let field = cell.kind == CellKind::Field;
            bytes.put_u8(u8::from(field));
            put_bytes(bytes, &cell.name);
            put_varint(bytes, cell.values.len() as u64);
            for value in &cell.values {
                put_varint(bytes, self.entry_of(value.dot.actor));
                put_varint(bytes, value.dot.counter);
                bytes.put_u64_le(value.timestamp.0);
                if field {
                    put_bytes(bytes, &value.bytes);
                }
            }
            if field {
                put_tallies(bytes, &cell.tallies);
            }
        }
    }

    /// Reads into an object whose entries have been read, and whose `wiped` is what these say.
    pub(super) fn decode_structure<B: Buf>(&mut self, reader: &mut Reader<B>) -> Result<(), CodecError> {
        let newest_sibling = std::mem::replace(&mut self.wiped, Hlc(reader.fixed()?));
        self.deadline = match reader.byte()? {
            0 => None,
            1 => Some(Deadline { timestamp: Hlc(reader.fixed()?), at_ms: None }),
            2 => Some(Deadline { timestamp: Hlc(reader.fixed()?), at_ms: Some(reader.varint()?) }),
            _ => return Err(CodecError::NotCanonical),
        };
        self.tallies = tallies(reader)?;
        let count = reader.count(CELL_BYTES_MIN)?;
        self.cells.0.reserve(count);
        for _ in 0..count {
            let cell = self.decode_cell(reader)?;
            let before = self.cells.0.last();
            if before.is_some_and(|before| (before.kind, &before.name) >= (cell.kind, &cell.name)) {
                return Err(CodecError::NotCanonical);
            }
            self.cells.0.push(cell);
        }
        let wiped = self.wiped;
        let canonical = newest_sibling <= wiped
            && self.deadline.is_none_or(|deadline| deadline.timestamp >= wiped)
            && (!self.is_plain() || newest_sibling != wiped);
        if canonical { Ok(()) } else { Err(CodecError::NotCanonical) }
    }

    fn decode_cell<B: Buf>(&self, reader: &mut Reader<B>) -> Result<Cell, CodecError> {
        let kind = match reader.byte()? {
            0 => CellKind::Member,
            1 => CellKind::Field,
            _ => return Err(CodecError::NotCanonical),
        };
        let name = reader.bytes()?;
        let count = reader.count(CELL_VALUE_BYTES_MIN)?;
        let mut values: Vec<CellValue> = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = usize::try_from(reader.varint()?).ok().and_then(|at| self.entries.get(at));
            let entry = entry.ok_or(CodecError::NotCanonical)?;
            let dot = Dot { actor: entry.actor, counter: reader.counter()? };
            let timestamp = Hlc(reader.fixed()?);
            let seen = dot.counter <= entry.counter && timestamp >= self.wiped;
            if !seen || values.last().is_some_and(|before| before.dot >= dot) {
                return Err(CodecError::NotCanonical);
            }
            let bytes = if kind == CellKind::Field { reader.bytes()? } else { Bytes::new() };
            values.push(CellValue { dot, timestamp, bytes });
        }
        let tallies = if kind == CellKind::Field { tallies(reader)? } else { Tallies::default() };
        if values.is_empty() && tallies.is_empty() {
            return Err(CodecError::NotCanonical);
        }
        Ok(Cell { kind, name, values, tallies })
    }
}

fn tallies<B: Buf>(reader: &mut Reader<B>) -> Result<Tallies, CodecError> {
    let count = reader.count(TALLY_BYTES_MIN)?;
    let mut tallies: Vec<Tally> = Vec::with_capacity(count);
    for _ in 0..count {
        let actor = reader.actor(tallies.last().map(|tally| tally.actor))?;
        tallies.push(Tally { actor, reached: mark(reader)?, cleared: mark(reader)? });
    }
    Ok(Tallies(tallies))
}

fn mark<B: Buf>(reader: &mut Reader<B>) -> Result<Mark, CodecError> {
    Ok(Mark { timestamp: Hlc(reader.fixed()?), sum: unzigzag(reader.varint()?) })
}

fn tallies_len(tallies: &Tallies) -> usize {
    let mark = |mark: &Mark| 8 + varint_len(zigzag(mark.sum));
    let tally = |tally: &Tally| {
        ACTOR_BYTES_MIN - 1 + varint_len(tally.actor.birth) + mark(&tally.reached) + mark(&tally.cleared)
    };
    varint_len(tallies.0.len() as u64) + tallies.0.iter().map(tally).sum::<usize>()
}

fn put_tallies(bytes: &mut BytesMut, tallies: &Tallies) {
    put_varint(bytes, tallies.0.len() as u64);
    for tally in &tallies.0 {
        put_actor(bytes, tally.actor);
        for mark in [tally.reached, tally.cleared] {
            bytes.put_u64_le(mark.timestamp.0);
            put_varint(bytes, zigzag(mark.sum));
        }
    }
}

fn prefixed_len(bytes: &Bytes) -> usize {
    varint_len(bytes.len() as u64) + bytes.len()
}

/// Small numbers of either sign as small numbers.
pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

//! BITFIELD: integers of any width within a string.

use super::error::CommandError;
use super::numbers::replace;
use super::parse::integer;
use super::reply::Reply;
use super::store::{ATTEMPTS_MAX, Store};
use crate::coordinator::KeyValue;
use bytes::{Bytes, BytesMut};

const NO_TYPE: CommandError = CommandError::Fixed(
    "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
);
const NO_OFFSET: CommandError = CommandError::Fixed("ERR bit offset is not an integer or out of range");

/// `BITFIELD key [GET type offset | [OVERFLOW WRAP|SAT|FAIL] SET type offset value | INCRBY type offset increment] …`:
/// read, change, and write if nothing else was written meanwhile; what only reads is a read.
pub(super) async fn bitfield<K: KeyValue>(
    store: &Store<'_, K>,
    arguments: &[Bytes],
    read_only: bool,
) -> Result<Reply, CommandError> {
    let steps = parse(&arguments[2..], store.limits().value_bytes_max)?;
    let end = steps.iter().filter(|step| step.writes()).map(|step| step.offset + step.width.bits).max();
    if read_only && end.is_some() {
        return Err(CommandError::Fixed("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    for _ in 0..ATTEMPTS_MAX {
        let before = store.string(&arguments[1]).await?;
        let mut bytes = BytesMut::from(before.as_deref().unwrap_or_default());
        if let Some(end) = end.filter(|&end| end.div_ceil(8) > bytes.len()) {
            bytes.resize(end.div_ceil(8), 0);
        }
        let replies = steps.iter().map(|step| step.apply(&mut bytes)).collect();
        if before.as_deref().unwrap_or_default() == &bytes[..]
            || replace(store, &arguments[1], before, bytes.freeze()).await?
        {
            return Ok(Reply::Array(replies));
        }
    }
    Err(CommandError::Contended)
}

/// How wide an integer is and whether it has a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Width {
    signed: bool,
    bits: usize,
}

/// What becomes of a sum that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Get,
    Set(i64),
    Add(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    action: Action,
    width: Width,
    /// In bits.
    offset: usize,
    overflow: Overflow,
}

fn parse(mut words: &[Bytes], bytes_max: usize) -> Result<Vec<Step>, CommandError> {
    let (mut steps, mut overflow) = (Vec::new(), Overflow::Wrap);
    while let [name, rest @ ..] = words {
        let name = name.to_ascii_lowercase();
        let (action, width, offset, rest) = match (name.as_slice(), rest) {
            (b"overflow", [kind, rest @ ..]) => {
                overflow = match kind.to_ascii_lowercase().as_slice() {
                    b"wrap" => Overflow::Wrap,
                    b"sat" => Overflow::Saturate,
                    b"fail" => Overflow::Fail,
                    _ => return Err(CommandError::Fixed("ERR Invalid OVERFLOW type specified")),
                };
                words = rest;
                continue;
            }
            (b"get", [width, offset, rest @ ..]) => (None, width, offset, rest),
            (b"set", [width, offset, value, rest @ ..]) => {
                (Some((Action::Set as fn(i64) -> _, value)), width, offset, rest)
            }
            (b"incrby", [width, offset, value, rest @ ..]) => {
                (Some((Action::Add as fn(i64) -> _, value)), width, offset, rest)
            }
            _ => return Err(CommandError::Syntax),
        };
        let width = Width::parse(width)?;
        let offset = place(offset, width, bytes_max)?;
        let action = match action {
            None => Action::Get,
            Some((action, value)) => action(integer(value).ok_or(CommandError::NotInteger)?),
        };
        steps.push(Step { action, width, offset, overflow });
        words = rest;
    }
    Ok(steps)
}

/// An offset in bits; one that begins with `#` counts integers of the same width.
fn place(text: &Bytes, width: Width, bytes_max: usize) -> Result<usize, CommandError> {
    let (number, unit) = match text.strip_prefix(b"#") {
        Some(number) => (number, width.bits),
        None => (&text[..], 1),
    };
    let bits = integer(number).and_then(|number| usize::try_from(number).ok()?.checked_mul(unit));
    bits.filter(|bits| (bits + width.bits).div_ceil(8) <= bytes_max).ok_or(NO_OFFSET)
}

impl Width {
    fn parse(text: &Bytes) -> Result<Self, CommandError> {
        let (signed, bits) = match text.split_first() {
            Some((b'i', bits)) => (true, bits),
            Some((b'u', bits)) => (false, bits),
            _ => return Err(NO_TYPE),
        };
        let bits = integer(bits).and_then(|bits| usize::try_from(bits).ok());
        let bits = bits.filter(|bits| (1..=if signed { 64 } else { 63 }).contains(bits)).ok_or(NO_TYPE)?;
        Ok(Self { signed, bits })
    }

    fn range(self) -> (i128, i128) {
        match self.signed {
            true => (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1),
            false => (0, (1 << self.bits) - 1),
        }
    }

    /// The number that the lowest bits make.
    fn of_bits(self, bits: u64) -> i128 {
        let number = i128::from(bits) & ((1 << self.bits) - 1);
        if self.signed && number >> (self.bits - 1) == 1 { number - (1 << self.bits) } else { number }
    }

    /// The number itself if it fits, else what is stored instead; `None`: nothing.
    fn fit(self, number: i128, overflow: Overflow) -> Option<i128> {
        let (least, most) = self.range();
        match overflow {
            _ if (least..=most).contains(&number) => Some(number),
            Overflow::Wrap => Some(self.of_bits(low_bits(number))),
            Overflow::Saturate => Some(number.clamp(least, most)),
            Overflow::Fail => None,
        }
    }
}

impl Step {
    fn writes(&self) -> bool {
        self.action != Action::Get
    }

    /// What is answered; the bytes reach as far as any step writes.
    fn apply(&self, bytes: &mut [u8]) -> Reply {
        let before = self.width.of_bits(read(bytes, self.offset, self.width.bits));
        let (after, answers_after) = match self.action {
            Action::Get => return number(before),
            // Without a sign what is below zero is taken for what its bits say.
            Action::Set(value) if !self.width.signed => (i128::from(value.cast_unsigned()), false),
            Action::Set(value) => (i128::from(value), false),
            Action::Add(by) => (before + i128::from(by), true),
        };
        match self.width.fit(after, self.overflow) {
            None => Reply::Null,
            Some(after) => {
                write(bytes, self.offset, self.width.bits, low_bits(after));
                number(if answers_after { after } else { before })
            }
        }
    }
}

fn number(number: i128) -> Reply {
    Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn low_bits(number: i128) -> u64 {
    // The mask leaves what fits.
    u64::try_from(number & i128::from(u64::MAX)).unwrap_or(u64::MAX)
}

/// Bits from an offset on, the first the highest; beyond the bytes there are zeros.
fn read(bytes: &[u8], offset: usize, bits: usize) -> u64 {
    (offset..offset + bits).fold(0, |number, at| {
        let bit = bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
        number << 1 | u64::from(bit)
    })
}

fn write(bytes: &mut [u8], offset: usize, bits: usize, number: u64) {
    for place in 0..bits {
        let (at, bit) = (offset + place, number >> (bits - 1 - place) & 1);
        let mask = 0x80 >> (at % 8);
        let Some(byte) = bytes.get_mut(at / 8) else { return };
        *byte = if bit == 1 { *byte | mask } else { *byte & !mask };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_width_are_read_as_they_were_written() {
        let mut bytes = [0xaa; 24];
        for bits in 1..=64 {
            for offset in [0, 1, 7, 8, 63, 100] {
                let kept = bytes;
                let value = 0x9e37_79b9_7f4a_7c15 & (u64::MAX >> (64 - bits));
                write(&mut bytes, offset, bits, value);
                assert_eq!(read(&bytes, offset, bits), value, "{bits} bits at {offset}");
                let outside = |at: &usize| !(offset..offset + bits).contains(at);
                for at in (0..24 * 8).filter(outside) {
                    assert_eq!(read(&bytes, at, 1), read(&kept, at, 1), "bit {at} of {bits} at {offset}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit() {
        let (i8, u8, i64) =
            (Width { signed: true, bits: 8 }, Width { signed: false, bits: 8 }, Width { signed: true, bits: 64 });
        for (width, number, wrapped, saturated) in [
            (i8, 128, -128, 127),
            (i8, -129, 127, -128),
            (u8, 256, 0, 255),
            (u8, -1, 255, 0),
            (i64, i128::from(i64::MAX) + 1, i128::from(i64::MIN), i128::from(i64::MAX)),
        ] {
            assert_eq!(width.fit(number, Overflow::Wrap), Some(wrapped), "{width:?} {number}");
            assert_eq!(width.fit(number, Overflow::Saturate), Some(saturated), "{width:?} {number}");
            assert_eq!(width.fit(number, Overflow::Fail), None);
        }
        assert_eq!(i8.fit(127, Overflow::Fail), Some(127));
    }
}

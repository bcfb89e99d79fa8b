//! What a client sees of a key: a string, a set or a hash, or nothing.

use super::cells::{Cell, CellKind};
use super::siblings::Object;
use super::tally::Tallies;
use super::{Payload, Value};
use crate::hlc::Hlc;
use bytes::Bytes;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Bytes; a counter is one, written in decimal.
    String,
    /// A set of byte strings.
    Set,
    /// Byte strings by name.
    Hash,
}

/// A key as a client sees it at some time.
#[derive(Clone, Copy, Debug)]
pub struct Visible<'a> {
    object: &'a Object,
    /// What it is.
    pub kind: Kind,
    /// When it ceases to be readable, in milliseconds since 1970; `None`: never.
    pub expires_at_ms: Option<u64>,
}

impl Object {
    /// What a client sees at this time; `None`: there is no such key.
    ///
    /// A key can hold several kinds at once when clients wrote different ones at the same time. The kind that was
    /// written last is seen, by timestamp; of equal ones the hash, then the set. What a `put` replaced, and what is
    /// older than a `put`, is not there any more, so a string is hidden only by what was added to later.
    #[must_use]
    pub fn visible(&self, now_ms: u64) -> Option<Visible<'_>> {
        let string = self.string_at(now_ms);
        let (newest, kind) = if self.is_plain() {
            (string?, Kind::String)
        } else {
            let expired = self.deadline.and_then(|deadline| deadline.at_ms).is_some_and(|at_ms| at_ms <= now_ms);
            let cells = |kind| if expired { None } else { self.cells.newest(kind, self.wiped) };
            let kinds = [
                (string, Kind::String),
                (cells(CellKind::Member), Kind::Set),
                (cells(CellKind::Field), Kind::Hash),
            ];
            kinds.into_iter().filter_map(|(newest, kind)| newest.map(|newest| (newest, kind))).max()?
        };
        debug_assert!(newest >= Hlc::default());
        let expires_at_ms = match kind {
            Kind::String => {
                self.winner().filter(|value| value.live_at(now_ms)).and_then(|value| value.expires_at_ms)
            }
            Kind::Set | Kind::Hash => self.deadline.and_then(|deadline| deadline.at_ms),
        };
        Some(Visible { object: self, kind, expires_at_ms })
    }

    /// When the string that can be read at this time was written or added to last.
    fn string_at(&self, now_ms: u64) -> Option<Hlc> {
        let winner = self.winner();
        let written = winner.filter(|value| value.live_at(now_ms)).map(|value| value.timestamp);
        // What was added to a value goes when the value expires.
        let expired = written.is_none() && winner.is_some_and(|value| value.payload != Payload::Tombstone);
        let added = self.tallies.net(self.wiped).filter(|_| !expired).map(|net| net.newest);
        written.max(added)
    }
}

impl<'a> Visible<'a> {
    /// The bytes of a string; of a set or a hash none.
    #[must_use]
    pub fn string(&self) -> Bytes {
        if self.kind != Kind::String {
            return Bytes::new();
        }
        // A winner that has expired would have hidden the additions, so if it is there it is what they add to.
        let base = match self.object.winner() {
            Some(Value { payload: Payload::Bytes(bytes), .. }) => Some(bytes),
            Some(Value { payload: Payload::Tombstone, .. }) | None => None,
        };
        with_additions(base, &self.object.tallies, self.object.wiped)
    }

    /// Members of the set in ascending order; of a string or a hash none.
    pub fn members(&self) -> impl Iterator<Item = &'a Bytes> + use<'a> {
        let cells = self.object.cells.of(CellKind::Member).filter(|cell| !cell.values.is_empty());
        let set = self.kind == Kind::Set;
        cells.map(|cell| &cell.name).filter(move |_| set)
    }

    /// Whether the set has this member.
    #[must_use]
    pub fn has_member(&self, member: &[u8]) -> bool {
        self.kind == Kind::Set
            && self.object.cells.get(CellKind::Member, member).is_some_and(|cell| !cell.values.is_empty())
    }

    /// Fields of the hash with their values, in ascending order; of a string or a set none.
    pub fn fields(&self) -> impl Iterator<Item = (&'a Bytes, Bytes)> + use<'a> {
        let (object, hash) = (self.object, self.kind == Kind::Hash);
        let cells = object.cells.of(CellKind::Field).filter(move |_| hash);
        cells.filter_map(|cell| field_value(cell, object.wiped).map(|value| (&cell.name, value)))
    }

    /// The value of a field of the hash.
    #[must_use]
    pub fn field(&self, name: &[u8]) -> Option<Bytes> {
        let cell = self.object.cells.get(CellKind::Field, name).filter(|_| self.kind == Kind::Hash)?;
        field_value(cell, self.object.wiped)
    }
}

/// The last writer's value and what was added to it; `None`: the field is not there.
fn field_value(cell: &Cell, wiped: Hlc) -> Option<Bytes> {
    cell.newest(wiped)?;
    Some(with_additions(cell.winner().map(|value| &value.bytes), &cell.tallies, wiped))
}

/// A number and what was added to it. Additions to what is no number are not seen: the value was written at the same
/// time as they were made.
fn with_additions(base: Option<&Bytes>, tallies: &Tallies, wiped: Hlc) -> Bytes {
    let Some(net) = tallies.net(wiped) else { return base.cloned().unwrap_or_default() };
    let Some(number) = base.map_or(Some(0), |bytes| decimal(bytes)) else {
        return base.cloned().unwrap_or_default();
    };
    // Each addition was checked by its coordinator. Only additions at the same time can go beyond what a number holds,
    // and then it wraps around.
    let sum = number.wrapping_add(net.sum);
    Bytes::from(sum.to_string())
}

/// A number as it is written in decimal: no sign but `-`, no leading zeros, no spaces.
pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let plain = match digits {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if plain { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

//! Changes that depend on what is there, carried out in one step at the replica that coordinates them.
//!
//! Adding to a counter, putting into a set and the like commute: whatever replicas carry them out at the same time, none
//! is lost when they merge. What a change answers is what its coordinator sees. Changes that test before they write
//! ([`Change::Replace`] with a condition, [`Change::Append`] and the like) do not commute; they are only as good as the
//! rule by which the caller lets one coordinator at a time carry them out.

use super::cells::{CellKind, CellValue};
use super::siblings::{Deadline, Object};
use super::visible::{Kind, Visible, decimal};
use super::{Actor, Dot, Payload, Value};
use crate::hlc::Hlc;
use bytes::{Bytes, BytesMut};

/// What is to be done to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds to a counter; an absent key counts from zero. Answers the sum.
    Increment {
        /// What to add.
        by: i64,
    },
    /// Puts members into a set. Answers how many were not there.
    AddMembers(Vec<Bytes>),
    /// Takes members out of a set. Answers how many were there.
    RemoveMembers(Vec<Bytes>),
    /// Takes members out of a set if all of them are there. Answers how many were taken. Does not commute.
    TakeMembers(Vec<Bytes>),
    /// Sets fields of a hash. Answers how many were not there.
    SetFields(Vec<(Bytes, Bytes)>),
    /// Removes fields of a hash. Answers how many were there.
    RemoveFields(Vec<Bytes>),
    /// Removes fields of a hash if all of them have certain values; `None`: it is not there. Answers 1 if they had. Does
    /// not commute.
    TakeFields(Vec<(Bytes, Option<Bytes>)>),
    /// Adds to a field of a hash; an absent one counts from zero. Answers the sum.
    IncrementField {
        /// Name of the field.
        field: Bytes,
        /// What to add.
        by: i64,
    },
    /// Sets a field that has a certain value. Answers 1 if it was set. Does not commute.
    ReplaceField {
        /// Name of the field.
        field: Bytes,
        /// Its value before; `None`: it is not there.
        expected: Option<Bytes>,
        /// Its value.
        value: Bytes,
    },
    /// Changes when the key expires. Answers 1 if it was changed, or the string, if that is wanted.
    Expire {
        /// In milliseconds since 1970; a time that is past deletes the key. `None`: never.
        at_ms: Option<u64>,
        /// What the expiry before must be.
        only: ExpiryCondition,
        /// Whether the string is the answer; other kinds are refused then.
        read: bool,
    },
    /// Writes a string or deletes the key.
    Replace {
        /// The string; `None` deletes.
        bytes: Option<Bytes>,
        /// When it expires.
        expiry: Expiry,
        /// What must be there before. All but `Always` do not commute.
        only: Condition,
        /// Whether the string that was there is wanted; other kinds are refused then.
        read: bool,
    },
    /// Appends to a string. Answers its new length. Does not commute.
    Append(Bytes),
    /// Overwrites a part of a string, with zeros up to there. Answers its new length. Does not commute.
    SetRange {
        /// Where the part begins.
        offset: u64,
        /// The part.
        bytes: Bytes,
    },
}

/// When a string expires that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// In milliseconds since 1970; `None`: never.
    At(Option<u64>),
    /// When the string before it would have.
    Keep,
}

/// What must be there for a string to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Anything.
    Always,
    /// No such key.
    Absent,
    /// The key, of whatever kind.
    Present,
    /// Exactly this string.
    Equal(Bytes),
    /// Not this string.
    Different(Bytes),
}

/// What the expiry must be for it to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryCondition {
    /// Anything.
    Always,
    /// None.
    Absent,
    /// There is one, and the new one is within these bounds.
    Present {
        /// The new expiry is later.
        later: bool,
        /// The new expiry is earlier.
        earlier: bool,
    },
    /// The new expiry is later; none counts as never.
    Later,
    /// The new expiry is earlier; none counts as never.
    Earlier,
}

/// What a change came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A number: see the change.
    Number(i64),
    /// Whether a replacement took place, and the string before if it was wanted.
    Replaced {
        /// Whether anything was written.
        done: bool,
        /// Whether there was a key.
        existed: bool,
        /// The string that was there.
        before: Option<Bytes>,
    },
    /// Nothing was written, because.
    Refused(Refusal),
}

/// Why a change cannot be carried out on what is there. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key holds another kind.
    #[error("the key holds another kind of value")]
    WrongKind,
    /// A number is to be added to what is none.
    #[error("the value is not an integer or out of range")]
    NotInteger,
    /// The same of a field.
    #[error("the field's value is not an integer")]
    FieldNotInteger,
    /// The sum does not fit.
    #[error("the sum would overflow")]
    Overflow,
    /// The object would get larger than objects may.
    #[error("the object would have {bytes} bytes; the limit is {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
}

/// By whom and when a change is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// See [`Object::put`].
    pub actor: Actor,
    /// Later than [`Object::max_timestamp`], and not before `now_ms`.
    pub timestamp: Hlc,
    /// What counts as expired, in milliseconds since 1970.
    pub now_ms: u64,
}

impl Change {
    /// Whether carrying it out twice is as good as once, answers aside.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        match self {
            Self::Increment { .. } | Self::IncrementField { .. } | Self::Append(_) => false,
            Self::Replace { only, read, .. } => *only == Condition::Always && !read,
            Self::ReplaceField { .. } | Self::TakeMembers(_) | Self::TakeFields(_) => false,
            _ => true,
        }
    }

    /// Whether it can be carried out where nothing is known of the key: it then adds to whatever there is elsewhere.
    #[must_use]
    pub fn needs_no_state(&self) -> bool {
        matches!(
            self,
            Self::Increment { .. } | Self::AddMembers(_) | Self::SetFields(_) | Self::IncrementField { .. }
        )
    }

    /// Whether two coordinators that carry it out at the same time could both succeed where in any order only one
    /// would, or undo what the other did.
    #[must_use]
    pub fn needs_one_coordinator(&self) -> bool {
        match self {
            Self::ReplaceField { .. }
            | Self::TakeMembers(_)
            | Self::TakeFields(_)
            | Self::Append(_)
            | Self::SetRange { .. } => true,
            Self::Replace { only, .. } => *only != Condition::Always,
            _ => false,
        }
    }

    /// Bytes of what it carries, or up to where it writes: a value has room for it only if it may be as long as this.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Increment { .. } | Self::Expire { .. } => 0,
            Self::AddMembers(names)
            | Self::RemoveMembers(names)
            | Self::TakeMembers(names)
            | Self::RemoveFields(names) => names.iter().map(Bytes::len).sum(),
            Self::SetFields(fields) => fields.iter().map(|(field, value)| field.len() + value.len()).sum(),
            Self::TakeFields(fields) => {
                let bytes =
                    |(field, value): &(Bytes, Option<Bytes>)| field.len() + value.as_ref().map_or(0, Bytes::len);
                fields.iter().map(bytes).sum()
            }
            Self::IncrementField { field, .. } => field.len(),
            Self::ReplaceField { field, expected, value } => {
                field.len() + expected.as_ref().map_or(0, Bytes::len) + value.len()
            }
            Self::Replace { bytes, .. } => bytes.as_ref().map_or(0, Bytes::len),
            Self::Append(bytes) => bytes.len(),
            Self::SetRange { bytes, .. } if bytes.is_empty() => 0,
            Self::SetRange { offset, bytes } => {
                usize::try_from(*offset).unwrap_or(usize::MAX).saturating_add(bytes.len())
            }
        }
    }
}

impl Object {
    /// Carries out a change. The first is the object after it; `None`: there is nothing to store.
    ///
    /// As for [`put`](Object::put), only the actor's own node may do this, on the newest state.
    #[must_use]
    pub fn change(&self, change: &Change, by: By) -> (Option<Self>, Outcome) {
        match self.try_change(change, by) {
            Ok(changed) => changed,
            Err(refusal) => (None, Outcome::Refused(refusal)),
        }
    }

    fn try_change(&self, change: &Change, by: By) -> Result<(Option<Self>, Outcome), Refusal> {
        match change {
            Change::Increment { by: step } => self.increment(*step, by),
            Change::AddMembers(members) => {
                let cells = members.iter().map(|member| (member, Bytes::new()));
                self.fill(Kind::Set, cells.collect(), by)
            }
            Change::SetFields(fields) => {
                let cells = fields.iter().map(|(field, value)| (field, value.clone()));
                self.fill(Kind::Hash, cells.collect(), by)
            }
            Change::RemoveMembers(members) => self.take_out(Kind::Set, members, by),
            Change::TakeMembers(members) => {
                let set = self.of_kind(Kind::Set, by.now_ms)?;
                if !set.is_some_and(|set| members.iter().all(|member| set.has_member(member))) {
                    return Ok((None, Outcome::Number(0)));
                }
                self.take_out(Kind::Set, members, by)
            }
            Change::TakeFields(fields) => {
                let hash = self.of_kind(Kind::Hash, by.now_ms)?;
                if fields.iter().any(|(field, value)| hash.and_then(|hash| hash.field(field)) != *value) {
                    return Ok((None, Outcome::Number(0)));
                }
                let names: Vec<Bytes> = fields.iter().map(|(field, _)| field.clone()).collect();
                let (changed, _) = self.take_out(Kind::Hash, &names, by)?;
                Ok((changed, Outcome::Number(1)))
            }
            Change::RemoveFields(fields) => self.take_out(Kind::Hash, fields, by),
            Change::IncrementField { field, by: step } => self.increment_field(field, *step, by),
            Change::ReplaceField { field, expected, value } => {
                let hash = self.of_kind(Kind::Hash, by.now_ms)?;
                if hash.and_then(|hash| hash.field(field)) != *expected {
                    return Ok((None, Outcome::Number(0)));
                }
                let (changed, _) = self.fill(Kind::Hash, vec![(field, value.clone())], by)?;
                Ok((changed, Outcome::Number(1)))
            }
            Change::Expire { at_ms, only, read } => self.expire(*at_ms, *only, *read, by),
            Change::Replace { bytes, expiry, only, read } => {
                self.replace(bytes.as_ref(), *expiry, only, *read, by)
            }
            Change::Append(bytes) => {
                let before = self.string_before(by.now_ms)?;
                if bytes.is_empty() {
                    return Ok((None, Outcome::Number(length(&before))));
                }
                self.edited([&before[..], bytes].concat(), by)
            }
            Change::SetRange { offset, bytes } => {
                let before = self.string_before(by.now_ms)?;
                if bytes.is_empty() {
                    return Ok((None, Outcome::Number(length(&before))));
                }
                let mut after = BytesMut::from(&before[..]);
                let start = usize::try_from(*offset).unwrap_or(usize::MAX);
                let end = start.saturating_add(bytes.len());
                if after.len() < end {
                    after.resize(end, 0);
                }
                after[start..end].copy_from_slice(bytes);
                self.edited(after.to_vec(), by)
            }
        }
    }

    /// What can be seen, if it is of this kind; another kind is an error.
    fn of_kind(&self, kind: Kind, now_ms: u64) -> Result<Option<Visible<'_>>, Refusal> {
        match self.visible(now_ms) {
            Some(visible) if visible.kind != kind => Err(Refusal::WrongKind),
            visible => Ok(visible),
        }
    }

    fn string_before(&self, now_ms: u64) -> Result<Bytes, Refusal> {
        Ok(self.of_kind(Kind::String, now_ms)?.map(|visible| visible.string()).unwrap_or_default())
    }

    /// The string written anew, with the expiry it had.
    fn edited(&self, bytes: Vec<u8>, by: By) -> Result<(Option<Self>, Outcome), Refusal> {
        let expires_at_ms = self.visible(by.now_ms).and_then(|visible| visible.expires_at_ms);
        let bytes = Bytes::from(bytes);
        let after = length(&bytes);
        let value = Value { timestamp: by.timestamp, expires_at_ms, payload: Payload::Bytes(bytes) };
        Ok((Some(self.overwrite(by.actor, value)), Outcome::Number(after)))
    }

    /// The object to be added to as one of this kind: what has expired and what is hidden by this kind is removed.
    fn prepared(&self, kind: Kind, now_ms: u64) -> Self {
        let mut object = self.clone();
        let winner = self.winner();
        let string_expired = winner
            .filter(|value| value.payload != Payload::Tombstone && !value.live_at(now_ms))
            .and_then(|value| Some((value.timestamp, value.expires_at_ms?)));
        let cells_expired = self
            .deadline
            .filter(|deadline| deadline.at_ms.is_some_and(|at_ms| at_ms <= now_ms))
            .and_then(|deadline| Some((Hlc(deadline.timestamp.0.saturating_add(1)), deadline.at_ms?)));
        if kind != Kind::String || string_expired.is_some() {
            object.tallies.clear();
            for entry in &mut object.entries {
                entry.values.clear();
            }
        }
        object.cells.remove_all(|cell| {
            let own = match kind {
                Kind::String => false,
                Kind::Set => cell.kind == CellKind::Member,
                Kind::Hash => cell.kind == CellKind::Field,
            };
            !own || cells_expired.is_some()
        });
        // Whoever finds the same thing expired takes the same moment, so what they add at the same time stays.
        for (timestamp, at_ms) in [string_expired, cells_expired].into_iter().flatten() {
            object.wipe(timestamp.max(Hlc::from_wall(at_ms)));
        }
        if cells_expired.is_some() || kind == Kind::String {
            object.deadline = None;
        }
        object
    }

    fn increment(&self, step: i64, by: By) -> Result<(Option<Self>, Outcome), Refusal> {
        let before = self.of_kind(Kind::String, by.now_ms)?;
        let before = before.map_or(Some(0), |visible| decimal(&visible.string())).ok_or(Refusal::NotInteger)?;
        let after = before.checked_add(step).ok_or(Refusal::Overflow)?;
        let mut object = self.prepared(Kind::String, by.now_ms);
        let wiped = object.wiped;
        object.tallies.add(by.actor, by.timestamp, step, wiped);
        Ok((Some(object), Outcome::Number(after)))
    }

    fn increment_field(&self, field: &Bytes, step: i64, by: By) -> Result<(Option<Self>, Outcome), Refusal> {
        let before = self.of_kind(Kind::Hash, by.now_ms)?.and_then(|hash| hash.field(field));
        let before = before.map_or(Some(0), |value| decimal(&value)).ok_or(Refusal::FieldNotInteger)?;
        let after = before.checked_add(step).ok_or(Refusal::Overflow)?;
        let mut object = self.prepared(Kind::Hash, by.now_ms);
        let wiped = object.wiped;
        object.cells.entry(CellKind::Field, field).tallies.add(by.actor, by.timestamp, step, wiped);
        Ok((Some(object), Outcome::Number(after)))
    }

    /// Puts values into cells, each instead of those seen there.
    fn fill(&self, kind: Kind, cells: Vec<(&Bytes, Bytes)>, by: By) -> Result<(Option<Self>, Outcome), Refusal> {
        let before = self.of_kind(kind, by.now_ms)?;
        let mut names: Vec<&Bytes> = cells.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        let is_new =
            |name: &&&Bytes| !before.is_some_and(|before| before.has_member(name) || before.field(name).is_some());
        let added = names.iter().filter(is_new).count();
        let mut object = self.prepared(kind, by.now_ms);
        let entry = object.event(by.actor);
        // An event that is no sibling's ends the run of the actor's siblings, all of which were removed just before.
        let dot = Dot { actor: by.actor, counter: entry.counter };
        let cell_kind = if kind == Kind::Set { CellKind::Member } else { CellKind::Field };
        for (name, bytes) in cells {
            let cell = object.cells.entry(cell_kind, name);
            cell.tallies.clear();
            cell.values = vec![CellValue { dot, timestamp: by.timestamp, bytes }];
        }
        Ok((Some(object), Outcome::Number(i64::try_from(added).unwrap_or(i64::MAX))))
    }

    /// Removes what is seen in cells. Their dots stay seen, so copies of them elsewhere go in the merge.
    fn take_out(&self, kind: Kind, names: &[Bytes], by: By) -> Result<(Option<Self>, Outcome), Refusal> {
        let Some(before) = self.of_kind(kind, by.now_ms)? else { return Ok((None, Outcome::Number(0))) };
        let mut present: Vec<&Bytes> = names.iter().collect();
        present.sort_unstable();
        present.dedup();
        present.retain(|name| before.has_member(name) || before.field(name).is_some());
        if present.is_empty() {
            return Ok((None, Outcome::Number(0)));
        }
        let mut object = self.prepared(kind, by.now_ms);
        let cell_kind = if kind == Kind::Set { CellKind::Member } else { CellKind::Field };
        let removed = i64::try_from(present.len()).unwrap_or(i64::MAX);
        for name in present {
            if let Some(cell) = object.cells.get_mut(cell_kind, name) {
                cell.values.clear();
                cell.tallies.clear();
            }
        }
        object.cells.remove_all(|_| false);
        // A set or a hash that is empty is gone, and so is its expiry.
        if object.cells.newest(cell_kind, object.wiped).is_none() {
            object.deadline = object.deadline.map(|_| Deadline { timestamp: by.timestamp, at_ms: None });
        }
        Ok((Some(object), Outcome::Number(removed)))
    }

    fn expire(
        &self,
        at_ms: Option<u64>,
        only: ExpiryCondition,
        read: bool,
        by: By,
    ) -> Result<(Option<Self>, Outcome), Refusal> {
        let visible = if read { self.of_kind(Kind::String, by.now_ms)? } else { self.visible(by.now_ms) };
        let outcome = |changed: bool| match (read, &visible) {
            (false, _) => Outcome::Number(i64::from(changed)),
            (true, visible) => Outcome::Replaced {
                done: changed,
                existed: visible.is_some(),
                before: visible.map(|visible| visible.string()),
            },
        };
        let Some(visible) = visible else { return Ok((None, outcome(false))) };
        let already = at_ms.is_none() && visible.expires_at_ms.is_none();
        if already || !only.allows(visible.expires_at_ms, at_ms) {
            return Ok((None, outcome(false)));
        }
        if at_ms.is_some_and(|at_ms| at_ms <= by.now_ms) {
            let value = Value { timestamp: by.timestamp, expires_at_ms: None, payload: Payload::Tombstone };
            return Ok((Some(self.overwrite(by.actor, value)), outcome(true)));
        }
        let mut object = self.prepared(visible.kind, by.now_ms);
        if visible.kind == Kind::String {
            // The same value with the time it was written at: a write that comes at the same time is later and wins. What
            // was added to it stays added to it.
            let base = self.winner().filter(|value| value.live_at(by.now_ms));
            let value = match base {
                Some(base) => Value { expires_at_ms: at_ms, ..base.clone() },
                None => Value {
                    timestamp: object.wiped,
                    expires_at_ms: at_ms,
                    payload: Payload::Bytes(Bytes::from_static(b"0")),
                },
            };
            for entry in &mut object.entries {
                entry.values.clear();
            }
            object.event(by.actor).values.insert(0, value);
        } else {
            object.deadline = Some(Deadline { timestamp: by.timestamp, at_ms });
        }
        Ok((Some(object), outcome(true)))
    }

    fn replace(
        &self,
        bytes: Option<&Bytes>,
        expiry: Expiry,
        only: &Condition,
        read: bool,
        by: By,
    ) -> Result<(Option<Self>, Outcome), Refusal> {
        let needs_string = read || matches!(only, Condition::Equal(_) | Condition::Different(_));
        let visible = if needs_string { self.of_kind(Kind::String, by.now_ms)? } else { self.visible(by.now_ms) };
        let before = visible.filter(|visible| visible.kind == Kind::String).map(|visible| visible.string());
        let done = match only {
            Condition::Always => bytes.is_some() || visible.is_some(),
            Condition::Absent => visible.is_none(),
            Condition::Present => visible.is_some(),
            Condition::Equal(wanted) => before.as_ref() == Some(wanted),
            Condition::Different(unwanted) => before.as_ref() != Some(unwanted),
        };
        let existed = visible.is_some();
        let outcome = Outcome::Replaced { done, existed, before: before.filter(|_| read) };
        if !done {
            return Ok((None, outcome));
        }
        let expires_at_ms = match expiry {
            Expiry::At(at_ms) => at_ms,
            Expiry::Keep => visible.and_then(|visible| visible.expires_at_ms),
        };
        let value = match bytes {
            Some(bytes) => {
                Value { timestamp: by.timestamp, expires_at_ms, payload: Payload::Bytes(bytes.clone()) }
            }
            None => Value { timestamp: by.timestamp, expires_at_ms: None, payload: Payload::Tombstone },
        };
        Ok((Some(self.overwrite(by.actor, value)), outcome))
    }
}

impl ExpiryCondition {
    fn allows(self, before_ms: Option<u64>, after_ms: Option<u64>) -> bool {
        let (before, after) = (before_ms.unwrap_or(u64::MAX), after_ms.unwrap_or(u64::MAX));
        match self {
            Self::Always => true,
            Self::Absent => before_ms.is_none(),
            Self::Present { later, earlier } => {
                before_ms.is_some() && (!later || after > before) && (!earlier || after < before)
            }
            Self::Later => after > before,
            Self::Earlier => after < before,
        }
    }
}

fn length(bytes: &Bytes) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

//! What sets and hashes are made of: named cells, each present as long as one of its values is.
//!
//! A value of a cell is named by the dot of the write that put it there. Merging keeps it unless the other side has
//! seen its dot and has the value no more: so removing needs no tombstone, and what is put at the same time as it is
//! removed stays (Bieniusa, Zawirski, Preguiça, Shapiro, Baquero, Balegas and Duarte, "An Optimized Conflict-free
//! Replicated Set", 2012; the map of such cells is that of Almeida, Shoker and Baquero, "Delta State Replicated Data
//! Types", 2018). The dots seen are those of the object.

use super::tally::Tallies;
use super::{Context, Dot};
use crate::hlc::Hlc;
use bytes::Bytes;
use std::cmp::Ordering;

/// What a cell is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum CellKind {
    /// A member of a set; its values are empty.
    Member,
    /// A field of a hash.
    Field,
}

/// A member of a set or a field of a hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cell {
    pub kind: CellKind,
    pub name: Bytes,
    /// Concurrent values, ascending by dot; none: the cell has been removed.
    pub values: Vec<CellValue>,
    /// What has been added to a field. Stays when the field is removed, since sums are never taken back.
    pub tallies: Tallies,
}

/// One value of a cell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CellValue {
    pub dot: Dot,
    pub timestamp: Hlc,
    pub bytes: Bytes,
}

/// All cells of an object, ascending by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Cells(pub Vec<Cell>);

impl Cell {
    fn rank(&self) -> (CellKind, &[u8]) {
        (self.kind, &self.name)
    }

    fn is_void(&self) -> bool {
        self.values.is_empty() && self.tallies.is_empty()
    }

    /// The value to be shown: the last writer's.
    pub(super) fn winner(&self) -> Option<&CellValue> {
        self.values.iter().max_by_key(|value| (value.timestamp, value.dot))
    }

    /// When something was last put there that counts; `None`: there is nothing.
    pub(super) fn newest(&self, wiped: Hlc) -> Option<Hlc> {
        let values = self.values.iter().map(|value| value.timestamp).max();
        values.max(self.tallies.net(wiped).map(|net| net.newest))
    }

    /// Keeps of the values those that the other side has as well or has not seen.
    fn keep_unseen(&self, other: &[CellValue], seen: &Context) -> Vec<CellValue> {
        let here = self.values.iter().filter_map(|value| {
            match other.binary_search_by_key(&value.dot, |other| other.dot) {
                // A dot has one value; should it have two, all replicas choose the same.
                Ok(at) => Some(value.max(&other[at])),
                Err(_) => (!seen.covers(value.dot)).then_some(value),
            }
        });
        here.cloned().collect()
    }

    fn merge(&self, other: &Self, seen_here: &Context, seen_there: &Context) -> Self {
        let mut values = self.keep_unseen(&other.values, seen_there);
        values.extend(other.keep_unseen(&self.values, seen_here));
        values.sort_unstable();
        values.dedup_by_key(|value| value.dot);
        Self { kind: self.kind, name: self.name.clone(), values, tallies: self.tallies.merge(&other.tallies) }
    }
}

impl Cells {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn of(&self, kind: CellKind) -> impl Iterator<Item = &Cell> {
        self.0.iter().filter(move |cell| cell.kind == kind)
    }

    fn find(&self, kind: CellKind, name: &[u8]) -> Result<usize, usize> {
        self.0.binary_search_by(|cell| cell.rank().cmp(&(kind, name)))
    }

    pub(super) fn get(&self, kind: CellKind, name: &[u8]) -> Option<&Cell> {
        self.find(kind, name).ok().map(|at| &self.0[at])
    }

    pub(super) fn get_mut(&mut self, kind: CellKind, name: &[u8]) -> Option<&mut Cell> {
        self.find(kind, name).ok().map(|at| &mut self.0[at])
    }

    /// The cell of this name, made if there is none.
    pub(super) fn entry(&mut self, kind: CellKind, name: &Bytes) -> &mut Cell {
        let at = match self.find(kind, name) {
            Ok(at) => at,
            Err(at) => {
                let cell = Cell { kind, name: name.clone(), values: Vec::new(), tallies: Tallies::default() };
                self.0.insert(at, cell);
                at
            }
        };
        &mut self.0[at]
    }

    /// Removes what is known here of all cells that `select` chooses.
    pub(super) fn remove_all(&mut self, select: impl Fn(&Cell) -> bool) {
        for cell in self.0.iter_mut().filter(|cell| select(cell)) {
            cell.values.clear();
            cell.tallies.clear();
        }
        self.0.retain(|cell| !cell.is_void());
    }

    /// Drops values that were put before `wiped`.
    pub(super) fn wipe(&mut self, wiped: Hlc) {
        for cell in &mut self.0 {
            cell.values.retain(|value| value.timestamp >= wiped);
        }
        self.0.retain(|cell| !cell.is_void());
    }

    pub(super) fn newest(&self, kind: CellKind, wiped: Hlc) -> Option<Hlc> {
        self.of(kind).filter_map(|cell| cell.newest(wiped)).max()
    }

    /// Of everything, whether it counts or not.
    pub(super) fn newest_of_all(&self) -> Option<Hlc> {
        let values = |cell: &Cell| cell.values.iter().map(|value| value.timestamp).max();
        self.0.iter().filter_map(|cell| values(cell).max(cell.tallies.newest())).max()
    }

    /// Both sides' cells; what either has seen removed is.
    pub(super) fn merge(&self, other: &Self, seen_here: &Context, seen_there: &Context) -> Self {
        let mut merged = Vec::with_capacity(self.0.len().max(other.0.len()));
        let alone = |cell: &Cell, seen: &Context| {
            let values = cell.keep_unseen(&[], seen);
            Cell { values, ..cell.clone() }
        };
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (Some(our), Some(their)) => our.rank().cmp(&their.rank()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            let cell = match order {
                Ordering::Less => ours.next().map(|our| alone(our, seen_there)),
                Ordering::Greater => theirs.next().map(|their| alone(their, seen_here)),
                Ordering::Equal => {
                    ours.next().zip(theirs.next()).map(|(our, their)| our.merge(their, seen_here, seen_there))
                }
            };
            merged.extend(cell.filter(|cell| !cell.is_void()));
        }
        Self(merged)
    }
}

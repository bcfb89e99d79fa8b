//! How much clients are to bear besides the copying: how many partitions may begin to move, and how often documents come.
//!
//! While a partition moves, each write to it goes to both of its lists, and clients feel that as they feel copying. So beside
//! clients no more of them begin than are copied until the next documents, however many may move at once; and who copies
//! none, because it hangs, keeps but a few of them from the others.
//!
//! All nodes take a document up in the same moment, in which requests wait for a processor, whatever it changes. So beside
//! clients documents are further apart, and each has more in it.

use super::{Pace, Reports, report_of};
use crate::preference::MemberIndex;
use crate::ring::{Phase, Placement, Ring};
use crate::throttle::{CALL_BYTES, FIRST};
use std::collections::BTreeMap;

/// Partitions that each member may always have to copy: those that it works on at once beside clients, and some to go on with.
const LEAST: usize = 12;
/// Seconds between two documents beside clients. Each is felt for a tenth of a second, so of all requests a thirtieth feels
/// one. A partition moves in two or three documents: further apart, small moves would take long.
const SPACING_BESIDE_CLIENTS: u32 = 3;
/// Besides the least, a member may have what it copies in so many seconds: until the next document, and its coming.
const SECONDS: f64 = SPACING_BESIDE_CLIENTS as f64 + 1.0;

/// Seconds that are to pass before a document follows another.
#[must_use]
pub fn spacing(reports: &Reports) -> u32 {
    if has_clients(reports) { SPACING_BESIDE_CLIENTS } else { 1 }
}

/// Whether clients are anywhere who would feel a move.
fn has_clients(reports: &Reports) -> bool {
    reports.values().any(|report| report.beside_clients.is_some())
}

/// What is left of the bounds.
pub(super) struct Room {
    moving: usize,
    moving_max: usize,
    /// Partitions that may begin to move to each member. Absent: a member without bound, for nobody is there to feel it.
    of: BTreeMap<MemberIndex, usize>,
}

impl Room {
    pub(super) fn of(ring: &Ring, reports: &Reports, pace: Pace) -> Self {
        let moving = ring.partitions.iter().filter(|placement| placement.also.is_some()).count();
        let bounds = if has_clients(reports) { bounds(ring, reports) } else { BTreeMap::new() };
        Self { moving, moving_max: pace.parallel_moves, of: bounds }
    }

    /// A partition that moved moves no longer.
    pub(super) fn one_is_done(&mut self) {
        self.moving -= 1;
    }

    /// Takes room for a move to this list, if any of its new members has some.
    pub(super) fn take(&mut self, placement: &Placement, list: &[MemberIndex]) -> bool {
        let new = || list.iter().filter(|index| !placement.preference.contains(index));
        // One that has room is enough: whoever is fast does not wait for who is slow.
        let has_room = |index| self.of.get(index).is_none_or(|&left| left > 0);
        let fits = self.moving < self.moving_max && (new().next().is_none() || new().any(has_room));
        if fits {
            self.moving += 1;
            for index in new() {
                if let Some(left) = self.of.get_mut(index) {
                    *left = left.saturating_sub(1);
                }
            }
        }
        fits
    }
}

/// How many more partitions each member may be given to copy.
fn bounds(ring: &Ring, reports: &Reports) -> BTreeMap<MemberIndex, usize> {
    let bytes = replica_bytes(ring, reports);
    let to_copy = to_copy(ring, reports);
    let bound = |index: MemberIndex| {
        let report = report_of(ring, reports, index);
        // Who has no clients of its own goes by those of its sources once it has heard of them.
        #[allow(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        let rate = report.and_then(|report| report.beside_clients).map_or(FIRST, |rate| rate as f64);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let copied = (rate * SECONDS / bytes) as usize;
        LEAST.saturating_add(copied).saturating_sub(to_copy.get(&index).copied().unwrap_or_default())
    };
    ring.members.iter().map(|member| (member.index, bound(member.index))).collect()
}

/// What copying a partition is taken for, in bytes: the mean of the replicas that serve, and what it takes to ask for it.
#[allow(clippy::cast_precision_loss, reason = "a mean need not be exact")]
fn replica_bytes(ring: &Ring, reports: &Reports) -> f64 {
    let answers = |index: &&MemberIndex| report_of(ring, reports, **index).is_some();
    let replicas = ring.partitions.iter().flat_map(|placement| &placement.preference).filter(answers);
    let bytes: u64 = reports.values().map(|report| report.serving_bytes).sum();
    bytes as f64 / replicas.count().max(1) as f64 + CALL_BYTES as f64
}

/// How many partitions each member has yet to copy, of those that move.
fn to_copy(ring: &Ring, reports: &Reports) -> BTreeMap<MemberIndex, usize> {
    let mut to_copy = BTreeMap::new();
    for (partition, placement) in ring.partitions.iter().enumerate() {
        let Some(also) = placement.also.as_ref().filter(|also| also.phase == Phase::Filling) else { continue };
        for &index in also.list.iter().filter(|index| !placement.preference.contains(index)) {
            let report = report_of(ring, reports, index);
            if !report.is_some_and(|report| report.has_synced(partition, placement.since)) {
                *to_copy.entry(index).or_default() += 1;
            }
        }
    }
    to_copy
}

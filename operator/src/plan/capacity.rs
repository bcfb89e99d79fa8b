//! Capacity preflight: data is only moved to where it fits.

use super::{Desired, Observed, Reason};
use dynamo::moves;
use dynamo::preference::MemberIndex;
use dynamo::ring::Ring;

/// Part of a disk that stays free, for compaction and for writes that arrive meanwhile: one part in so many.
const RESERVE_DIVISOR: u64 = 10;

/// Members whose disks are too small for what the target of `next` brings to them, by the sizes that the nodes
/// report now. A member that does not answer is not judged: nothing moves to it either.
pub(super) fn too_small(desired: &Desired, observed: &Observed, next: &Ring) -> Vec<Reason> {
    let served = observed.served(observed.ring().unwrap_or(next));
    moves::landing(next)
        .into_iter()
        .filter_map(|(index, replicas)| {
            too_small_for(desired, observed, next, index, served.bytes_of(replicas as u64))
        })
        .collect()
}

fn too_small_for(
    desired: &Desired,
    observed: &Observed,
    next: &Ring,
    index: MemberIndex,
    needed: u64,
) -> Option<Reason> {
    let member = next.member(index)?;
    let status = &observed.answer_of(member.incarnation)?.status;
    if status.disk_bytes_total == 0 {
        return None;
    }
    let volume = u64::try_from(desired.volume_bytes).unwrap_or(u64::MAX);
    // Several volumes may share one file system, which then is larger than any of them should become.
    let total = status.disk_bytes_total.min(volume);
    let room =
        status.disk_bytes_free.min(total.saturating_sub(status.bytes)).saturating_sub(total / RESERVE_DIVISOR);
    (needed > room).then(|| Reason::DiskTooSmall { pod: member.name.clone(), needed, room })
}

//! The bugs that can be put in, and the promise that each breaks.

/// A bug that can be put in.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// Its name in the code.
    pub name: &'static str,
    /// What it breaks.
    pub promise: &'static str,
}

const fn bug(name: &'static str, promise: &'static str) -> Bug {
    Bug { name, promise }
}

const DURABLE: &str = "an acknowledged write is on w disks";
const STAYS: &str = "and stays there through every change";
const STRICT: &str = "r + w > n: a strict read sees strict writes";
const SIBLINGS: &str = "siblings are exactly the concurrent writes";
const DELETED: &str = "what is deleted stays deleted";
const CHANGES: &str = "increments count once, adds stay";
const CONDITIONS: &str = "of conditional writes one succeeds";
const CLOCKS: &str = "one wrong clock does not take others along";

/// All of them.
pub const BUGS: &[Bug] = &[
    bug("ack-before-sync", DURABLE),
    bug("disk-without-sync", DURABLE),
    bug("disk-without-directory-sync", DURABLE),
    bug("quorum-counts-a-node-twice", DURABLE),
    bug("hint-counted-before-sync", DURABLE),
    bug("failed-commit-acknowledged", DURABLE),
    bug("strict-ignored-by-writes", STRICT),
    bug("strict-ignored-by-reads", STRICT),
    bug("read-quorum-of-1", STRICT),
    bug("quorums-of-another-list-length", STRICT),
    bug("digest-not-compared", STRICT),
    bug("stale-epoch-accepted", STRICT),
    bug("ring-not-persisted", STRICT),
    bug("second-list-ignored", STAYS),
    bug("pull-skips-last-page", STAYS),
    bug("pull-without-comparison", STAYS),
    bug("synced-before-sync", STAYS),
    bug("new-list-served-early", STAYS),
    bug("old-list-dropped-early", STAYS),
    bug("leftovers-ignore-second-list", STAYS),
    bug("leftovers-dropped-unhanded", STAYS),
    bug("hint-dropped-on-ring-change", STAYS),
    bug("hint-dropped-unacknowledged", STAYS),
    bug("given-up-data-used", DELETED),
    bug("given-up-unhanded", STAYS),
    bug("collected-unconfirmed", DELETED),
    bug("collected-despite-hints", DELETED),
    bug("collected-unsettled", DELETED),
    bug("merge-drops-sibling", SIBLINGS),
    bug("dot-reuse-after-crash", SIBLINGS),
    bug("dot-reuse-after-collection", SIBLINGS),
    bug("dot-reuse-after-volume-loss", SIBLINGS),
    bug("increments-added-up", CHANGES),
    bug("increment-sent-again", CHANGES),
    bug("removal-wins-by-clock", CHANGES),
    bug("condition-tested-by-anyone", CONDITIONS),
    bug("condition-without-majority", CONDITIONS),
    bug("clock-jump-accepted", CLOCKS),
];

//! Which actor a new dot is given, so that no dot is ever issued twice (Riak's kv679).

use super::Overlay;
use crate::planted;
use crate::storage::Births;
use dynamo::object::{Actor, Object};
use dynamo::token::{SLOTS, Token};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The actors of this node.
pub(super) struct Actors {
    incarnation: u64,
    births: Births,
    /// By hash slot: births below this one belong to state that was gone in between; they are not continued.
    floors: Vec<AtomicU64>,
    /// Births below this one may belong to dots that a failed commit took back here, but not at the peers that had
    /// been sent them.
    failed_floor: AtomicU64,
    /// Failed commits that `failed_floor` accounts for.
    failed_commits: AtomicU64,
    overlay: Arc<Overlay>,
}

impl Actors {
    pub(super) fn new(incarnation: u64, births: Births, overlay: Arc<Overlay>) -> Self {
        let floor = births.next();
        Self {
            incarnation,
            births,
            floors: (0..SLOTS).map(|_| AtomicU64::new(floor)).collect(),
            failed_floor: AtomicU64::new(0),
            failed_commits: AtomicU64::new(0),
            overlay,
        }
    }

    /// Continues this node's own actor of the key if the state here is trustworthy for it; else a new birth.
    pub(super) fn of(&self, token: Token, mine: Option<&Object>) -> Actor {
        match mine.and_then(|object| object.own_actor(self.incarnation)) {
            Some(actor) if self.is_trusted(token, actor) => actor,
            Some(actor) if planted::is("dot-reuse-after-crash") => actor,
            _ if planted::is("dot-reuse-after-volume-loss") => Actor { incarnation: self.incarnation, birth: 1 },
            _ => Actor { incarnation: self.incarnation, birth: self.births.next() },
        }
    }

    /// Whether all that was issued by this actor of this node is known here, if any of it is.
    fn is_trusted(&self, token: Token, actor: Actor) -> bool {
        let floor = self.floors.get(usize::from(token.slot()));
        let floor = floor.map_or(0, |floor| floor.load(Ordering::Acquire)).max(self.failed_floor());
        self.births.is_of_this_start(actor.birth) && actor.birth >= floor
    }

    /// Of a key that was dropped as a leftover, or whose deletion was collected, nothing is known here any more; but a
    /// replica that has missed it, or a client with an old context, may bring back an actor of this node, and how far
    /// it had counted nobody can tell. It is not continued, nor is any other birth of its hash slot until now, which
    /// does no harm.
    pub(super) fn mistrust_returning(&self, token: Token, mine: Option<&Object>, incoming: &Object) {
        let Some(theirs) = incoming.own_actor(self.incarnation).filter(|actor| self.is_trusted(token, *actor))
        else {
            return;
        };
        let ours = mine.and_then(|mine| mine.own_actor(self.incarnation));
        let behind =
            ours == Some(theirs) && mine.map(|mine| mine.seen_of(theirs)) < Some(incoming.seen_of(theirs));
        let returning = (ours < Some(theirs) || behind) && !planted::is("dot-reuse-after-collection");
        if let Some(floor) = self.floors.get(usize::from(token.slot())).filter(|_| returning) {
            floor.fetch_max(self.births.next(), Ordering::AcqRel);
        }
    }

    /// After a failed commit no birth issued before is continued: the state it was in is gone here, while peers may
    /// have been sent it.
    fn failed_floor(&self) -> u64 {
        let failed = self.overlay.failed_commits();
        if failed != self.failed_commits.load(Ordering::Acquire) {
            self.failed_floor.fetch_max(self.births.next(), Ordering::AcqRel);
            self.failed_commits.store(failed, Ordering::Release);
        }
        self.failed_floor.load(Ordering::Acquire)
    }
}

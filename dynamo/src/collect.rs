//! Collecting what is dead: tombstones and expired values leave the disks, and what they replaced stays gone.
//!
//! A replica that has forgotten a delete takes an older value for news. So a dead object may be forgotten only when no
//! older value is left that could come: not on a disk, not in a hint, and not under way. Cassandra waits ten days
//! (`gc_grace_seconds`) and hopes that a repair came in between, Riak three seconds; here nothing depends on a clock.
//! One member leads all through the same stages, and an answer that is missing at any of them ends the attempt with
//! nothing removed:
//!
//! 1. **Confirm.** Every member that holds the key has this very object, durably; no other member has anything of it.
//!    From now on whoever reads a replica reads the dead object or something newer.
//! 2. **Settle.** What was read or made before that may still be under way, as a write to a slow replica or a late
//!    repair. Every member waits until everything it was at when asked has ended (a grace period, as in read-copy-update:
//!    McKenney and Slingwine, 1998), and then until every other member has begun all that it had sent it.
//! 3. **Settle again**, for what the receivers had begun.
//! 4. **Check.** As the first stage, and nobody holds a hint that may be for the key: a hint is what becomes of a write
//!    that did not arrive.
//! 5. **Remove.** Each holder removes the object if it is still this one. A holder that misses this keeps a tombstone
//!    more than the others, which does no harm: it comes back to them by anti-entropy and is collected another time.
//!
//! A member that is away, holder or not, keeps everything from being collected: it may hold a hint or an old copy.

use crate::preference::MemberIndex;
use std::collections::BTreeSet;

/// What all members are asked to do at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Say which objects are not as described.
    Confirm,
    /// Wait for all that is under way.
    Settle,
    /// Wait for what others had under way to here.
    SettleAgain,
    /// As `Confirm`, and say for which there may be hints.
    Check,
    /// Remove the objects that are still as described.
    Remove,
    /// Nothing: all is done.
    Done,
}

/// One attempt to collect some dead objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    members: BTreeSet<MemberIndex>,
    stage: Stage,
    /// Who has not answered at this stage.
    open: BTreeSet<MemberIndex>,
    /// Positions of the objects that nobody has refused.
    left: BTreeSet<usize>,
}

impl Collection {
    /// An attempt to collect `objects` objects, led through by one of the members: all that the ring has.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = MemberIndex>, objects: usize) -> Self {
        let members: BTreeSet<MemberIndex> = members.into_iter().collect();
        let left: BTreeSet<usize> = (0..objects).collect();
        let stage = if left.is_empty() || members.is_empty() { Stage::Done } else { Stage::Confirm };
        Self { open: members.clone(), members, stage, left }
    }

    /// What those who have not answered are to be asked now.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Who has not answered at this stage.
    pub fn open(&self) -> impl Iterator<Item = MemberIndex> {
        self.open.iter().copied()
    }

    /// Positions of the objects that may still be collected, ascending; when all is done, of those that were.
    pub fn left(&self) -> impl Iterator<Item = usize> {
        self.left.iter().copied()
    }

    /// A member has done what the stage asks, but for the objects at these positions. The next stage begins when
    /// nobody is open any more; it is about what is left.
    ///
    /// An answer to another stage, or from somebody who is not open, is not to be given here.
    pub fn answered(&mut self, member: MemberIndex, refused: impl IntoIterator<Item = usize>) {
        if !self.open.remove(&member) {
            return;
        }
        for position in refused {
            self.left.remove(&position);
        }
        if self.open.is_empty() {
            self.stage = self.next();
            if self.stage != Stage::Done {
                self.open.clone_from(&self.members);
            }
        }
    }

    fn next(&self) -> Stage {
        match self.stage {
            _ if self.left.is_empty() => Stage::Done,
            Stage::Confirm => Stage::Settle,
            Stage::Settle => Stage::SettleAgain,
            Stage::SettleAgain => Stage::Check,
            Stage::Check => Stage::Remove,
            Stage::Remove | Stage::Done => Stage::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_removed_that_anyone_refuses() {
        let members = [1, 2, 3].map(MemberIndex);
        // Every choice of who refuses which of two objects at which stage that may refuse.
        for choice in 0..1u32 << 12 {
            let refuses =
                |stage: usize, member: usize, object: usize| choice >> (stage * 6 + member * 2 + object) & 1 == 1;
            let mut collection = Collection::new(members, 2);
            let mut seen = Vec::new();
            while collection.stage() != Stage::Done {
                let stage = collection.stage();
                seen.push(stage);
                if stage == Stage::Remove {
                    for object in collection.left() {
                        for (stage, member) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
                            assert!(!refuses(stage, member, object));
                        }
                    }
                }
                for (at, member) in members.into_iter().enumerate() {
                    assert!(collection.open().any(|open| open == member));
                    assert_eq!(collection.stage(), stage, "not before everyone has answered");
                    let number = match stage {
                        Stage::Confirm => Some(0),
                        Stage::Check => Some(1),
                        _ => None,
                    };
                    let refused = (0..2).filter(|&object| number.is_some_and(|stage| refuses(stage, at, object)));
                    collection.answered(member, refused.collect::<Vec<_>>());
                }
            }
            let stays =
                (0..2).all(|object| (0..2).any(|stage| (0..3).any(|member| refuses(stage, member, object))));
            assert_eq!(seen.contains(&Stage::Remove), !stays);
            assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
        }
        assert_eq!(Collection::new(members, 0).stage(), Stage::Done);
    }
}

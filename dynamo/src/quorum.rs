//! Counting who has a write, and who has answered a read. Whoever sends and waits only asks here what to think of it.
//!
//! A write of a partition that moves goes to two lists, and is acknowledged when enough members of *each* have it. A
//! fallback's durable hint may stand in for a member (Dynamo's sloppy quorum, §4.6). What is counted per list is
//! distinct physical copies: a member counts once however often it answers, and a fallback stands in for one member
//! at most, never for another if it is a member of the list itself.

use crate::preference::MemberIndex;

/// What became of one message of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The member has the write durably.
    Stored,
    /// The fallback named holds a durable hint for the member.
    StoredByFallback(MemberIndex),
    /// The member could not be reached or has refused, and no fallback stands in. Should a better outcome arrive
    /// late, it counts all the same.
    Failed,
}

/// Where a quorum stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not enough yet, but what has not failed would do.
    Waiting,
    /// Enough.
    Done,
    /// Even if all that has not failed succeeded, it would not be enough, unless fallbacks step in. A write may have
    /// been stored at some members and may yet become visible.
    Failed {
        /// Position of the first list that falls short; zero for a read.
        list: usize,
        /// How many count now.
        got: usize,
        /// How many are needed.
        need: usize,
    },
}

/// How many holders of a list a newcomer has to meet, so that every write that w of them have is among what it was
/// given. Of those that are `gone` nothing can be had: what only they had is lost, and the others are all to be met
/// if need be.
#[must_use]
pub fn holders_to_meet(holders: usize, w: usize, gone: usize) -> usize {
    (holders + 1).saturating_sub(w.clamp(1, holders.max(1))).min(holders.saturating_sub(gone))
}

/// The members of one list and how many of them are needed: at least one, at most all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct List {
    members: Vec<MemberIndex>,
    need: usize,
}

impl List {
    fn new(list: &[MemberIndex], need: usize) -> Self {
        let mut members = Vec::with_capacity(list.len());
        for member in list {
            note(&mut members, *member);
        }
        let need = need.min(members.len()).max(1);
        Self { members, need }
    }

    fn progress(&self, list: usize, got: usize, possible: usize) -> Progress {
        if got >= self.need {
            Progress::Done
        } else if possible >= self.need {
            Progress::Waiting
        } else {
            Progress::Failed { list, got, need: self.need }
        }
    }
}

/// Counts the copies of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteQuorum {
    lists: Vec<List>,
    sloppy: bool,
    stored: Vec<MemberIndex>,
    /// (member, the fallback that holds a hint for it), in order of arrival.
    hinted: Vec<(MemberIndex, MemberIndex)>,
    failed: Vec<MemberIndex>,
}

impl WriteQuorum {
    /// A write that nobody has yet. Each list comes with the number w of its members that must have the write; w is
    /// capped at the list's length and is at least one. Without any list nothing is ever acknowledged.
    ///
    /// Unless `sloppy`, hints do not count.
    #[must_use]
    pub fn new<L: AsRef<[MemberIndex]>>(lists: &[(L, usize)], sloppy: bool) -> Self {
        let lists = lists.iter().map(|(list, w)| List::new(list.as_ref(), *w)).collect();
        Self { lists, sloppy, stored: Vec::new(), hinted: Vec::new(), failed: Vec::new() }
    }

    /// The same write under other lists, since the ring has changed meanwhile. Copies are physical facts and so are
    /// failures: both carry over, those of members that no list named before included.
    #[must_use]
    pub fn replace_lists<L: AsRef<[MemberIndex]>>(&self, lists: &[(L, usize)]) -> Self {
        Self { lists: Self::new(lists, self.sloppy).lists, ..self.clone() }
    }

    /// Takes note of what came back for a member.
    pub fn add_result(&mut self, member: MemberIndex, outcome: Outcome) -> Progress {
        match outcome {
            Outcome::Stored => note(&mut self.stored, member),
            Outcome::StoredByFallback(fallback) => note(&mut self.hinted, (member, fallback)),
            Outcome::Failed => note(&mut self.failed, member),
        }
        self.progress()
    }

    /// Where the write stands: done when every list is, failed when one of them is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let mut all = match self.lists.is_empty() {
            true => Progress::Failed { list: 0, got: 0, need: 1 },
            false => Progress::Done,
        };
        for (at, list) in self.lists.iter().enumerate() {
            let got = self.covered(list, |member| self.stored.contains(member)).len();
            let open = |member: &MemberIndex| self.stored.contains(member) || !self.failed.contains(member);
            let possible = self.covered(list, open).len();
            match list.progress(at, got, possible) {
                Progress::Done => {}
                Progress::Waiting => all = Progress::Waiting,
                failed @ Progress::Failed { .. } => return failed,
            }
        }
        all
    }

    /// Whether the member has the write or a fallback stands in for it, in every list that names it. `false` for a
    /// member that no list names.
    #[must_use]
    pub fn has(&self, member: MemberIndex) -> bool {
        self.acknowledged().contains(&member)
    }

    /// Members, ascending, that have the write or for which a fallback stands in, in every list that names them.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<MemberIndex> {
        let missing = self.missing();
        let mut acknowledged = self.members();
        acknowledged.retain(|member| !missing.contains(member));
        acknowledged
    }

    /// All other members of the lists, ascending.
    #[must_use]
    pub fn missing(&self) -> Vec<MemberIndex> {
        let mut missing = self.members();
        let covered: Vec<_> = self
            .lists
            .iter()
            .map(|list| (list, self.covered(list, |member| self.stored.contains(member))))
            .collect();
        missing.retain(|member| {
            covered.iter().any(|(list, covered)| list.members.contains(member) && !covered.contains(member))
        });
        missing
    }

    /// Members of all lists, ascending, each once.
    fn members(&self) -> Vec<MemberIndex> {
        let mut members: Vec<_> = self.lists.iter().flat_map(|list| &list.members).copied().collect();
        members.sort_unstable();
        members.dedup();
        members
    }

    /// How many of the list that lacks most have the write, and how many of it must.
    #[must_use]
    pub fn furthest_behind(&self) -> (usize, usize) {
        let counts = self
            .lists
            .iter()
            .map(|list| (self.covered(list, |member| self.stored.contains(member)).len(), list.need));
        counts.max_by_key(|(got, need)| need.saturating_sub(*got)).unwrap_or((0, 1))
    }

    /// Members of a list that have a copy of their own, or one at a fallback that stands in for them and for no other
    /// member of the list.
    fn covered(&self, list: &List, has_own: impl Fn(&MemberIndex) -> bool) -> Vec<MemberIndex> {
        let (mut covered, without): (Vec<_>, Vec<_>) = list.members.iter().copied().partition(has_own);
        if self.sloppy && !self.hinted.is_empty() {
            let mut standing_in = Vec::new();
            for member in without {
                self.stand_in(list, member, &mut standing_in, &mut Vec::new());
            }
            covered.extend(standing_in.iter().map(|(member, _)| *member));
        }
        covered
    }

    /// Finds a fallback for a member, if need be by giving another member another of its fallbacks (augmenting paths
    /// of a bipartite matching), so that as many members as possible have one. Hints of one write are few.
    fn stand_in(
        &self,
        list: &List,
        member: MemberIndex,
        standing_in: &mut Vec<(MemberIndex, MemberIndex)>,
        tried: &mut Vec<MemberIndex>,
    ) -> bool {
        for (_, fallback) in self.hinted.iter().filter(|(target, _)| *target == member) {
            if list.members.contains(fallback) || tried.contains(fallback) {
                continue;
            }
            tried.push(*fallback);
            match standing_in.iter().find(|(_, taken)| taken == fallback).copied() {
                None => {
                    standing_in.push((member, *fallback));
                    return true;
                }
                Some((other, _)) => {
                    if self.stand_in(list, other, standing_in, tried) {
                        standing_in.retain(|pair| *pair != (other, *fallback));
                        standing_in.push((member, *fallback));
                        return true;
                    }
                }
            }
        }
        false
    }
}

/// Counts the answers to one read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadQuorum {
    list: List,
    answered: Vec<MemberIndex>,
    failed: Vec<MemberIndex>,
}

impl ReadQuorum {
    /// A read that nobody has answered yet, of which r members of the list must. r is capped at the list's length and
    /// is at least one.
    #[must_use]
    pub fn new(list: &[MemberIndex], r: usize) -> Self {
        Self { list: List::new(list, r), answered: Vec::new(), failed: Vec::new() }
    }

    /// How many answers are needed.
    #[must_use]
    pub fn needed(&self) -> usize {
        self.list.need
    }

    /// A member has answered, or a fallback has answered with what it holds for the member. Members outside of the
    /// list do not count.
    pub fn add_answer(&mut self, member: MemberIndex) -> Progress {
        if self.list.members.contains(&member) {
            note(&mut self.answered, member);
        }
        self.progress()
    }

    /// A member has failed. Should it, or a fallback for it, answer late, that counts all the same.
    pub fn add_failure(&mut self, member: MemberIndex) -> Progress {
        if self.list.members.contains(&member) {
            note(&mut self.failed, member);
        }
        self.progress()
    }

    /// Where the read stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let open = |member: &&MemberIndex| self.answered.contains(member) || !self.failed.contains(member);
        let possible = self.list.members.iter().filter(open).count();
        self.list.progress(0, self.answered.len(), possible)
    }

    /// Members of the list that have not answered, in the list's order.
    #[must_use]
    pub fn missing(&self) -> Vec<MemberIndex> {
        let silent = |member: &&MemberIndex| !self.answered.contains(member);
        self.list.members.iter().filter(silent).copied().collect()
    }
}

/// Adds what is not there yet.
fn note<T: PartialEq>(known: &mut Vec<T>, new: T) {
    if !known.contains(&new) {
        known.push(new);
    }
}

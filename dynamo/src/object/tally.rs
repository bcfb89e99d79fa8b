//! Counting without losing: what each actor has added, and how much of that a later write took away.
//!
//! A counter that many replicas add to is a sum per actor, of which only that actor adds to its own (Shapiro, Preguiça,
//! Baquero and Zawirski, "A comprehensive study of Convergent and Commutative Replicated Data Types", 2011). What such
//! counters lack is a way to start anew: Baquero, Almeida and Lerche, "The problem with embedded CRDT counters and a
//! solution" (`PaPoC` 2016). Here sums are never taken back; a write that replaces the counter notes how far each sum
//! had come, and what was added up to there counts no more.

use super::Actor;
use crate::hlc::Hlc;
use std::cmp::Ordering;

/// How far a sum had come at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Mark {
    /// Of the last addition. An actor's timestamps of one key grow, so the later mark has all of the earlier one.
    pub timestamp: Hlc,
    /// All that was added, modulo 2⁶⁴.
    pub sum: i64,
}

/// What one actor has added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tally {
    pub actor: Actor,
    pub reached: Mark,
    /// Additions up to here have been replaced by another write.
    pub cleared: Mark,
}

/// What all actors have added, ascending by actor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Tallies(pub Vec<Tally>);

/// Additions that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Net {
    /// Modulo 2⁶⁴, like what it is added to.
    pub sum: i64,
    /// Of the last of them.
    pub newest: Hlc,
}

impl Tally {
    /// Whether it has additions that neither a write that saw them nor one that came later has replaced.
    fn counts(&self, wiped: Hlc) -> bool {
        self.reached > self.cleared && self.reached.timestamp >= wiped
    }
}

impl Tallies {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sum of what counts after everything before `wiped` was replaced; `None`: nothing does.
    pub(super) fn net(&self, wiped: Hlc) -> Option<Net> {
        let counting = self.0.iter().filter(|tally| tally.counts(wiped));
        counting.fold(None, |net: Option<Net>, tally| {
            let sum = tally.reached.sum.wrapping_sub(tally.cleared.sum);
            let newest = tally.reached.timestamp;
            Some(net.map_or(Net { sum, newest }, |net| Net {
                sum: net.sum.wrapping_add(sum),
                newest: net.newest.max(newest),
            }))
        })
    }

    /// An addition by its actor.
    pub(super) fn add(&mut self, actor: Actor, timestamp: Hlc, by: i64, wiped: Hlc) {
        let at = match self.0.binary_search_by_key(&actor, |tally| tally.actor) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, Tally { actor, reached: Mark::default(), cleared: Mark::default() });
                at
            }
        };
        let tally = &mut self.0[at];
        if !tally.counts(wiped) {
            // The new timestamp would bring back what was replaced by time alone.
            tally.cleared = tally.cleared.max(tally.reached);
        }
        tally.reached = Mark { timestamp, sum: tally.reached.sum.wrapping_add(by) };
    }

    /// Nothing that is known here counts any more.
    pub(super) fn clear(&mut self) {
        for tally in &mut self.0 {
            tally.cleared = tally.cleared.max(tally.reached);
        }
    }

    pub(super) fn newest(&self) -> Option<Hlc> {
        self.0.iter().map(|tally| tally.reached.timestamp.max(tally.cleared.timestamp)).max()
    }

    pub(super) fn merge(&self, other: &Self) -> Self {
        let mut merged = Vec::with_capacity(self.0.len().max(other.0.len()));
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(our), Some(their)) = (ours.peek(), theirs.peek()) {
            match our.actor.cmp(&their.actor) {
                Ordering::Less => merged.extend(ours.next()),
                Ordering::Greater => merged.extend(theirs.next()),
                Ordering::Equal => {
                    merged.push(Tally {
                        actor: our.actor,
                        reached: our.reached.max(their.reached),
                        cleared: our.cleared.max(their.cleared),
                    });
                    ours.next();
                    theirs.next();
                }
            }
        }
        merged.extend(ours);
        merged.extend(theirs);
        Self(merged)
    }
}

//! Partitions without an owner go to members that fit there, as many as can be: bipartite b-matching.
//!
//! Greedy first, then augmenting paths (Kuhn): a partition that finds all its fitting members full makes one of them
//! pass another partition on.

use super::problem::Problem;
use crate::preference::{Id, UNOWNED};
use std::collections::VecDeque;

/// Partitions to give away, no two of which are near enough to matter to each other, and who has got which.
pub(super) struct Matching<'a> {
    problem: &'a Problem,
    partitions: &'a [usize],
    /// Members that may own the partition, by position in `partitions`.
    edges: Vec<Vec<Id>>,
    /// What each member has got, by position in `partitions`.
    given: Vec<Vec<usize>>,
    /// Who has got it.
    taker: Vec<Id>,
}

impl<'a> Matching<'a> {
    pub(super) fn new(problem: &'a Problem, partitions: &'a [usize]) -> Self {
        Self {
            problem,
            partitions,
            edges: Vec::new(),
            given: vec![Vec::new(); problem.members.len()],
            taker: vec![UNOWNED; partitions.len()],
        }
    }

    /// Gives away as many more partitions as possible when a member may get up to `room` of them in all and must
    /// keep `distance` clear. Distances must not grow nor rooms shrink from one call to the next.
    pub(super) fn extend(&mut self, owners: &[Id], room: &[usize], distance: usize) {
        let takers: Vec<Id> = (0..room.len() as Id).filter(|&member| room[member as usize] > 0).collect();
        let fitting = |&p: &usize| {
            let fits = |&member: &Id| self.problem.fits(owners, p, member, distance);
            takers.iter().copied().filter(fits).collect()
        };
        self.edges = self.partitions.iter().map(fitting).collect();
        for at in 0..self.partitions.len() {
            if self.taker[at] == UNOWNED {
                self.give(at, room);
            }
        }
    }

    /// Each partition with its new owner, [`UNOWNED`] if none fits.
    pub(super) fn result(&self) -> impl Iterator<Item = (usize, Id)> {
        self.partitions.iter().copied().zip(self.taker.iter().copied())
    }

    /// How many partitions a member has got.
    pub(super) fn given(&self, member: usize) -> usize {
        self.given[member].len()
    }

    fn give(&mut self, at: usize, room: &[usize]) {
        let left = |member: &Id| room[*member as usize].saturating_sub(self.given[*member as usize].len());
        let roomiest =
            self.edges[at].iter().copied().max_by_key(|member| (left(member), std::cmp::Reverse(*member)));
        match roomiest {
            Some(member) if left(&member) > 0 => self.set(at, member),
            Some(_) => self.augment(at, room),
            None => {}
        }
    }

    fn set(&mut self, at: usize, member: Id) {
        self.taker[at] = member;
        self.given[member as usize].push(at);
    }

    /// Searches breadth first for a chain of members, each passing one partition on, that ends where there is room.
    fn augment(&mut self, start: usize, room: &[usize]) {
        // By member: the partition through which the search came to it.
        let mut through: Vec<Option<usize>> = vec![None; room.len()];
        let mut queue: VecDeque<usize> = VecDeque::from([start]);
        while let Some(at) = queue.pop_front() {
            for &member in &self.edges[at] {
                let id = member as usize;
                if through[id].is_some() {
                    continue;
                }
                through[id] = Some(at);
                if self.given[id].len() < room[id] {
                    self.pass_on(start, member, &through);
                    return;
                }
                queue.extend(self.given[id].iter().copied());
            }
        }
    }

    fn pass_on(&mut self, start: usize, end: Id, through: &[Option<usize>]) {
        let mut member = end;
        while let Some(at) = through[member as usize] {
            let previous = self.taker[at];
            if previous != UNOWNED {
                self.given[previous as usize].retain(|&other| other != at);
            }
            self.set(at, member);
            if at == start {
                return;
            }
            member = previous;
        }
    }
}

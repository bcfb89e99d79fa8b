//! Owners on the ring with everything that follows from them kept up to date, so that trying a change is cheap.

use super::crowding::Crowding;
use super::problem::Problem;
use crate::preference::Id;

/// How far an arrangement is from perfect, each count apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Partitions whose list is not simply the next n owners, above the least possible.
    pub(super) violations: usize,
    /// What would stand in the way of the next change: partitions whose n-th successor has the same owner, so that
    /// n + 1 in a row are not distinct, or crowding.
    pub(super) tight: usize,
    /// Additions to today's lists above the least possible.
    pub(super) additions: usize,
    /// Sum of squares of how far members' loads are outside of their bounds.
    pub(super) uneven: usize,
}

impl Cost {
    /// All counts in one, weighted by how much they matter.
    pub(super) fn total(self) -> usize {
        24 * self.violations + self.tight + 32 * self.additions + self.uneven
    }

    pub(super) fn is_perfect(self) -> bool {
        self.total() == 0
    }
}

/// An arrangement of owners. Its lists are those of the walk.
#[derive(Clone)]
pub(super) struct Board<'a> {
    pub(super) problem: &'a Problem,
    owners: Vec<Id>,
    lists: Vec<Vec<Id>>,
    /// How many partitions the walk of each list looks at.
    reach: Vec<usize>,
    load: Vec<usize>,
    additions: usize,
    cost: Cost,
    violated: Places,
    near: Places,
    crowding: Crowding,
    /// Partitions looked at by walks so far: a measure of work that is the same on every machine.
    work: usize,
}

impl<'a> Board<'a> {
    pub(super) fn new(problem: &'a Problem, owners: Vec<Id>) -> Self {
        let q = problem.q();
        let mut board = Self {
            problem,
            owners,
            lists: vec![Vec::with_capacity(problem.rule.n); q],
            reach: vec![0; q],
            load: vec![0; problem.members.len()],
            additions: 0,
            cost: Cost::default(),
            violated: Places::new(q),
            near: Places::new(q),
            crowding: Crowding::new(problem),
            work: 0,
        };
        board.cost.uneven = (0..board.load.len()).map(|member| board.unevenness(member)).sum();
        for p in 0..q {
            board.enter(p);
            board.check_near(p);
            board.crowding.enter(&board.owners, p);
        }
        board
    }

    pub(super) fn owners(&self) -> &[Id] {
        &self.owners
    }

    pub(super) fn cost(&self) -> Cost {
        Cost {
            violations: self.violated.items.len().saturating_sub(self.problem.violations_min),
            tight: self.near.items.len() + self.crowding.excess(),
            additions: self.additions.saturating_sub(self.problem.additions_min),
            ..self.cost
        }
    }

    pub(super) fn work(&self) -> usize {
        self.work
    }

    /// Partitions in violation.
    pub(super) fn violated(&self) -> &[usize] {
        &self.violated.items
    }

    /// Partitions whose n-th successor has the same owner.
    pub(super) fn near(&self) -> &[usize] {
        &self.near.items
    }

    /// How many partitions the walk from `p` looks at.
    pub(super) fn reach(&self, p: usize) -> usize {
        self.reach[p]
    }

    /// Changes the owner of a partition and everything that depends on it: the lists whose walk gets to `p`. The
    /// walk from a partition never ends behind that of the next one, so these are the ones just before `p`.
    pub(super) fn set(&mut self, p: usize, owner: Id) {
        let q = self.owners.len();
        let mut first = 0;
        while first + 1 < q && self.reach[(p + q - first - 1) % q] > first + 1 {
            first += 1;
        }
        for back in 0..=first {
            self.leave((p + q - back) % q);
        }
        let n = self.problem.rule.n;
        let around = (0..2 * n - 1).map(|step| (p + q + step - (n - 1)) % q);
        around.clone().for_each(|p| self.crowding.leave(&self.owners, p));
        self.owners[p] = owner;
        around.for_each(|p| self.crowding.enter(&self.owners, p));
        for back in 0..=first {
            self.enter((p + q - back) % q);
        }
        self.check_near(p);
        self.check_near((p + q - self.problem.rule.n % q) % q);
    }

    /// Takes the list of `p` out of the account.
    fn leave(&mut self, p: usize) {
        let list = std::mem::take(&mut self.lists[p]);
        for &member in &list {
            self.cost.uneven -= self.unevenness(member as usize);
            self.load[member as usize] -= 1;
            self.cost.uneven += self.unevenness(member as usize);
            self.additions -= usize::from(!self.problem.old_lists[p].contains(&member));
        }
        self.lists[p] = list;
    }

    /// Walks the list of `p` and takes it into account.
    fn enter(&mut self, p: usize) {
        let mut list = std::mem::take(&mut self.lists[p]);
        let reach = self.problem.rule.walk(&self.owners, p, &mut list);
        self.work += reach;
        for &member in &list {
            self.cost.uneven -= self.unevenness(member as usize);
            self.load[member as usize] += 1;
            self.cost.uneven += self.unevenness(member as usize);
            self.additions += usize::from(!self.problem.old_lists[p].contains(&member));
        }
        self.lists[p] = list;
        self.reach[p] = reach;
        self.violated.put(p, reach > self.problem.rule.n);
    }

    fn check_near(&mut self, p: usize) {
        let q = self.owners.len();
        let successor = self.owners[(p + self.problem.rule.n) % q];
        self.near.put(p, self.problem.near_matters && successor == self.owners[p]);
    }

    fn unevenness(&self, member: usize) -> usize {
        let load = self.load[member];
        let fair = &self.problem.fair;
        let off = load.saturating_sub(fair.load_max(member)) + fair.load_min(member).saturating_sub(load);
        off * off
    }
}

/// A set of partitions from which one can be drawn by position.
#[derive(Clone)]
pub(super) struct Places {
    items: Vec<usize>,
    /// Position of each partition in `items`, or `usize::MAX`.
    at: Vec<usize>,
}

impl Places {
    pub(super) fn new(q: usize) -> Self {
        Self { items: Vec::new(), at: vec![usize::MAX; q] }
    }

    pub(super) fn items(&self) -> &[usize] {
        &self.items
    }

    pub(super) fn has(&self, p: usize) -> bool {
        self.at[p] != usize::MAX
    }

    /// Puts the partition in or takes it out.
    pub(super) fn put(&mut self, p: usize, inside: bool) {
        if inside == self.has(p) {
            return;
        }
        if inside {
            self.at[p] = self.items.len();
            self.items.push(p);
            return;
        }
        let at = std::mem::replace(&mut self.at[p], usize::MAX);
        self.items.swap_remove(at);
        if let Some(&moved) = self.items.get(at) {
            self.at[moved] = at;
        }
    }
}

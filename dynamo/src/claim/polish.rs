//! Local search: exchanges that keep every quota and the number of moves, tried where something is not perfect.
//!
//! Two kinds of exchange do that. Two partitions that both got a new owner swap these. Or a partition goes back to
//! the member it was taken from, and the taker gets another partition of that member instead. An exchange that makes
//! nothing worse is kept, so the search can wander over plateaus.

use super::board::{Board, Places};
use crate::preference::{Id, UNOWNED};

/// Improves the arrangement until it is perfect or the work allowed is done.
pub(super) fn polish(board: &mut Board<'_>, seed: u64) {
    let mut polish = Polish::new(board, seed);
    let n = board.problem.rule.n;
    if polish.changed.items().is_empty() || board.problem.members.len() <= n {
        return;
    }
    // Most exchanges are tried near what is wrong, with any of the changed partitions.
    let stall_max = 8 * polish.changed.items().len() + 2000;
    // Walks are long where owners are far from spaced, and then there is less that an exchange can mend.
    let work_max = board.work() + 20 * stall_max * n * n;
    let (mut least, mut stalled) = (board.cost().total(), 0);
    while !board.cost().is_perfect() && stalled < stall_max && board.work() < work_max {
        polish.attempt(board);
        stalled += 1;
        if board.cost().total() < least {
            // What concerns only n + 1 in a row is not worth going on for.
            stalled = if least - board.cost().total() < 2 { stalled } else { 0 };
            least = board.cost().total();
        }
    }
}

/// How many exchanges are drawn for one that is tried.
const PROPOSALS: usize = 8;

/// Two partitions, each with its new owner.
type Exchange = ((usize, Id), (usize, Id));

struct Polish {
    /// Partitions with another owner than today's.
    changed: Places,
    /// Partitions of each member today.
    old_of: Vec<Vec<usize>>,
    random: Random,
}

impl Polish {
    fn new(board: &Board<'_>, seed: u64) -> Self {
        let problem = board.problem;
        let mut changed = Places::new(problem.q());
        let mut old_of = vec![Vec::new(); problem.members.len()];
        for (p, &old) in problem.old.iter().enumerate() {
            changed.put(p, old != board.owners()[p]);
            if old != UNOWNED {
                old_of[old as usize].push(p);
            }
        }
        Self { changed, old_of, random: Random(seed) }
    }

    /// Tries one exchange at a place that is not perfect, or anywhere if it is the loads or the moves that are not.
    fn attempt(&mut self, board: &mut Board<'_>) {
        let p = self.target(board);
        let n = board.problem.rule.n;
        // Where every zone is met once, looking whether an owner would fit is cheaper than trying it.
        let proposals = if board.problem.zones_once { PROPOSALS } else { 1 };
        let mut drawn = None;
        for _ in 0..proposals {
            drawn = self.exchange(board, p).or(drawn);
            if drawn.is_some_and(|(a, _)| board.problem.fits(board.owners(), p, a.1, n - 1)) {
                break;
            }
        }
        let Some((a, b)) = drawn else { return };
        let before = board.cost().total();
        let (old_a, old_b) = (board.owners()[a.0], board.owners()[b.0]);
        board.set(a.0, a.1);
        board.set(b.0, b.1);
        if before < board.cost().total() {
            board.set(b.0, old_b);
            board.set(a.0, old_a);
            return;
        }
        for p in [a.0, b.0] {
            self.changed.put(p, board.owners()[p] != board.problem.old[p]);
        }
    }

    fn target(&mut self, board: &Board<'_>) -> usize {
        let q = board.problem.q();
        let places = match self.random.below(4) {
            0 => &[],
            1 if !board.near().is_empty() => board.near(),
            _ if !board.violated().is_empty() => board.violated(),
            _ => board.near(),
        };
        if places.is_empty() {
            return self.changed.items()[self.random.below(self.changed.items().len())];
        }
        let p = places[self.random.below(places.len())];
        let reach = board.reach(p).max(board.problem.rule.n + 1);
        (p + self.random.below(reach)) % q
    }

    /// An exchange that gives partition `p` another owner: two partitions, each with its new owner.
    fn exchange(&mut self, board: &Board<'_>, p: usize) -> Option<Exchange> {
        let (owner, old) = (board.owners()[p], board.problem.old[p]);
        if !self.changed.has(p) {
            // It goes to someone who took another partition from its owner.
            let other = self.draw(owner, true)?;
            return Some(((p, board.owners()[other]), (other, owner)));
        }
        if old != UNOWNED && self.random.below(2) == 0 {
            let other = self.draw(old, false)?;
            return Some(((p, old), (other, owner)));
        }
        let other = self.changed.items()[self.random.below(self.changed.items().len())];
        let theirs = board.owners()[other];
        (theirs != owner).then_some(((p, theirs), (other, owner)))
    }

    /// One of the partitions that `member` owns today, among those that changed or those that did not.
    fn draw(&mut self, member: Id, changed: bool) -> Option<usize> {
        let partitions = &self.old_of[member as usize];
        (0..16).map(|_| partitions[self.random.below(partitions.len())]).find(|&p| self.changed.has(p) == changed)
    }
}

/// Random numbers from a constant seed: SplitMix64 (Steele, Lea and Flood 2014).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which must not be zero.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((u128::from(z) * bound as u128) >> 64) as usize
    }
}

//! What a seed decides: the cluster, the clients, and which faults there are and how often.

use dynamo::ring::Quorums;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// Most nodes that a run ever has.
pub const SLOTS: usize = 7;

/// Everything about a run that is decided before it begins.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Nodes that the cluster begins with.
    pub nodes: usize,
    /// Replication factor and quorums at the beginning; r + w > n always. n is raised at times, and never lower.
    pub quorums: Quorums,
    /// Partitions of the ring.
    pub partitions: u32,
    /// Step of the simulated network.
    pub tick: Duration,
    /// Longest time that a message takes while nothing is wrong.
    pub latency_max: Duration,
    /// Time that a commit takes.
    pub commit_time: Duration,
    /// How long clients work and faults happen.
    pub chaos: Duration,
    /// Clients at once.
    pub clients: usize,
    /// Different keys.
    pub keys: u32,
    /// Longest pause of a client between two operations.
    pub think_max: Duration,
    /// Longest time that a fault lasts.
    pub fault_lasts_max: Duration,
    /// Mean time between two faults.
    pub fault_pause: Duration,
    /// Pause of a node between two rounds over the hints that it holds.
    pub hint_pause: Duration,
    /// Pause of a node between two rounds of collecting what is dead.
    pub collect_pause: Duration,
    /// Of what is copied to a node, so many bytes may be on their way, however little there is: with many of them pages
    /// land as runs.
    pub pull_bytes_under_way_min: u64,
    /// Pause of the operator between two looks.
    pub operator_pause: Duration,
    /// Partitions that may move at once.
    pub parallel_moves: usize,
    /// Whether nodes lose power at the very moment when the operator hears that they have copied a partition.
    pub strikes: bool,
    /// Whether nodes to which pages are on their way are killed.
    pub kills_copying: bool,
    /// Faults that may happen, and their weights.
    pub faults: Vec<(Fault, u32)>,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process dies; its disk keeps what was written.
    Crash,
    /// A machine loses power; its disk keeps what was synced.
    PowerLoss,
    /// All machines lose power and come back one after the other.
    Blackout,
    /// A process is told to end and is started again.
    Restart,
    /// A node neither sends nor receives for a while, and what was sent arrives afterwards.
    Pause,
    /// Two halves cannot reach each other.
    Halves,
    /// One node can send to another and not receive from it.
    OneWay,
    /// Two halves see each other only through one node.
    Bridge,
    /// A link that goes and comes.
    Flapping,
    /// What two nodes send each other arrives only when it is over.
    Held,
    /// Links that lose messages.
    Loss,
    /// A link that is slow.
    Delay,
    /// A wall clock that is set to another time.
    Skew,
    /// A disk whose commits fail for a while.
    FailedCommits,
    /// A disk that is full for a while.
    DiskFull,
    /// A volume is destroyed: the node comes back with an empty one.
    VolumeLoss,
    /// A node is added to the cluster.
    ScaleOut,
    /// A node is taken from the cluster.
    ScaleIn,
    /// The replication factor is raised, or lowered again.
    Factor,
    /// The operator dies and comes back.
    OperatorCrash,
}

const ALL: [(Fault, u32); 19] = [
    (Fault::Crash, 4),
    (Fault::PowerLoss, 4),
    (Fault::Blackout, 1),
    (Fault::Restart, 2),
    (Fault::Pause, 3),
    (Fault::Halves, 2),
    (Fault::OneWay, 2),
    (Fault::Bridge, 1),
    (Fault::Flapping, 1),
    (Fault::Loss, 2),
    (Fault::Delay, 2),
    (Fault::Skew, 2),
    (Fault::FailedCommits, 2),
    (Fault::DiskFull, 1),
    (Fault::VolumeLoss, 1),
    (Fault::ScaleOut, 4),
    (Fault::ScaleIn, 3),
    (Fault::Factor, 2),
    (Fault::OperatorCrash, 1),
];

/// Two nodes that cannot speak to each other for long, while both can to all others: hints for those that the others see
/// well, and members of a list that are never all reached by one node.
const LONG_CUTS: [(Fault, u32); 7] = [
    (Fault::OneWay, 6),
    (Fault::Held, 8),
    (Fault::Bridge, 2),
    (Fault::Flapping, 2),
    (Fault::ScaleOut, 2),
    (Fault::ScaleIn, 2),
    (Fault::Factor, 1),
];

/// Little else than ring changes, for runs in which nodes lose power whenever they have copied something.
const MOVES: [(Fault, u32); 4] =
    [(Fault::ScaleOut, 4), (Fault::ScaleIn, 3), (Fault::Factor, 2), (Fault::PowerLoss, 1)];

/// Nodes that are away for long while the ring changes: hints for those who are no longer in the list, and lists of
/// another length.
const LONG_ABSENCES: [(Fault, u32); 5] =
    [(Fault::Crash, 4), (Fault::Halves, 4), (Fault::ScaleOut, 2), (Fault::ScaleIn, 3), (Fault::Factor, 4)];

impl Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = stream(seed, 1);
        let n = if rng.random_bool(0.8) { 3 } else { rng.random_range(2..=5) };
        let majority = n / 2 + 1;
        // r + w > n throughout. A write acknowledged by one disk may go with that disk: not here.
        let (r, w) = match rng.random_range(0..5) {
            0 => (1, n),
            1 => (n - 1, 2),
            _ => (majority, majority),
        };
        let nodes = rng.random_range(usize::from(n)..=6);
        let mut upkeep = stream(seed, 4);
        let mut scenario = Self {
            seed,
            nodes,
            quorums: Quorums { n, r, w, sloppy: rng.random_bool(0.7) },
            partitions: 16,
            tick: Duration::from_millis(*pick(&mut rng, &[2, 5])),
            latency_max: Duration::from_millis(*pick(&mut rng, &[3, 10, 40])),
            commit_time: Duration::from_millis(*pick(&mut rng, &[1, 3, 15, 60])),
            chaos: Duration::from_secs(rng.random_range(8..=16)),
            clients: rng.random_range(2..=5),
            keys: *pick(&mut rng, &[4, 16, 48]),
            think_max: Duration::from_millis(*pick(&mut rng, &[20, 100, 300])),
            fault_pause: Duration::from_millis(*pick(&mut rng, &[300, 600, 1200, 3000])),
            hint_pause: Duration::from_millis(*pick(&mut upkeep, &[500, 500, 4000, 12_000])),
            collect_pause: Duration::from_millis(*pick(&mut upkeep, &[50, 500])),
            pull_bytes_under_way_min: *pick(&mut stream(seed, 9), &[512 << 10, 16 << 20]),
            operator_pause: Duration::from_millis(*pick(&mut rng, &[50, 250, 1000])),
            parallel_moves: *pick(&mut rng, &[2, 8, 16]),
            fault_lasts_max: Duration::from_secs(4),
            strikes: false,
            kills_copying: false,
            faults: faults(&mut rng),
        };
        scenario.focus(&mut upkeep);
        scenario
    }

    /// Half of the seeds look more closely at something that is rare in the others.
    fn focus(&mut self, rng: &mut StdRng) {
        match self.seed % 8 {
            0 | 4 => {
                self.faults = LONG_CUTS.to_vec();
                self.fault_lasts_max = Duration::from_secs(12);
            }
            2 => {
                self.faults = MOVES.to_vec();
                self.strikes = true;
                self.kills_copying = self.seed % 16 == 2;
                // What is not yet on a disk when it is said to be stays so for long.
                self.commit_time = Duration::from_millis(*pick(rng, &[60, 150, 300]));
                self.operator_pause = Duration::from_millis(50);
            }
            6 => {
                self.faults = LONG_ABSENCES.to_vec();
                self.fault_lasts_max = Duration::from_secs(6);
                self.fault_pause = Duration::from_millis(*pick(rng, &[400, 1000]));
                (self.nodes, self.clients, self.keys) = (self.nodes.max(5), 5, 4);
                self.think_max = Duration::from_millis(20);
                self.hint_pause = Duration::from_secs(*pick(rng, &[2, 5]));
            }
            _ => {}
        }
    }
}

/// Some runs have every kind of fault, some a few, and some little else than ring changes with one other kind: what is
/// rare together is looked at alone as well.
fn faults(rng: &mut StdRng) -> Vec<(Fault, u32)> {
    let mut faults = ALL.to_vec();
    match rng.random_range(0..3) {
        0 => {}
        1 => faults.retain(|_| rng.random_bool(0.3)),
        _ => {
            let other = pick(rng, &ALL).0;
            faults.retain(|(fault, _)| {
                matches!(fault, Fault::ScaleOut | Fault::ScaleIn | Fault::Factor) || *fault == other
            });
            faults.iter_mut().for_each(|(fault, weight)| *weight = if *fault == other { 6 } else { 4 });
        }
    }
    faults
}

/// One of the streams of random numbers of a seed.
#[must_use]
pub fn stream(seed: u64, number: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.wrapping_mul(0xd134_2543_de82_ef95))
}

/// One of several.
///
/// # Panics
/// If there are none.
pub fn pick<'a, T>(rng: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}

//! What the planner itself costs in large clusters: pretended nodes that follow at once, real plans and documents.
//!
//! `cargo run --release -p dynamo --example plan`

use dynamo::moves::{self, Pace, Report, Reports, Step, Wanted, Wish};
use dynamo::ring::{Phase, Quorums, Ring, from_json, to_json};
use dynamo::token::{HashKey, PartitionCount};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use uuid::Uuid;

const ZONES: u32 = 3;
const LEGEND: &str = "\
n = 3, members in three zones, default pace. Each change is planned to its end by the same code as in the operator:
  members    before and after
  first      time until the first document with moves: target lists and the first moves
  documents  documents published, the largest in KiB, time to write and read it
  longest    longest time to plan any one of them
  all        time of all plans together
  moved/min  replicas moved, divided by the least that an even distribution allows
  memory     the most that this process has had so far, in MiB";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{LEGEND}\n");
    println!(
        "{:>6}  {:>13}  {:>9}  {:>9}  {:>8}  {:>9}  {:>9}  {:>9}  {:>9}  {:>6}",
        "Q", "members", "first", "documents", "KiB", "text", "longest", "all", "moved/min", "memory"
    );
    for (partitions, changes) in
        [(4096, &[(100, 101), (100, 110), (100, 90)][..]), (16_384, &[(1000, 1001), (1000, 1100), (1000, 900)])]
    {
        for &(from, to) in changes {
            let ring = moves::create(Uuid::from_u128(7), HashKey([1; 16]), &wish(partitions, from)?)?;
            let cost = change(ring, &wish(partitions, to)?)?;
            println!("{partitions:>6}  {:>13}  {cost}", format!("{from} → {to}"));
        }
    }
    Ok(())
}

#[derive(Default)]
struct Cost {
    first: Duration,
    longest: Duration,
    all: Duration,
    documents: u32,
    bytes: usize,
    text: Duration,
    moved: u32,
    moved_min: u32,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
        let ratio = f64::from(self.moved) / f64::from(self.moved_min);
        write!(
            f,
            "{:>9}  {:>9}  {:>8}  {:>9}  {:>9}  {:>9}  {ratio:>9.3}  {:>6}",
            ms(self.first),
            self.documents,
            self.bytes >> 10,
            ms(self.text),
            ms(self.longest),
            ms(self.all),
            memory_max_mib(),
        )
    }
}

/// Plans until nothing is left to do.
fn change(mut ring: Ring, wish: &Wish) -> Result<Cost, Box<dyn std::error::Error>> {
    let mut cost = Cost::default();
    loop {
        let reports = all_follow(&ring);
        let began = Instant::now();
        let step = moves::advance(&ring, wish, &reports, Pace::default())?;
        let took = began.elapsed();
        cost.all += took;
        cost.longest = cost.longest.max(took);
        let Step::Publish(next, change) = step else {
            let settled = matches!(step, Step::Settled);
            return if settled { Ok(cost) } else { Err(format!("{step:?} although all follow").into()) };
        };
        if cost.moved == 0 {
            cost.first += took;
        }
        if let Some(target) = next.target.as_ref().filter(|_| change.retargeted) {
            (cost.moved, cost.moved_min) = (target.replica_moves, target.replica_moves_min);
        }
        let began = Instant::now();
        let text = to_json(&next);
        ring = from_json(text.as_bytes())?;
        cost.documents += 1;
        if text.len() > cost.bytes {
            (cost.bytes, cost.text) = (text.len(), began.elapsed());
        }
    }
}

/// Every node has installed the ring and copied what it says.
fn all_follow(ring: &Ring) -> Reports {
    let mut synced: BTreeMap<_, BTreeSet<(u32, u64)>> = BTreeMap::new();
    for (partition, placement) in (0..).zip(&ring.partitions) {
        if let Some(also) = placement.also.as_ref().filter(|also| also.phase == Phase::Filling) {
            for member in &also.list {
                synced.entry(*member).or_default().insert((partition, placement.since));
            }
        }
    }
    let report = |member: &dynamo::ring::Member| {
        let synced = synced.get(&member.index).cloned().unwrap_or_default();
        (member.incarnation, Report { epoch: ring.epoch, synced, ..Report::default() })
    };
    ring.members.iter().map(report).collect()
}

fn wish(partitions: u32, members: u32) -> Result<Wish, Box<dyn std::error::Error>> {
    let wanted = |number: u32| Wanted {
        incarnation: Uuid::from_u128(u128::from(number) + 1),
        name: format!("demo-{number}"),
        peer_address: format!("demo-{number}.demo-nodes.default.svc:7400"),
        client_address: format!("demo-{number}.demo-nodes.default.svc:6379"),
        zone: Some(format!("zone-{}", number % ZONES)),
        weight: 1,
    };
    Ok(Wish {
        partitions: PartitionCount::new(partitions)?,
        quorums: Quorums { n: 3, r: 2, w: 2, sloppy: true },
        members: (0..members).map(wanted).collect(),
        gone: BTreeSet::new(),
    })
}

fn memory_max_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) >> 10
}

//! What changes of size cost: the claim beside naive modulo, random tokens and jump hash.
//!
//! `cargo run --release -p dynamo --example claim`

use dynamo::claim::{Candidate, claim, replica_moves, replica_moves_minimum};
use dynamo::preference::{MemberIndex, Zone, preference_lists};
use dynamo::token::{HashKey, PartitionCount, Token};
use std::time::Instant;

const N: usize = 3;
const Q: u32 = 1024;
const KEYS: u64 = 65_536;
const TOKENS_PER_NODE: u64 = 256;

const LEGEND: &str = "\
n = 3, Q = 1024 partitions. Members leave in the reverse order of joining. For each scheme:
  owners    first replicas that change node, divided by the least that an even distribution allows
  replicas  copies that a node has to receive, divided by the least that an even distribution allows
  max/mean  replicas of the fullest node after the change, divided by the mean
  spacing   partitions whose list is not simply the next n owners (the claim only)
The claim is exact; the others are measured on 65536 keys. Schemes:
  claim     Annulus without zones
  zones     Annulus with its members in three zones: replicas in distinct zones, even within each zone, so
            max/mean shows how uneven the zones are (5 members in 3 zones: 2 + 2 + 1)
  modulo    hash mod S, and the next n - 1 nodes by number
  tokens    consistent hashing with 256 random tokens for each node (Karger 1997, Dynamo's strategy 1)
  jump      jump hash (Lamping and Veach 2014), and the next n - 1 nodes by number
";

const CHANGES: [(usize, usize); 11] =
    [(3, 4), (3, 5), (3, 6), (5, 3), (5, 4), (6, 5), (10, 7), (7, 14), (16, 17), (99, 100), (100, 99)];

/// One scheme's measures for one change.
struct Row {
    owners: f64,
    replicas: f64,
    max_to_mean: f64,
    spacing: Option<usize>,
}

fn main() {
    println!("{LEGEND}");
    println!(
        "{:>10}  {:<8}{:>8}{:>10}{:>10}{:>9}",
        "change", "scheme", "owners", "replicas", "max/mean", "spacing"
    );
    for (from, to) in CHANGES {
        let label = format!("{from} → {to}");
        let plain = annulus(from, to, 0);
        print(&label, "claim", &plain.0);
        print("", "zones", &annulus(from, to, 3).0);
        let least = plain.1;
        print("", "modulo", &keys(from, to, least, &modulo));
        print("", "tokens", &keys(from, to, least, &tokens));
        print("", "jump", &keys(from, to, least, &jump));
    }
    timing();
}

fn print(change: &str, scheme: &str, row: &Row) {
    let spacing = row.spacing.map_or(String::new(), |violations| violations.to_string());
    let Row { owners, replicas, max_to_mean, .. } = row;
    println!("{change:>10}  {scheme:<8}{owners:>8.3}{replicas:>10.3}{max_to_mean:>10.3}{spacing:>9}");
}

/// The least that moves, as fractions of all keys and of all replicas.
type Least = (f64, f64);

fn members(count: usize, zones: u16) -> Vec<Candidate> {
    let zone = |index: u16| (zones > 0).then(|| index % zones);
    (0..count as u16).map(|index| Candidate { index: MemberIndex(index), weight: 1, zone: zone(index) }).collect()
}

fn annulus(from: usize, to: usize, zones: u16) -> (Row, Least) {
    let zone_of = |index: MemberIndex| -> Zone { (zones > 0).then(|| index.0 % zones) };
    let old = owners(&[None; Q as usize], from, zones);
    let current: Vec<Option<MemberIndex>> = old.iter().copied().map(Some).collect();
    let Ok(new) = claim(&current, count(Q), &members(to, zones), N) else { unreachable!("members are distinct") };
    let moves = replica_moves(&old, &new.owners, N, &zone_of);
    let moves_min = replica_moves_minimum(&old, &members(to, zones), N, &zone_of);
    let lists = preference_lists(&new.owners, N, &zone_of);
    let lists = lists.iter().map(|list| list.iter().map(|index| usize::from(index.0)).collect()).collect();
    let row = Row {
        owners: new.moved as f64 / new.moved_min as f64,
        replicas: moves as f64 / moves_min as f64,
        max_to_mean: max_to_mean(to, lists),
        spacing: Some(new.spacing_violations),
    };
    (row, (new.moved_min as f64 / f64::from(Q), moves_min as f64 / (N as f64 * f64::from(Q))))
}

fn owners(current: &[Option<MemberIndex>], size: usize, zones: u16) -> Vec<MemberIndex> {
    let claim = claim(current, count(current.len() as u32), &members(size, zones), N);
    claim.map(|claim| claim.owners).unwrap_or_default()
}

fn count(q: u32) -> PartitionCount {
    let Ok(count) = PartitionCount::new(q) else { unreachable!("a power of two") };
    count
}

/// A scheme: the nodes of each of some hashes, in a cluster of a size.
type Scheme = dyn Fn(&[u64], usize) -> Vec<Vec<usize>>;

fn keys(from: usize, to: usize, least: Least, scheme: &Scheme) -> Row {
    let hashes: Vec<u64> = (0..KEYS).map(|key| hash(&[0, key])).collect();
    let (old, new) = (scheme(&hashes, from), scheme(&hashes, to));
    let owners = old.iter().zip(&new).filter(|(old, new)| old[0] != new[0]).count() as f64;
    let added = |(old, new): (&Vec<usize>, &Vec<usize>)| new.iter().filter(|node| !old.contains(node)).count();
    let replicas = old.iter().zip(&new).map(added).sum::<usize>() as f64;
    Row {
        owners: owners / KEYS as f64 / least.0,
        replicas: replicas / (N as f64 * KEYS as f64) / least.1,
        max_to_mean: max_to_mean(to, new),
        spacing: None,
    }
}

fn max_to_mean(size: usize, lists: Vec<Vec<usize>>) -> f64 {
    let mut loads = vec![0_usize; size];
    lists.iter().flatten().for_each(|&node| loads[node] += 1);
    let max = loads.iter().copied().max().unwrap_or_default();
    (max * size) as f64 / loads.iter().sum::<usize>() as f64
}

/// SipHash-1-3 of some numbers, under a constant key: 50 bits, spread over 64.
fn hash(numbers: &[u64]) -> u64 {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    let token = Token::of(&HashKey([7; 16]), &bytes).0;
    token.rotate_left(14)
}

fn next_by_number(first: usize, size: usize) -> Vec<usize> {
    (0..N.min(size)).map(|step| (first + step) % size).collect()
}

fn modulo(hashes: &[u64], size: usize) -> Vec<Vec<usize>> {
    hashes.iter().map(|hash| next_by_number((hash % size as u64) as usize, size)).collect()
}

fn jump(hashes: &[u64], size: usize) -> Vec<Vec<usize>> {
    let bucket = |mut key: u64| {
        let (mut bucket, mut next) = (0, 0_u64);
        while next < size as u64 {
            bucket = next;
            key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
            next = ((bucket + 1) as f64 * ((1_u64 << 31) as f64 / ((key >> 33) + 1) as f64)) as u64;
        }
        bucket as usize
    };
    hashes.iter().map(|&hash| next_by_number(bucket(hash), size)).collect()
}

fn tokens(hashes: &[u64], size: usize) -> Vec<Vec<usize>> {
    let mut ring: Vec<(u64, usize)> = (0..size)
        .flat_map(|node| (0..TOKENS_PER_NODE).map(move |token| (hash(&[1, node as u64, token]), node)))
        .collect();
    ring.sort_unstable();
    let nodes = |&hash: &u64| {
        let start = ring.partition_point(|&(token, _)| token < hash);
        let mut list: Vec<usize> = Vec::with_capacity(N);
        for &(_, node) in ring[start..].iter().chain(&ring[..start]) {
            if list.len() < N && !list.contains(&node) {
                list.push(node);
            }
        }
        list
    };
    hashes.iter().map(nodes).collect()
}

fn timing() {
    println!("\nTime of one claim, Q = 4096, 3 zones:");
    let mut current = vec![None; 4096];
    for size in [100, 101, 100, 110, 100, 50] {
        let start = Instant::now();
        let owners = owners(&current, size, 3);
        let from = if current[0].is_none() { "nothing".to_owned() } else { "there".to_owned() };
        println!("  from {from} to {size} members: {:.1} ms", start.elapsed().as_secs_f64() * 1000.0);
        current = owners.into_iter().map(Some).collect();
    }
}

//! The storage of a node on a real disk: crashes, full disks, two processes on one directory.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test ends at what it does not expect")]

use annulus_node::config::Limits;
use annulus_node::storage::{
    Births, Change, Committer, DataDirectory, DirectoryError, Engine, FjallEngine, FjallOptions, ScanRange, Space,
    StorageError,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const WRITERS: u64 = 8;
const KEYS_OF_WRITER: u64 = 300;
const DIRECTORY: &str = "ANNULUS_TEST_STORAGE_DIRECTORY";
const FIRST: &str = "ANNULUS_TEST_STORAGE_FIRST";

/// Small tables, so that a second of writing flushes and compacts many times over.
fn options() -> FjallOptions {
    FjallOptions { write_buffer_bytes: 2 << 20, journal_bytes_max: 64 << 20, ..FjallOptions::default() }
}

fn key(writer: u64, number: u64) -> Bytes {
    let token = (number % KEYS_OF_WRITER).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Bytes::from([token.to_be_bytes(), writer.to_be_bytes()].concat())
}

fn value(number: u64) -> Option<Bytes> {
    let mut value = number.to_be_bytes().to_vec();
    value.resize(100 + usize::try_from(number % 1900).unwrap(), number as u8);
    (!number.is_multiple_of(7)).then(|| Bytes::from(value))
}

/// What a number tells its writer to do: two changes that must stand or fall together.
fn changes(writer: u64, number: u64) -> [Change; 2] {
    let key = key(writer, number);
    [Space::Data, Space::Hints].map(|space| match value(number) {
        Some(value) => Change::Put { space, key: key.clone(), value },
        None => Change::Remove { space, key: key.clone() },
    })
}

/// Not a test: the process that others here start and kill. Says what is durable, one line each.
#[test]
#[ignore = "run by other tests as a process of its own"]
fn writer_process() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let first = std::env::var(FIRST).unwrap();
    let first: Vec<u64> = first.split(',').map(|number| number.parse().unwrap()).collect();
    let directory = DataDirectory::open(Path::new(&directory)).unwrap();
    let engine: Arc<dyn Engine> = Arc::new(FjallEngine::open(&directory.data(), &options()).unwrap());
    let births = Births::open(engine.clone(), std::process::id() % 3).unwrap();
    println!("birth {}", births.next());
    let committer = Committer::start(engine, &Limits::default(), |_, _| {}).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let write = |writer: u64, first: u64| {
            let committer = committer.clone();
            tokio::spawn(async move {
                for number in first.. {
                    let changes = changes(writer, number);
                    let bytes = changes.iter().map(Change::len_bytes).sum();
                    let reservation = committer.reserve(bytes).await.unwrap();
                    committer.submit(changes, reservation).await.unwrap();
                    println!("ack {writer} {number}");
                }
            })
        };
        let writers: Vec<_> = (0..WRITERS).zip(first).map(|(writer, first)| write(writer, first)).collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

/// A process that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_writer(directory: &Path, first: &[u64]) -> (Running, impl Iterator<Item = String>) {
    let first: Vec<String> = first.iter().map(u64::to_string).collect();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer_process", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(FIRST, first.join(","))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    (Running(child), lines)
}

#[derive(Default)]
struct Said {
    acked: Vec<u64>,
    births: Vec<u64>,
    acks: u64,
}

/// Lets the writer run, kills it without warning, and takes down everything it said.
fn kill_after(directory: &Path, run: Duration, said: &mut Said) -> u64 {
    let first: Vec<u64> = said.acked.iter().map(|acked| acked + 1).collect();
    let (running, lines) = start_writer(directory, &first);
    let killer = std::thread::spawn(move || {
        std::thread::sleep(run);
        drop(running);
    });
    let before = said.acks;
    for line in lines {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["ack", writer, number] => {
                let acked = &mut said.acked[writer.parse::<usize>().unwrap()];
                *acked = number.parse().unwrap();
                said.acks += 1;
            }
            [.., "birth", birth] => said.births.push(birth.parse().unwrap()),
            _ => {}
        }
    }
    killer.join().unwrap();
    said.acks - before
}

/// Compares what is stored with what was said.
fn verify(directory: &Path, acked: &[u64]) {
    let directory = DataDirectory::open(directory).unwrap();
    let engine = FjallEngine::open(&directory.data(), &options()).unwrap();
    for (writer, &acked) in (0..).zip(acked) {
        let mut expected: BTreeMap<Bytes, u64> = BTreeMap::new();
        for number in (acked + 1).saturating_sub(KEYS_OF_WRITER).max(1)..=acked {
            expected.insert(key(writer, number), number);
        }
        // The number behind the last that was acknowledged was submitted perhaps, and perhaps stored.
        let perhaps = key(writer, acked + 1);
        let stored = engine.get(Space::Data, &perhaps).unwrap();
        assert_eq!(stored, engine.get(Space::Hints, &perhaps).unwrap(), "half of a submit was stored");
        if stored == value(acked + 1) {
            expected.remove(&perhaps);
        }
        for (key, number) in expected {
            for space in [Space::Data, Space::Hints] {
                let stored = engine.get(space, &key).unwrap();
                assert!(stored == value(number), "writer {writer}: {number} is lost, {acked} was acknowledged");
            }
        }
    }
    // After a kill the engine must still take writes.
    let started = Instant::now();
    let probe = Change::Put { space: Space::Meta, key: Bytes::from_static(b"probe"), value: Bytes::new() };
    engine.commit(&[probe]).unwrap();
    assert!(started.elapsed() < Duration::from_secs(20), "a commit was stuck after a kill");
}

#[test]
fn acknowledged_writes_survive_kills() {
    let cycles: u64 = std::env::var("ANNULUS_CRASH_CYCLES").map_or(8, |cycles| cycles.parse().unwrap());
    let place = tempfile::tempdir().unwrap();
    let mut said = Said { acked: vec![0; usize::try_from(WRITERS).unwrap()], ..Said::default() };
    for cycle in 0..cycles {
        // Some kills come while the engine is still opening, or has just begun to write.
        let run = Duration::from_millis(match cycle % 4 {
            0 => 1500,
            1 => 20 + cycle * 37 % 200,
            2 => 400,
            _ => 900,
        });
        let acks = kill_after(place.path(), run, &mut said);
        println!("cycle {cycle}: {acks} acknowledged in {run:?}");
        verify(place.path(), &said.acked);
    }
    assert!(said.acked.iter().all(|&acked| acked > cycles), "the writers hardly wrote: {:?}", said.acked);
    let distinct: BTreeSet<u64> = said.births.iter().copied().collect();
    assert_eq!(distinct.len(), said.births.len(), "a birth was handed out twice");
}

#[test]
fn a_directory_whose_first_start_was_killed_opens() {
    for run in (0..60).step_by(5).map(Duration::from_millis) {
        let place = tempfile::tempdir().unwrap();
        let mut said = Said { acked: vec![0; usize::try_from(WRITERS).unwrap()], ..Said::default() };
        kill_after(place.path(), run, &mut said);
        verify(place.path(), &said.acked);
    }
}

#[test]
fn two_processes_cannot_have_one_directory() {
    let place = tempfile::tempdir().unwrap();
    let (running, mut lines) = start_writer(place.path(), &[1; 8]);
    assert!(lines.any(|line| line.starts_with("ack")), "the writer ended");
    let refused = DataDirectory::open(place.path()).unwrap_err();
    assert!(matches!(refused, DirectoryError::InUse(_)), "{refused}");
    drop(running);
    DataDirectory::open(place.path()).unwrap();
}

#[test]
fn scans_go_through_a_range_in_order_page_by_page() {
    let place = tempfile::tempdir().unwrap();
    let engine = FjallEngine::open(place.path(), &options()).unwrap();
    let key = |token: u64, name: &str| Bytes::from([&token.to_be_bytes(), name.as_bytes()].concat());
    let tokens = [0, 1, 2, u64::MAX - 1, u64::MAX];
    let names = ["", "a", "b\u{ff}", "\u{10ffff}"];
    for token in tokens {
        let value = Bytes::from(vec![token as u8; 5000]);
        let put = |name: &&str| Change::Put { space: Space::Data, key: key(token, name), value: value.clone() };
        engine.commit(&names.iter().map(put).collect::<Vec<_>>()).unwrap();
    }
    let all = |first, last, items_max, bytes_max| {
        let mut range = ScanRange::tokens(first, last);
        let mut keys = Vec::new();
        loop {
            let page = engine.scan(Space::Data, &range, items_max, bytes_max).unwrap();
            assert!(page.items.len() <= items_max.max(1));
            range.after = page.items.last().map(|(key, _)| key.clone());
            keys.extend(page.items.into_iter().map(|(key, _)| key));
            if !page.more {
                return keys;
            }
        }
    };
    for (first, last) in [(0, u64::MAX), (0, 0), (1, 2), (2, u64::MAX - 1), (u64::MAX, u64::MAX), (3, 9)] {
        let inside = tokens.iter().filter(|token| (first..=last).contains(*token));
        let expected: Vec<_> = inside.flat_map(|&token| names.map(|name| key(token, name))).collect();
        for (items_max, bytes_max) in [(100, usize::MAX), (3, usize::MAX), (1, 1), (0, 0), (100, 6000)] {
            assert_eq!(all(first, last, items_max, bytes_max), expected, "{first}..={last} by {items_max}");
        }
    }
    let turned = ScanRange { until: Some(Bytes::from_static(b"a")), ..ScanRange::prefix(b"b") };
    assert!(engine.scan(Space::Data, &turned, 10, 10).unwrap().items.is_empty());
    let spent = ScanRange { after: Some(key(9, "")), ..ScanRange::tokens(0, 2) };
    assert!(engine.scan(Space::Data, &spent, 10, 10).unwrap().items.is_empty());
    assert_eq!(ScanRange::prefix(&[1, 255, 255]).until.unwrap().as_ref(), [2]);
    assert_eq!(ScanRange::prefix(&[255, 255]).until, None);
}

#[test]
fn a_key_that_the_engine_cannot_hold_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    let engine = FjallEngine::open(place.path(), &options()).unwrap();
    for (bytes, taken) in [(0, false), (1, true), (65_535, true), (65_536, false)] {
        let key = Bytes::from(vec![1; bytes]);
        let put = Change::Put { space: Space::Data, key: key.clone(), value: Bytes::from_static(b"v") };
        assert_eq!(engine.commit(&[put]).is_ok(), taken, "{bytes} bytes");
        if taken {
            assert_eq!(engine.get(Space::Data, &key).unwrap().unwrap(), "v");
        }
    }
}

/// A file system of its own in memory, gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> Result<Self, String> {
        let place = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"])
            .arg(place.path())
            .output()
            .map_err(|error| error.to_string())?;
        if mount.status.success() { Ok(Self(place)) } else { Err(String::from_utf8_lossy(&mount.stderr).into()) }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// 10,000 bytes that do not compress (xorshift).
fn noise(number: u64) -> Bytes {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    std::iter::repeat_with(next).take(1250).flatten().collect()
}

async fn write_noise(committer: &Committer, number: u64) -> Result<(), StorageError> {
    let key = Bytes::copy_from_slice(&number.to_be_bytes());
    let reservation = committer.reserve(10_000).await?;
    committer.submit([Change::Put { space: Space::Data, key, value: noise(number) }], reservation).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_serves_reads_and_takes_writes_when_there_is_room() {
    let disk = match SmallDisk::mount(256 << 20) {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped: a small file system cannot be mounted here: {reason}"),
    };
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![1; 48 << 20]).unwrap();
    let engine = Arc::new(FjallEngine::open(&disk.0.path().join("data"), &options()).unwrap());
    let limits = Limits { disk_reserve_bytes: 64 << 20, ..Limits::default() };
    let committer = Committer::start(engine.clone(), &limits, |_, _| {}).unwrap();
    let mut stored = 0;
    let refused = loop {
        match write_noise(&committer, stored).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 26_000, "more than the disk holds");
    };
    println!("{stored} values of 10,000 bytes stored, then: {refused}");
    assert!(matches!(refused, StorageError::DiskFull { .. }), "{refused}");
    // Background work goes on in what was kept in reserve.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!committer.is_broken());
    for number in 0..stored {
        let read = engine.get(Space::Data, &number.to_be_bytes()).unwrap();
        assert!(read == Some(noise(number)), "{number} is not as it was stored");
    }
    let key = Bytes::copy_from_slice(&0_u64.to_be_bytes());
    let upkeep = committer.reserve_control().await;
    committer.submit([Change::Remove { space: Space::Data, key }], upkeep).await.unwrap();
    std::fs::remove_file(&ballast).unwrap();
    write_noise(&committer, 0).await.unwrap();
    committer.close().await;
}

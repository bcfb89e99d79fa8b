use super::*;
use crate::storage::engine::KEY_BYTES_MAX;
use crate::storage::{DiskSpace, MemoryEngine, Space};
use bytes::Bytes;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

/// An engine whose commits wait for a permission each, so that a test decides what gathers behind them.
struct Gated {
    memory: MemoryEngine,
    permissions: Mutex<mpsc::Receiver<()>>,
    batches: Mutex<Vec<usize>>,
}

impl Engine for Gated {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, crate::storage::EngineError> {
        self.memory.get(space, key)
    }

    fn commit(&self, changes: &[Change]) -> Result<(), crate::storage::EngineError> {
        self.batches.lock().push(changes.len());
        self.permissions.lock().recv().unwrap();
        self.memory.commit(changes)
    }

    fn scan(
        &self,
        space: Space,
        range: &crate::storage::ScanRange,
        items_max: usize,
        bytes_max: usize,
    ) -> Result<crate::storage::Page, crate::storage::EngineError> {
        self.memory.scan(space, range, items_max, bytes_max)
    }

    fn disk(&self) -> Result<DiskSpace, crate::storage::EngineError> {
        self.memory.disk()
    }

    fn health(&self) -> Result<(), crate::storage::EngineError> {
        self.memory.health()
    }
}

fn gated() -> (Arc<Gated>, mpsc::Sender<()>) {
    let (permit, permissions) = mpsc::channel();
    let memory = MemoryEngine::new();
    (Arc::new(Gated { memory, permissions: Mutex::new(permissions), batches: Mutex::default() }), permit)
}

fn put(key: &str, value: &str) -> Change {
    let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    Change::Put { space: Space::Data, key, value }
}

fn is_pending(submitted: &mut Submitted) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    std::pin::Pin::new(submitted).poll(&mut context) == Poll::Pending
}

/// Waits until the committer has begun a batch.
fn wait_for_batches(engine: &Gated, batches: usize) {
    while engine.batches.lock().len() < batches {
        std::thread::yield_now();
    }
}

async fn submit(committer: &Committer, change: Change) -> Submitted {
    let reservation = committer.reserve(change.len_bytes()).await.unwrap();
    committer.submit([change], reservation)
}

#[tokio::test]
async fn what_comes_during_a_flush_is_one_batch_in_the_order_of_its_coming() {
    let (engine, permit) = gated();
    let (heard, hears) = mpsc::channel();
    let tell = move |changes: &[Change], outcome: &Result<(), StorageError>| {
        heard.send((changes.len(), outcome.is_ok())).unwrap();
    };
    let committer = Committer::start(engine.clone(), &Limits::default(), tell).unwrap();
    let mut first = submit(&committer, put("a", "0")).await;
    wait_for_batches(&engine, 1);
    let mut later = Vec::new();
    for number in 1..=100 {
        later.push(submit(&committer, put("a", &number.to_string())).await);
    }
    assert!(is_pending(&mut first) && later.iter_mut().all(is_pending));
    permit.send(()).unwrap();
    first.await.unwrap();
    assert_eq!(hears.recv().unwrap(), (1, true), "the callback comes before those who wait are told");
    assert!(later.iter_mut().all(is_pending));
    permit.send(()).unwrap();
    for submitted in later {
        submitted.await.unwrap();
    }
    assert_eq!(*engine.batches.lock(), [1, 100]);
    assert_eq!(engine.get(Space::Data, b"a").unwrap().unwrap(), "100");
    assert_eq!(committer.stats().changes.load(std::sync::atomic::Ordering::Relaxed), 101);
    committer.close().await;
}

#[tokio::test]
async fn a_batch_is_bounded_and_a_barrier_waits_for_all_before_it() {
    let (engine, permit) = gated();
    let committer = Committer::start(engine.clone(), &Limits::default(), |_, _| {}).unwrap();
    let changes = queue::BATCH_CHANGES_MAX * 2 + 10;
    let first = submit(&committer, put("first", "")).await;
    wait_for_batches(&engine, 1);
    for number in 0..changes {
        drop(submit(&committer, put(&format!("{number:05}"), "")).await);
    }
    let mut barrier = committer.barrier();
    for _ in 0..3 {
        assert!(is_pending(&mut barrier));
        permit.send(()).unwrap();
    }
    first.await.unwrap();
    wait_for_batches(&engine, 4);
    assert!(is_pending(&mut barrier));
    permit.send(()).unwrap();
    barrier.await.unwrap();
    assert_eq!(engine.memory.len(Space::Data), changes + 1);
    assert_eq!(*engine.batches.lock(), [1, queue::BATCH_CHANGES_MAX, queue::BATCH_CHANGES_MAX, 10]);
}

#[tokio::test]
async fn the_queue_is_bounded_in_bytes() {
    let (engine, permit) = gated();
    let limits = Limits { commit_queue_bytes_max: 1000, ..Limits::default() };
    let committer = Committer::start(engine, &limits, |_, _| {}).unwrap();
    let reservation = committer.reserve(600).await.unwrap();
    let refused = committer.try_reserve(500).err();
    assert_eq!(refused, Some(StorageError::Overloaded { bytes: 500 }));
    drop(committer.try_reserve(400).unwrap());
    let written = committer.submit([put("a", "b")], reservation);
    assert_eq!(committer.queued_bytes(), 600);
    let waiting = tokio::spawn({
        let committer = committer.clone();
        async move { committer.reserve(5000).await.map(|_| ()) }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "a write larger than the queue waits for all of it");
    let upkeep = committer.reserve_control().await;
    let upkeep = committer.submit([put("u", "")], upkeep);
    permit.send(()).unwrap();
    written.await.unwrap();
    waiting.await.unwrap().unwrap();
    permit.send(()).unwrap();
    upkeep.await.unwrap();
    assert_eq!(committer.queued_bytes(), 0);
}

#[tokio::test]
async fn a_failed_commit_fails_what_was_queued_behind_it_and_nothing_later() {
    let (engine, permit) = gated();
    let failed = Arc::new(Mutex::new(Vec::new()));
    let tell = {
        let failed = failed.clone();
        move |changes: &[Change], outcome: &Result<(), StorageError>| {
            if outcome.is_err() {
                failed.lock().extend(changes.iter().map(|change| change.key().clone()));
            }
        }
    };
    let committer = Committer::start(engine.clone(), &Limits::default(), tell).unwrap();
    engine.memory.fail_commits(1);
    let first = submit(&committer, put("a", "1")).await;
    wait_for_batches(&engine, 1);
    let behind = submit(&committer, put("b", "built on a")).await;
    permit.send(()).unwrap();
    assert!(matches!(first.await, Err(StorageError::Failed(_))));
    assert!(matches!(behind.await, Err(StorageError::Failed(_))));
    assert_eq!(*failed.lock(), ["a", "b"]);
    let later = submit(&committer, put("c", "3")).await;
    permit.send(()).unwrap();
    later.await.unwrap();
    assert_eq!(engine.memory.len(Space::Data), 1);
    assert!(!committer.is_broken());
}

#[tokio::test]
async fn a_full_disk_refuses_data_lets_upkeep_through_and_recovers_by_itself() {
    let engine = Arc::new(MemoryEngine::new());
    let limits = Limits { disk_reserve_bytes: 1000, ..Limits::default() };
    let disk = |bytes_free| engine.set_disk(DiskSpace { bytes_free, bytes_total: 5000 });
    disk(2000);
    let committer = Committer::start(engine.clone(), &limits, |_, _| {}).unwrap();
    submit(&committer, put("a", "1")).await.await.unwrap();
    let early = committer.reserve(10).await.unwrap();
    disk(1001);
    let refused = committer.submit([put("b", "")], early).await;
    let full = StorageError::DiskFull { bytes_free: 1001, bytes_reserved: 1000 };
    assert_eq!(refused, Ok(()), "one byte fits");
    let early = committer.reserve(10).await.unwrap();
    let refused = committer.submit([put("c", "3")], early).await;
    assert_eq!(refused, Err(full), "the batch itself would eat into the reserve");
    disk(999);
    assert!(matches!(committer.reserve(1).await.err(), Some(StorageError::DiskFull { bytes_free: 999, .. })));
    assert!(committer.is_disk_full() && !committer.is_broken());
    assert_eq!(engine.get(Space::Data, b"a").unwrap().unwrap(), "1", "reads go on");
    let remove = || Change::Remove { space: Space::Data, key: Bytes::from_static(b"a") };
    let upkeep = committer.reserve_control().await;
    committer.submit([remove()], upkeep).await.unwrap();
    disk(200);
    let upkeep = committer.reserve_control().await;
    let refused = committer.submit([remove()], upkeep).await;
    assert_eq!(refused, Err(StorageError::DiskFull { bytes_free: 200, bytes_reserved: 250 }));
    disk(2000);
    submit(&committer, put("d", "4")).await.await.unwrap();
    assert!(!committer.is_disk_full());
    assert_eq!(engine.len(Space::Data), 2);
}

#[tokio::test]
async fn a_broken_engine_ends_all_waiting() {
    let engine = Arc::new(MemoryEngine::new());
    let limits = Limits { commit_queue_bytes_max: 100, ..Limits::default() };
    let committer = Committer::start(engine.clone(), &limits, |_, _| {}).unwrap();
    let all = committer.reserve(100).await.unwrap();
    let waiting = tokio::spawn({
        let committer = committer.clone();
        async move { committer.reserve(1).await.map(|_| ()) }
    });
    tokio::task::yield_now().await;
    engine.set_broken(true);
    assert!(committer.is_broken(), "the engine's own word is enough");
    assert!(matches!(waiting.await.unwrap(), Err(StorageError::Broken(_))));
    assert!(matches!(committer.submit([put("a", "")], all).await, Err(StorageError::Broken(_))));
    let upkeep = committer.reserve_control().await;
    assert!(matches!(committer.submit([put("a", "")], upkeep).await, Err(StorageError::Broken(_))));
    assert!(engine.is_empty(Space::Data));
}

#[tokio::test]
async fn a_key_too_long_is_refused_alone() {
    let (engine, permit) = gated();
    let committer = Committer::start(engine.clone(), &Limits::default(), |_, _| {}).unwrap();
    let first = submit(&committer, put("a", "")).await;
    wait_for_batches(&engine, 1);
    let good = submit(&committer, put("b", "")).await;
    let long = submit(&committer, put(&"k".repeat(65_536), "")).await;
    let empty = submit(&committer, put("", "")).await;
    let also_good = submit(&committer, put("c", "")).await;
    (0..3).for_each(|_| permit.send(()).unwrap());
    first.await.unwrap();
    good.await.unwrap();
    assert_eq!(long.await, Err(StorageError::KeyLength { bytes: 65_536 }));
    assert_eq!(empty.await, Err(StorageError::KeyLength { bytes: 0 }));
    also_good.await.unwrap();
    assert_eq!(engine.memory.len(Space::Data), 3);
}

#[tokio::test]
async fn closing_commits_what_is_queued_and_refuses_the_rest() {
    let (engine, permit) = gated();
    let committer = Committer::start(engine.clone(), &Limits::default(), |_, _| {}).unwrap();
    let first = submit(&committer, put("a", "")).await;
    wait_for_batches(&engine, 1);
    let second = submit(&committer, put("b", "")).await;
    let reservation = committer.reserve(1).await.unwrap();
    (0..2).for_each(|_| permit.send(()).unwrap());
    committer.close().await;
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(committer.submit([put("c", "")], reservation).await, Err(StorageError::Closed));
    committer.close().await;
}

#[tokio::test]
async fn in_simulation_commits_take_the_time_told_and_gather_batches() {
    let engine = Arc::new(MemoryEngine::new());
    let commit_time = Duration::from_millis(20);
    let committer = Committer::inline(engine.clone(), &Limits::default(), commit_time, |_, _| {});
    let started = Instant::now();
    let first = submit(&committer, put("a", "1")).await;
    tokio::task::yield_now().await;
    let second = submit(&committer, put("a", "2")).await;
    let third = submit(&committer, put("b", "3")).await;
    first.await.unwrap();
    assert!(started.elapsed() >= commit_time);
    second.await.unwrap();
    third.await.unwrap();
    assert!(started.elapsed() >= commit_time * 2);
    assert_eq!(engine.commits(), 2);
    let last = submit(&committer, put("c", "4")).await;
    committer.close().await;
    last.await.unwrap();
}

#[tokio::test]
async fn runs_that_follow_on_each_other_are_loaded_together_before_what_says_so() {
    let (engine, permit) = gated();
    let committer = Committer::start(engine.clone(), &Limits::default(), |_, _| {}).unwrap();
    let first = submit(&committer, put("first", "")).await;
    wait_for_batches(&engine, 1);
    let run = |keys: [&str; 2], record: &str| {
        let reservation = committer.try_reserve(10).unwrap();
        committer.submit_run(keys.map(|key| put(key, "")).into(), vec![put(record, "")], reservation)
    };
    let waiting = vec![
        run(["k1", "k2"], "r1"),
        run(["k3", "k4"], "r2"),
        // Begins before the one before ends.
        run(["a1", "a2"], "r3"),
        submit(&committer, put("k3", "on top")).await,
        run(["l1", "l2"], "r4"),
    ];
    (0..8).for_each(|_| permit.send(()).unwrap());
    first.await.unwrap();
    for submitted in waiting {
        submitted.await.unwrap();
    }
    // Each run is a batch of the engine, and so is what says that it is there.
    assert_eq!(*engine.batches.lock(), [1, 4, 2, 2, 1, 1, 2, 1]);
    assert_eq!(engine.get(Space::Data, b"k3").unwrap().unwrap(), "on top");
}

#[tokio::test]
async fn a_run_that_is_not_stored_leaves_nothing_that_says_so() {
    let engine = Arc::new(MemoryEngine::new());
    engine.fail_commits(1);
    let committer = Committer::start(engine.clone(), &Limits::default(), |_, _| {}).unwrap();
    let reservation = committer.reserve(10).await.unwrap();
    let submitted = committer.submit_run(vec![put("k", "")], vec![put("r", "")], reservation);
    assert!(matches!(submitted.await, Err(StorageError::Failed(_))));
    assert!(engine.is_empty(Space::Data), "neither the run nor its record");
    let key = Bytes::from(vec![0; KEY_BYTES_MAX + 1]);
    let reservation = committer.reserve(10).await.unwrap();
    let too_long = Change::Put { space: Space::Data, key, value: Bytes::new() };
    let submitted = committer.submit_run(vec![put("k", "")], vec![too_long], reservation);
    assert!(matches!(submitted.await, Err(StorageError::KeyLength { .. })));
    assert!(engine.is_empty(Space::Data));
}

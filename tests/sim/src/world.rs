//! A run: the hosts put together, stepped until everything is checked.

use crate::changes;
use crate::check;
use crate::client::{self, Client};
use crate::host;
use crate::links::CLIENTS_NAME;
use crate::nemesis::Nemesis;
use crate::operator;
use crate::scenario::{Fault, SLOTS, Scenario};
use crate::shared::{Finding, Phase, Shared};
use crate::trace;
use annulus_node::storage::Space;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a cluster may take to come to rest after the last fault.
const REST_WITHIN: Duration = Duration::from_secs(90);
/// How long rest must last to be believed: longer than it takes to notice that a peer is silent.
const REST_LASTS: Duration = Duration::from_millis(2500);
/// A run that has not ended by then is stuck.
const RUN_MAX: Duration = Duration::from_secs(300);
/// How often all acknowledged writes are looked for on the disks.
const DURABILITY_PAUSE: Duration = Duration::from_secs(2);
/// How long the repairs that reads have set off may take.
const REPAIR_TIME: Duration = Duration::from_secs(3);

/// Clients that change counters, sets and hashes, and race for keys.
const CHANGING_CLIENTS: u64 = 3;

static PANICS: AtomicU32 = AtomicU32::new(0);

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Trace hash.
    pub trace: u64,
    /// Events in the trace.
    pub events: u64,
    /// What was found.
    pub findings: Vec<Finding>,
    /// Operations asked for.
    pub operations: usize,
    /// Writes acknowledged.
    pub acknowledged: usize,
    /// Reads answered.
    pub reads: usize,
    /// Write events that reached a disk.
    pub written: usize,
    /// Epochs published.
    pub epochs: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// Faults by kind.
    pub faults: BTreeMap<Fault, u32>,
}

/// Runs a seed. `talks`: tells on standard error what happens.
#[must_use]
pub fn run(seed: u64, talks: bool) -> Outcome {
    let scenario = Scenario::of(seed);
    let shared = Shared::new(scenario, talks);
    shared.trace.say(|| format!("{:?}", shared.scenario));
    count_panics();
    let mut sim = build(&shared);
    let mut nemesis = Nemesis::new(&shared);
    loop {
        trace::set_now(sim.elapsed());
        nemesis.step(&mut sim);
        match sim.step() {
            Ok(false) => {}
            Ok(true) => break,
            Err(error) => {
                shared.find("run-ends", error.to_string());
                break;
            }
        }
        if !shared.findings().is_empty() {
            break;
        }
    }
    if PANICS.load(Ordering::Relaxed) > 0 {
        shared.find("no-panic", String::from("a task has panicked"));
    }
    outcome(&shared, sim.elapsed(), nemesis.counts)
}

fn build(shared: &Arc<Shared>) -> turmoil::Sim<'static> {
    let scenario = &shared.scenario;
    let mut sim = turmoil::Builder::new()
        .rng_seed(scenario.seed)
        .tick_duration(scenario.tick)
        .simulation_duration(RUN_MAX)
        .min_message_latency(Duration::ZERO)
        .max_message_latency(scenario.latency_max)
        .tcp_capacity(16 << 10)
        .enable_random_order()
        .build();
    for slot in 0..SLOTS {
        let shared = shared.clone();
        sim.host(host::name(slot), move || host::run(shared.clone(), slot));
    }
    {
        let shared = shared.clone();
        sim.host(operator::NAME, move || operator::run(shared.clone()));
    }
    sim.client(CLIENTS_NAME, drive(shared.clone()));
    sim
}

/// Leads through the phases.
async fn drive(shared: Arc<Shared>) -> turmoil::Result {
    while shared.phase() == Phase::Start {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut clients: Vec<_> = (0..shared.scenario.clients as u64)
        .map(|number| tokio::spawn(Client::new(&shared, number).work()))
        .collect();
    let changing = (1..=CHANGING_CLIENTS).map(|number| changes::Client::new(&shared, number).work());
    clients.extend(changing.map(tokio::spawn));
    let until = trace::now() + shared.scenario.chaos;
    while trace::now() < until {
        tokio::time::sleep(DURABILITY_PAUSE).await;
        check::still_durable(&shared);
    }
    shared.enter(Phase::Healing);
    for client in clients {
        client.await?;
    }
    if !comes_to_rest(&shared).await {
        return Ok(());
    }
    shared.enter(Phase::Checking);
    check::still_durable(&shared);
    write_by_everyone(&shared).await;
    read_everything(&shared).await;
    changes::read_everything(&shared).await;
    tokio::time::sleep(REPAIR_TIME).await;
    check::at_the_end(&shared);
    Ok(())
}

async fn comes_to_rest(shared: &Arc<Shared>) -> bool {
    let until = trace::now() + REST_WITHIN;
    // What the operator saw before the faults were over does not count.
    *shared.settled.lock() = Err(String::from("not looked since"));
    let mut rests_since = None;
    loop {
        let settled = shared.settled.lock().clone();
        match settled {
            Ok(()) if *rests_since.get_or_insert(trace::now()) + REST_LASTS <= trace::now() => return true,
            Ok(()) => {}
            Err(left) if trace::now() > until => {
                let left = format!("after {REST_WITHIN:?}: {left}; on disk: {}", stored(shared));
                shared.find("comes-to-rest", left);
                return false;
            }
            Err(_) => rests_since = None,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How much each slot's disk holds.
fn stored(shared: &Shared) -> String {
    let slots = shared.slots.lock();
    let each = slots.iter().enumerate().filter_map(|(slot, place)| {
        let disk = &place.volume.as_ref()?.disk;
        let [objects, hints] = [Space::Data, Space::Hints].map(|space| disk.all_synced(space).len());
        Some(format!("{} {objects} objects, {hints} hints", host::name(slot)))
    });
    each.collect::<Vec<_>>().join("; ")
}

/// Has every node coordinate a write of a new key.
async fn write_by_everyone(shared: &Arc<Shared>) {
    let slots: Vec<usize> = shared.wanted.lock().slots.iter().copied().collect();
    let mut client = Client::new(shared, client::HOST);
    for slot in slots {
        for number in 0..4 {
            let key = Bytes::from(format!("probe-{slot}-{number}"));
            match client.write_once(&key, slot).await {
                Some((coordinator, timestamp)) => check::timestamp_given(shared, coordinator, timestamp),
                None => shared.find("serves-when-healed", format!("{} does not take a write", host::name(slot))),
            }
        }
    }
}

/// Reads every key from all its replicas, which repairs what differs.
async fn read_everything(shared: &Arc<Shared>) {
    let keys: BTreeSet<Bytes> = shared.history.lock().iter().map(|op| op.key.clone()).collect();
    let slots: Vec<usize> = shared.wanted.lock().slots.iter().copied().collect();
    let mut client = Client::new(shared, client::HOST);
    for key in keys {
        if client.read_fully(&key, &slots).await.is_none() {
            shared.find("serves-when-healed", format!("{key:?} cannot be read from all replicas"));
            return;
        }
    }
}

fn outcome(shared: &Shared, simulated: Duration, faults: BTreeMap<Fault, u32>) -> Outcome {
    let (trace, events) = shared.trace.digest();
    let history = shared.history.lock();
    let read = |outcome: &crate::history::Outcome| matches!(outcome, crate::history::Outcome::Read { .. });
    Outcome {
        trace,
        events,
        findings: shared.findings(),
        operations: history.len(),
        acknowledged: history.iter().filter(|op| op.acknowledged()).count(),
        reads: history.iter().filter(|op| read(&op.outcome)).count(),
        written: shared.oracle.lock().len(),
        epochs: shared.ring.lock().as_ref().map_or(0, |ring| ring.epoch),
        simulated,
        faults,
    }
}

/// A task that panics ends alone; the run must hear of it all the same.
fn count_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
}

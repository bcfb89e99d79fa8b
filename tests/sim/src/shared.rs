//! What the parts of a run share: disks, the history, the operator's document, findings.

use crate::changes::{Change as Changed, Held};
use crate::disk::{Disk, Habits};
use crate::history::{Op, OpId};
use crate::oracle::Oracle;
use crate::scenario::{SLOTS, Scenario, stream};
use crate::trace::{self, Trace};
use annulus_node::planted;
use annulus_node::ring_state::is_retired;
use annulus_node::storage::{Change, Space};
use bytes::Bytes;
use dynamo::object::{Context, Dot, Object};
use dynamo::ring::{Quorums, Ring, RingView};
use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Wall clock at the beginning of every run, in milliseconds since 1970.
const WALL_AT_START_MS: u64 = 1_800_000_000_000;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Who found it.
    pub checker: &'static str,
    /// What it is.
    pub what: String,
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The first ring is on its way.
    Start,
    /// Clients work and faults happen.
    Chaos,
    /// All faults are over; the cluster comes to rest.
    Healing,
    /// Everything is looked at.
    Checking,
}

/// A data directory.
#[derive(Clone)]
pub struct Volume {
    /// Its identity.
    pub incarnation: Uuid,
    /// What is on it.
    pub disk: Arc<Disk>,
}

/// Where a node can be: a pod's name, its address and its volume.
#[derive(Default)]
pub struct Slot {
    /// The volume, while there is one.
    pub volume: Option<Volume>,
    /// One that was kept when its node was removed, for the next that is started here.
    pub kept: Option<Volume>,
    /// Whether there shall be a process.
    pub on: bool,
    /// Tells the running process to end.
    pub shutdown: Option<CancellationToken>,
    /// How often a process was started here.
    pub starts: u32,
}

/// What the cluster is wished to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Slots that shall have a node.
    pub slots: BTreeSet<usize>,
    /// Incarnations that exist no more.
    pub gone: BTreeSet<Uuid>,
    /// Slots whose pod may be removed, on proof.
    pub removable: BTreeSet<usize>,
    /// Replication factor and quorums.
    pub quorums: Quorums,
}

/// Shared by all hosts of a run.
pub struct Shared {
    /// What the seed has decided.
    pub scenario: Scenario,
    /// What happened.
    pub trace: Trace,
    /// UID of the cluster.
    pub cluster: Uuid,
    /// Places for nodes.
    pub slots: Mutex<Vec<Slot>>,
    /// How far each slot's wall clock is from the simulation's, in milliseconds.
    skews_ms: Vec<AtomicI64>,
    highest_wall_ms: Vec<AtomicU64>,
    /// The operator's durable copy of the ring.
    pub ring: Mutex<Option<Ring>>,
    /// What the operator is to bring about.
    pub wanted: Mutex<Wanted>,
    /// Whether the operator had nothing left to do when it last looked, and if not, what.
    pub settled: Mutex<Result<(), String>>,
    /// How far the run is.
    pub phase: Mutex<Phase>,
    /// All operations.
    pub history: Mutex<Vec<Op>>,
    /// Commands of the clients that change counters, sets and hashes and write on conditions.
    pub changes: Mutex<Vec<Changed>>,
    /// What their keys hold in the end.
    pub held: Mutex<BTreeMap<Bytes, Held>>,
    /// All events.
    pub oracle: Arc<Mutex<Oracle>>,
    /// What the operator has heard to be copied: by which incarnation, which partition, since which epoch.
    pub copied: Mutex<BTreeSet<(Uuid, u32, u64)>>,
    /// Slots that have told of something new in it, for the power to be taken from them.
    pub struck: Mutex<BTreeSet<usize>>,
    /// Volumes destroyed so far.
    pub disks_lost: AtomicU32,
    /// The last incarnation of each slot.
    incarnations: Mutex<BTreeMap<usize, Uuid>>,
    /// What a strict read has not seen, unless it was just being collected: decided in the end.
    pub unseen: Mutex<Vec<Unseen>>,
    findings: Mutex<Vec<Finding>>,
    rng: Mutex<StdRng>,
}

/// A write that a read has not seen.
pub struct Unseen {
    /// Key of both.
    pub key: Bytes,
    /// Dots of the write.
    pub dots: Vec<Dot>,
    /// When the read was answered.
    pub at: Duration,
    /// Both, for people.
    pub what: String,
}

impl Shared {
    /// The beginning of a run.
    #[must_use]
    pub fn new(scenario: Scenario, talks: bool) -> Arc<Self> {
        let mut rng = stream(scenario.seed, 2);
        let slots = (0..SLOTS).map(|slot| Slot { on: slot < scenario.nodes, ..Slot::default() }).collect();
        let wanted = Wanted {
            slots: (0..scenario.nodes).collect(),
            gone: BTreeSet::new(),
            removable: BTreeSet::new(),
            quorums: scenario.quorums,
        };
        Arc::new(Self {
            cluster: Uuid::from_u128(rng.random()),
            trace: Trace::new(talks),
            slots: Mutex::new(slots),
            skews_ms: (0..SLOTS).map(|_| AtomicI64::new(0)).collect(),
            highest_wall_ms: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            ring: Mutex::new(None),
            wanted: Mutex::new(wanted),
            settled: Mutex::new(Err(String::from("not looked yet"))),
            phase: Mutex::new(Phase::Start),
            history: Mutex::new(Vec::new()),
            changes: Mutex::default(),
            held: Mutex::default(),
            oracle: Arc::default(),
            copied: Mutex::default(),
            struck: Mutex::default(),
            disks_lost: AtomicU32::new(0),
            incarnations: Mutex::default(),
            unseen: Mutex::default(),
            findings: Mutex::new(Vec::new()),
            rng: Mutex::new(rng),
            scenario,
        })
    }

    /// Writes down something that must not be.
    pub fn find(&self, checker: &'static str, what: String) {
        self.trace.say(|| format!("FOUND by {checker}: {what}"));
        self.findings.lock().push(Finding { checker, what });
    }

    /// What was found, in order.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.findings.lock().clone()
    }

    /// The volume of a slot, made if it has none.
    pub fn volume(&self, slot: usize) -> Volume {
        if let Some(volume) = &self.slots.lock()[slot].volume {
            return volume.clone();
        }
        let incarnation = match self.incarnations.lock().get(&slot) {
            Some(same) if planted::is("dot-reuse-after-volume-loss") => *same,
            _ => Uuid::from_u128(self.random()),
        };
        self.incarnations.lock().insert(slot, incarnation);
        let oracle = self.oracle.clone();
        let low = incarnation.as_u64_pair().1;
        let hear = move |changes: &[Change]| hear(&oracle, low, changes);
        let habits = Habits {
            syncs: !planted::is("disk-without-sync"),
            syncs_directory: !planted::is("disk-without-directory-sync"),
        };
        let volume = Volume { incarnation, disk: Disk::new(habits, Arc::new(hear)) };
        self.slots.lock()[slot].volume = Some(volume.clone());
        volume
    }

    /// The volume that a node starts on here. One that was given up is emptied, under another incarnation.
    pub fn volume_at_start(&self, slot: usize) -> Volume {
        {
            let mut slots = self.slots.lock();
            let place = &mut slots[slot];
            let kept = place.kept.take();
            place.volume = place.volume.take().or(kept);
            let given_up = |volume: &mut Volume| is_retired(volume.disk.as_ref()).unwrap_or(false);
            if !planted::is("given-up-data-used")
                && let Some(old) = place.volume.take_if(given_up)
            {
                self.oracle.lock().given_up(old.incarnation.as_u64_pair().1);
            }
        }
        self.volume(slot)
    }

    /// Whether pages are kept aside on the volume of a slot.
    pub fn has_spooled(&self, slot: usize) -> bool {
        self.disk(slot).is_some_and(|disk| !disk.spool().lock().is_empty())
    }

    /// The process of a host is about to be killed, which leaves what it has kept aside as it is.
    pub fn leave_spool(&self, host: usize) {
        if let Some(disk) = self.disk(host) {
            disk.leave_spool();
        }
    }

    /// The disk of a host, while it has one; the operator has none.
    fn disk(&self, host: usize) -> Option<Arc<Disk>> {
        Some(self.slots.lock().get(host)?.volume.as_ref()?.disk.clone())
    }

    /// The disk of a host, if it is that incarnation's.
    #[must_use]
    pub fn disk_of(&self, host: usize, incarnation: Uuid) -> Option<Arc<Disk>> {
        let slots = self.slots.lock();
        let volume = slots.get(host)?.volume.as_ref()?;
        (volume.incarnation == incarnation).then(|| volume.disk.clone())
    }

    /// A random number of the run's own stream.
    pub fn random(&self) -> u128 {
        self.rng.lock().random()
    }

    /// The wall clock of a slot, in milliseconds since 1970.
    #[must_use]
    pub fn wall_ms(&self, slot: usize) -> u64 {
        let elapsed = u64::try_from(trace::now().as_millis()).unwrap_or(u64::MAX);
        let skew = self.skews_ms.get(slot).map_or(0, |skew| skew.load(Ordering::Relaxed));
        (WALL_AT_START_MS + elapsed).saturating_add_signed(skew)
    }

    /// Sets the wall clock of a slot, so far from the right time.
    pub fn set_skew_ms(&self, slot: usize, skew_ms: i64) {
        let before = self.wall_ms(slot);
        self.highest_wall_ms[slot].fetch_max(before, Ordering::Relaxed);
        self.skews_ms[slot].store(skew_ms, Ordering::Relaxed);
    }

    /// The latest time that a slot's wall clock has ever shown before it was set.
    #[must_use]
    pub fn highest_wall_ms(&self, slot: usize) -> u64 {
        self.highest_wall_ms[slot].load(Ordering::Relaxed)
    }

    /// The operator's ring, ready for looking up.
    #[must_use]
    pub fn view(&self) -> Option<RingView> {
        self.ring.lock().clone().and_then(RingView::new)
    }

    /// How far the run is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.lock()
    }

    /// Goes on to the next phase.
    pub fn enter(&self, phase: Phase) {
        *self.phase.lock() = phase;
        self.trace.say(|| format!("{phase:?}"));
    }

    /// Writes down that an operation begins.
    pub fn begin(&self, make: impl FnOnce(OpId, Duration) -> Op) -> OpId {
        let mut history = self.history.lock();
        let id = OpId(u32::try_from(history.len()).unwrap_or(u32::MAX));
        let op = make(id, trace::now());
        history.push(op);
        id
    }

    /// What every volume has of a key, durably: objects and hints.
    #[must_use]
    pub fn copies(&self, key: &[u8]) -> Vec<Vec<Object>> {
        let slots = self.slots.lock();
        let volumes = slots.iter().filter_map(|slot| slot.volume.as_ref());
        volumes
            .map(|volume| {
                let mut objects = volume.disk.synced_under(Space::Data, 8, key);
                objects.extend(volume.disk.synced_under(Space::Hints, 24, key));
                objects.into_iter().filter_map(|object| Object::decode(object).ok()).collect()
            })
            .collect()
    }

    /// Number of volumes that have seen, durably, all that a context covers.
    #[must_use]
    pub fn copies_covering(&self, key: &[u8], context: &Context) -> usize {
        let covers = |object: &Object| {
            let seen = object.context();
            context.iter().all(|(actor, counter)| seen.get(actor) >= counter)
        };
        self.copies(key).iter().filter(|objects| objects.iter().any(covers)).count()
    }
}

/// Tells the oracle what a disk is given.
fn hear(oracle: &Mutex<Oracle>, incarnation: u64, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Remove { space: Space::Data, key } => {
                oracle.lock().removed(incarnation, &key.slice(8.min(key.len())..), trace::now());
            }
            Change::Remove { space: Space::Hints, key } => {
                oracle.lock().hint_removed(incarnation, key, &key.slice(24.min(key.len())..));
            }
            _ => {}
        }
        let Change::Put { space, key, value } = change else { continue };
        let prefix = match space {
            Space::Data => {
                oracle.lock().stored(incarnation, &key.slice(8.min(key.len())..), value);
                8
            }
            Space::Hints => {
                oracle.lock().hinted(incarnation, key, &key.slice(24.min(key.len())..), value);
                24
            }
            Space::Meta => continue,
        };
        let key: Bytes = key.slice(prefix.min(key.len())..);
        oracle.lock().committed(incarnation, &key, value);
    }
}

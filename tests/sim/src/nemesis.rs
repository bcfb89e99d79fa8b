//! Whoever makes things go wrong: draws faults from the seed, and ends each after a while.

use crate::host;
use crate::links::{FaultId, Links, OPERATOR, name};
use crate::operator;
use crate::scenario::{Fault, SLOTS, pick, stream};
use crate::shared::{Phase, Shared};
use crate::trace;
use dynamo::ring::Quorums;
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use turmoil::Sim;

/// Volumes that are destroyed in one run. One: what two disks hold must survive the loss of one.
const VOLUMES_LOST_MAX: u32 = 1;
/// How often dead processes are looked for.
const WATCH_PAUSE: Duration = Duration::from_millis(300);
/// How likely a node that copies is killed at each step, where the seed has it.
const PAGES_STRUCK: f64 = 0.02;
const HOUR_MS: i64 = 3_600_000;
/// What wall clocks are set to, from the right time.
const SKEWS_MS: [i64; 9] = [-HOUR_MS, -2000, -50, 0, 50, 2000, 30_000, HOUR_MS, 30 * 24 * HOUR_MS];

/// Makes faults.
pub struct Nemesis {
    shared: Arc<Shared>,
    rng: StdRng,
    links: Links,
    next_fault: Duration,
    next_watch: Duration,
    last_id: FaultId,
    /// Faults under way and when they end.
    ends: BTreeMap<(Duration, FaultId), Cure>,
    /// Hosts that are down on purpose.
    down: BTreeSet<usize>,
    healed: bool,
    /// How often each kind of fault has happened.
    pub counts: BTreeMap<Fault, u32>,
}

/// What ends a fault.
enum Cure {
    /// Lifts it from the links.
    Links,
    /// Lifts it from the links and starts the host.
    Start(usize),
    /// Cuts or joins a link that flaps, as often again.
    Flap {
        a: usize,
        b: usize,
        left: u32,
    },
    Loss(usize, usize),
    Delay(usize, usize),
    DiskFull(usize),
}

impl Nemesis {
    /// Nothing has gone wrong yet.
    #[must_use]
    pub fn new(shared: &Arc<Shared>) -> Self {
        Self {
            rng: stream(shared.scenario.seed, 3),
            shared: shared.clone(),
            links: Links::default(),
            next_fault: Duration::ZERO,
            next_watch: Duration::ZERO,
            last_id: 0,
            ends: BTreeMap::new(),
            down: BTreeSet::new(),
            healed: false,
            counts: BTreeMap::new(),
        }
    }

    /// Does what is due.
    pub fn step(&mut self, sim: &mut Sim<'_>) {
        let now = trace::now();
        let phase = self.shared.phase();
        if phase >= Phase::Healing && !self.healed {
            self.heal(sim);
        }
        while let Some(((at, id), cure)) = self.ends.pop_first() {
            if at > now {
                self.ends.insert((at, id), cure);
                break;
            }
            self.end(sim, id, cure);
        }
        if now >= self.next_watch {
            self.next_watch = now + WATCH_PAUSE;
            self.remove_pods(sim);
            self.restart_dead(sim);
        }
        self.strike(sim);
        if phase == Phase::Chaos && now >= self.next_fault {
            let pause = self.shared.scenario.fault_pause.mul_f64(self.rng.random_range(0.2..1.8));
            self.next_fault = now + pause;
            self.begin(sim);
        }
    }

    /// Takes the power from those who have just told that they have copied something, and kills some of those to whom
    /// pages are on their way.
    fn strike(&mut self, sim: &mut Sim<'_>) {
        let struck = std::mem::take(&mut *self.shared.struck.lock());
        let up = if self.shared.phase() == Phase::Chaos { self.up() } else { Vec::new() };
        let told = struck.into_iter().filter(|slot| up.contains(slot)).map(|slot| (slot, Fault::PowerLoss));
        let mut strikes: Vec<_> = told.collect();
        for &slot in up.iter().filter(|_| self.shared.scenario.kills_copying) {
            if self.shared.has_spooled(slot) && self.rng.random_bool(PAGES_STRUCK) {
                strikes.push((slot, Fault::Crash));
            }
        }
        for (slot, fault) in strikes {
            self.last_id += 1;
            let id = self.last_id;
            if self.take_down(sim, fault, id, slot).is_some() {
                let lasts = Duration::from_millis(self.rng.random_range(50..2000));
                self.shared
                    .trace
                    .say(|| format!("fault {id} {fault:?} strikes {} for {lasts:?}", host::name(slot)));
                self.ends.insert((trace::now() + lasts, id), Cure::Start(slot));
            }
        }
    }

    fn heal(&mut self, sim: &mut Sim<'_>) {
        self.healed = true;
        while let Some(((_, id), cure)) = self.ends.pop_first() {
            let cure = match cure {
                Cure::Flap { .. } => Cure::Links,
                cure => cure,
            };
            self.end(sim, id, cure);
        }
        for slot in 0..SLOTS {
            if let Some(volume) = &self.shared.slots.lock()[slot].volume {
                volume.disk.fail_commits(0, false);
            }
        }
    }

    fn begin(&mut self, sim: &mut Sim<'_>) {
        let faults = self.shared.scenario.faults.clone();
        let total: u32 = faults.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            return;
        }
        let mut at = self.rng.random_range(0..total);
        let drawn = faults.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        let Some((fault, _)) = drawn else { return };
        self.last_id += 1;
        let id = self.last_id;
        let lasts_max_ms = u64::try_from(self.shared.scenario.fault_lasts_max.as_millis()).unwrap_or(u64::MAX);
        let lasts = Duration::from_millis(self.rng.random_range(100..lasts_max_ms));
        let Some((cure, words)) = self.inflict(sim, *fault, id) else { return };
        *self.counts.entry(*fault).or_default() += 1;
        self.shared.trace.say(|| format!("fault {id} {fault:?} {words} for {lasts:?}"));
        if let Some(cure) = cure {
            let lasts = match (&cure, fault) {
                (Cure::Flap { .. }, _) => Duration::from_millis(200),
                // What is held for longer than peers wait for each other arrives on streams that they have given up.
                (_, Fault::Held) => Duration::from_millis(self.rng.random_range(200..950)),
                _ => lasts,
            };
            self.ends.insert((trace::now() + lasts, id), cure);
        }
    }

    /// Makes it so; returns what ends it. `None`: it cannot happen now.
    fn inflict(&mut self, sim: &mut Sim<'_>, fault: Fault, id: FaultId) -> Option<(Option<Cure>, String)> {
        match fault {
            Fault::ScaleOut => return self.scale_out(sim).map(|slot| (None, host::name(slot))),
            Fault::ScaleIn => return self.scale_in().map(|slot| (None, host::name(slot))),
            Fault::Factor => return Some((None, format!("n = {}", self.change_factor()?))),
            Fault::OperatorCrash => {
                self.stop(sim, OPERATOR)?;
                return Some((Some(Cure::Start(OPERATOR)), String::new()));
            }
            _ => {}
        }
        let up = self.up();
        if up.is_empty() {
            return None;
        }
        let slot = *pick(&mut self.rng, &up);
        let other = *pick(&mut self.rng, &up);
        match fault {
            Fault::Blackout => Some((None, self.blackout(sim, &up))),
            Fault::Halves | Fault::Bridge => Some((Some(Cure::Links), self.halves(sim, id, fault, &up))),
            Fault::Skew | Fault::FailedCommits | Fault::DiskFull => Some(self.upset(fault, slot)),
            Fault::Crash | Fault::PowerLoss | Fault::VolumeLoss | Fault::Restart => {
                self.take_down(sim, fault, id, slot)?;
                Some((Some(Cure::Start(slot)), host::name(slot)))
            }
            _ => {
                let cure = self.disturb(sim, fault, id, slot, other)?;
                Some((Some(cure), format!("{} ({})", host::name(slot), host::name(other))))
            }
        }
    }

    /// Ends a process, one way or another.
    fn take_down(&mut self, sim: &mut Sim<'_>, fault: Fault, id: FaultId, slot: usize) -> Option<()> {
        match fault {
            Fault::PowerLoss => {
                self.links.cut_off(sim, id, slot);
                self.stop(sim, slot)?;
                let kept = self.rng.random_range(0..4);
                self.shared.volume(slot).disk.lose_power(kept);
                Some(())
            }
            Fault::VolumeLoss => self.destroy_volume(sim, id, slot),
            Fault::Restart => {
                let shutdown = self.shared.slots.lock()[slot].shutdown.clone();
                shutdown?.cancel();
                self.down.insert(slot);
                Some(())
            }
            _ => self.stop(sim, slot),
        }
    }

    /// Takes the power from all nodes. Each comes back by itself.
    fn blackout(&mut self, sim: &mut Sim<'_>, up: &[usize]) -> String {
        for &slot in up {
            self.last_id += 1;
            let id = self.last_id;
            if self.take_down(sim, Fault::PowerLoss, id, slot).is_some() {
                let lasts = Duration::from_millis(self.rng.random_range(50..3000));
                self.ends.insert((trace::now() + lasts, id), Cure::Start(slot));
            }
        }
        format!("{up:?}")
    }

    /// Upsets a clock or a disk.
    fn upset(&mut self, fault: Fault, slot: usize) -> (Option<Cure>, String) {
        let said = host::name(slot);
        match fault {
            Fault::Skew => {
                let skew = *pick(&mut self.rng, &SKEWS_MS);
                self.shared.set_skew_ms(slot, skew);
                (None, format!("{said} by {skew} ms"))
            }
            Fault::FailedCommits => {
                let (commits, written) = (self.rng.random_range(1..4), self.rng.random_bool(0.5));
                self.shared.volume(slot).disk.fail_commits(commits, written);
                (None, format!("{said}: {commits}, written: {written}"))
            }
            _ => {
                self.shared.volume(slot).disk.set_free(0);
                (Some(Cure::DiskFull(slot)), said)
            }
        }
    }

    /// Disturbs the links of a node, or that between two.
    fn disturb(
        &mut self,
        sim: &mut Sim<'_>,
        fault: Fault,
        id: FaultId,
        slot: usize,
        other: usize,
    ) -> Option<Cure> {
        match fault {
            Fault::Pause => {
                self.links.hold(sim, id, slot);
                return Some(Cure::Links);
            }
            Fault::OneWay => {
                for from in 0..SLOTS {
                    self.links.cut(sim, id, from, slot);
                }
                return Some(Cure::Links);
            }
            _ if slot == other => return None,
            _ => {}
        }
        match fault {
            Fault::Held => {
                self.links.hold_between(sim, id, slot, other);
                Some(Cure::Links)
            }
            Fault::Flapping => {
                self.links.cut(sim, id, slot, other);
                self.links.cut(sim, id, other, slot);
                Some(Cure::Flap { a: slot, b: other, left: self.rng.random_range(3..12) })
            }
            Fault::Loss => {
                sim.set_link_fail_rate(name(slot), name(other), self.rng.random_range(0.001..0.05));
                Some(Cure::Loss(slot, other))
            }
            Fault::Delay => {
                let latency = Duration::from_millis(self.rng.random_range(50..1500));
                sim.set_link_latency(name(slot), name(other), latency);
                Some(Cure::Delay(slot, other))
            }
            _ => None,
        }
    }

    fn end(&mut self, sim: &mut Sim<'_>, id: FaultId, cure: Cure) {
        match cure {
            Cure::Links => self.links.lift(sim, id),
            Cure::Start(host) => {
                self.links.lift(sim, id);
                self.down.remove(&host);
                self.kill(sim, host);
                sim.bounce(name(host));
            }
            Cure::Flap { a, b, left } => {
                if left % 2 == 1 {
                    self.links.lift(sim, id);
                } else {
                    self.links.cut(sim, id, a, b);
                    self.links.cut(sim, id, b, a);
                }
                if left > 0 {
                    let next = trace::now() + Duration::from_millis(self.rng.random_range(50..700));
                    self.ends.insert((next, id), Cure::Flap { a, b, left: left - 1 });
                    return;
                }
                self.links.lift(sim, id);
            }
            Cure::Loss(a, b) => sim.set_link_fail_rate(name(a), name(b), 0.0),
            Cure::Delay(a, b) => {
                sim.set_link_latency(name(a), name(b), Duration::ZERO);
                sim.set_link_max_message_latency(name(a), name(b), self.shared.scenario.latency_max);
            }
            Cure::DiskFull(slot) => {
                if let Some(volume) = &self.shared.slots.lock()[slot].volume {
                    volume.disk.set_free(1 << 40);
                }
            }
        }
        self.shared.trace.say(|| format!("fault {id} is over"));
    }

    /// Splits the nodes and the operator. With a bridge, one node still reaches everybody.
    fn halves(&mut self, sim: &mut Sim<'_>, id: FaultId, fault: Fault, up: &[usize]) -> String {
        let mut sides = [Vec::new(), Vec::new()];
        let bridge = (fault == Fault::Bridge).then(|| *pick(&mut self.rng, up));
        for host in (0..SLOTS).chain([OPERATOR]).filter(|host| Some(*host) != bridge) {
            sides[usize::from(self.rng.random_bool(0.5))].push(host);
        }
        let [left, right] = &sides;
        for &a in left {
            for &b in right {
                self.links.cut(sim, id, a, b);
                self.links.cut(sim, id, b, a);
            }
        }
        format!("{left:?} and {right:?}")
    }

    fn up(&self) -> Vec<usize> {
        let slots = self.shared.slots.lock();
        (0..SLOTS).filter(|slot| slots[*slot].on && !self.down.contains(slot)).collect()
    }

    fn stop(&mut self, sim: &mut Sim<'_>, host: usize) -> Option<()> {
        if !self.down.insert(host) {
            return None;
        }
        self.kill(sim, host);
        Some(())
    }

    fn kill(&self, sim: &mut Sim<'_>, host: usize) {
        self.shared.leave_spool(host);
        sim.crash(name(host));
    }

    /// Destroys a volume, if none was before: what two disks have must survive that of one.
    fn destroy_volume(&mut self, sim: &mut Sim<'_>, id: FaultId, slot: usize) -> Option<()> {
        if self.shared.disks_lost.load(Ordering::Relaxed) >= VOLUMES_LOST_MAX {
            return None;
        }
        self.links.cut_off(sim, id, slot);
        self.stop(sim, slot)?;
        if let Some(volume) = self.shared.slots.lock()[slot].volume.take() {
            self.shared.oracle.lock().destroyed(volume.incarnation.as_u64_pair().1);
        }
        self.shared.disks_lost.fetch_add(1, Ordering::Relaxed);
        Some(())
    }

    fn scale_out(&mut self, sim: &mut Sim<'_>) -> Option<usize> {
        let mut wanted = self.shared.wanted.lock();
        let free: Vec<usize> = (0..SLOTS).filter(|slot| !wanted.slots.contains(slot)).collect();
        if free.is_empty() {
            return None;
        }
        let slot = *pick(&mut self.rng, &free);
        wanted.slots.insert(slot);
        wanted.removable.remove(&slot);
        drop(wanted);
        // One that was on its way out is taken back.
        let was_on = std::mem::replace(&mut self.shared.slots.lock()[slot].on, true);
        if !was_on {
            sim.bounce(name(slot));
        }
        Some(slot)
    }

    fn scale_in(&mut self) -> Option<usize> {
        let mut wanted = self.shared.wanted.lock();
        if wanted.slots.len() <= usize::from(wanted.quorums.n) {
            return None;
        }
        let slots: Vec<usize> = wanted.slots.iter().copied().collect();
        let slot = *pick(&mut self.rng, &slots);
        wanted.slots.remove(&slot);
        Some(slot)
    }

    /// Two replicas more of everything, with quorums as far from a majority as before; or those taken away again.
    fn change_factor(&mut self) -> Option<u8> {
        let mut wanted = self.shared.wanted.lock();
        let least = self.shared.scenario.quorums;
        if wanted.quorums == least {
            let raised = Quorums { n: least.n + 2, r: least.r + 1, w: least.w + 1, ..least };
            if wanted.slots.len() < usize::from(raised.n) {
                return None;
            }
            wanted.quorums = raised;
        } else {
            wanted.quorums = least;
        }
        Some(wanted.quorums.n)
    }

    /// Takes away the pods that the operator has proof for. Some leave their volumes, to be started on again.
    fn remove_pods(&mut self, sim: &mut Sim<'_>) {
        let removable = std::mem::take(&mut self.shared.wanted.lock().removable);
        for slot in removable {
            if self.down.contains(&slot) {
                continue;
            }
            self.kill(sim, slot);
            let keeps = self.rng.random_bool(0.5);
            let volume = {
                let mut slots = self.shared.slots.lock();
                let place = &mut slots[slot];
                place.on = false;
                let volume = place.volume.take();
                place.kept = volume.clone().filter(|_| keeps);
                volume
            };
            if let Some(volume) = volume {
                self.shared.oracle.lock().given_up(volume.incarnation.as_u64_pair().1);
                self.shared.wanted.lock().gone.insert(volume.incarnation);
            }
            let with = if keeps { "and leaves its volume" } else { "with its volume" };
            self.shared.trace.say(|| format!("{} is removed {with}", host::name(slot)));
        }
    }

    /// A process that has ended by itself is started anew, as Kubernetes does.
    fn restart_dead(&mut self, sim: &mut Sim<'_>) {
        for slot in self.up() {
            if !sim.is_host_running(name(slot)) {
                sim.bounce(name(slot));
            }
        }
        if !self.down.contains(&OPERATOR) && !sim.is_host_running(operator::NAME) {
            sim.bounce(operator::NAME);
        }
    }
}

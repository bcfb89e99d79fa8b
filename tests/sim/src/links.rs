//! The links between hosts, with the faults that lie on each: lifting one does not lift another.

use crate::host;
use crate::operator;
use crate::scenario::SLOTS;
use std::collections::{BTreeMap, BTreeSet};
use turmoil::Sim;

/// Number of the operator among the hosts.
pub const OPERATOR: usize = SLOTS;
/// Number of the clients' host.
pub const CLIENTS: usize = SLOTS + 1;
/// Host name of the clients.
pub const CLIENTS_NAME: &str = "clients";

/// Names one fault.
pub type FaultId = u32;

/// Which faults lie on which links.
#[derive(Default)]
pub struct Links {
    /// By direction: faults that drop what is sent.
    cut: BTreeMap<(usize, usize), BTreeSet<FaultId>>,
    /// By pair, the smaller number first: faults that hold back what is sent.
    held: BTreeMap<(usize, usize), BTreeSet<FaultId>>,
}

/// Host name by number.
#[must_use]
pub fn name(host: usize) -> String {
    match host {
        OPERATOR => operator::NAME.to_owned(),
        CLIENTS => CLIENTS_NAME.to_owned(),
        slot => host::name(slot),
    }
}

/// All hosts.
pub fn hosts() -> impl Iterator<Item = usize> {
    0..=CLIENTS
}

impl Links {
    /// Drops what `from` sends to `to` until the fault is lifted.
    pub fn cut(&mut self, sim: &mut Sim<'_>, fault: FaultId, from: usize, to: usize) {
        if from == to {
            return;
        }
        let faults = self.cut.entry((from, to)).or_default();
        let first = faults.is_empty();
        faults.insert(fault);
        if first && !self.is_held(from, to) {
            sim.partition_oneway(name(from), name(to));
        }
    }

    /// Drops everything that a host sends or is sent.
    pub fn cut_off(&mut self, sim: &mut Sim<'_>, fault: FaultId, host: usize) {
        for other in hosts() {
            self.cut(sim, fault, host, other);
            self.cut(sim, fault, other, host);
        }
    }

    /// Holds back everything that a host sends or is sent, to be delivered when the fault is lifted.
    pub fn hold(&mut self, sim: &mut Sim<'_>, fault: FaultId, host: usize) {
        for other in hosts().filter(|other| *other != host) {
            self.hold_between(sim, fault, host, other);
        }
    }

    /// Holds back what two hosts send each other, to be delivered when the fault is lifted.
    pub fn hold_between(&mut self, sim: &mut Sim<'_>, fault: FaultId, a: usize, b: usize) {
        let faults = self.held.entry((a.min(b), a.max(b))).or_default();
        let first = faults.is_empty();
        faults.insert(fault);
        if first {
            sim.hold(name(a), name(b));
        }
    }

    /// Lifts a fault from all links.
    pub fn lift(&mut self, sim: &mut Sim<'_>, fault: FaultId) {
        let freed = without(&mut self.held, fault);
        for (a, b) in freed {
            sim.release(name(a), name(b));
            for (from, to) in [(a, b), (b, a)] {
                if self.cut.contains_key(&(from, to)) {
                    sim.partition_oneway(name(from), name(to));
                }
            }
        }
        for (from, to) in without(&mut self.cut, fault) {
            if !self.is_held(from, to) {
                sim.repair_oneway(name(from), name(to));
            }
        }
    }

    fn is_held(&self, a: usize, b: usize) -> bool {
        self.held.contains_key(&(a.min(b), a.max(b)))
    }
}

/// Takes a fault off; returns the links on which none is left.
fn without(links: &mut BTreeMap<(usize, usize), BTreeSet<FaultId>>, fault: FaultId) -> Vec<(usize, usize)> {
    let mut freed = Vec::new();
    links.retain(|link, faults| {
        if faults.remove(&fault) && faults.is_empty() {
            freed.push(*link);
        }
        !faults.is_empty()
    });
    freed
}

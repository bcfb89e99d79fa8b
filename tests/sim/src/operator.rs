//! The operator's part of a run: observes the nodes, asks `dynamo::moves` for the next document, publishes it.
//!
//! It stands for the real operator's loop without Kubernetes: the ring is durable where a ConfigMap would be, everything
//! else is observed anew in every round, so it may die at any moment.

use crate::check;
use crate::host::{PEER_PORT, RESP_PORT, name};
use crate::shared::{Phase, Shared};
use crate::wire;
use annulus_node::net::{self, Connector};
use annulus_node::planted;
use annulus_proto::v1::control_client::ControlClient;
use annulus_proto::v1::{InstallRingRequest, NodeStatus, StatusRequest};
use annulus_proto::{certificate, report, uuid_from};
use bytes::Bytes;
use dynamo::moves::{self, Pace, Reports, Step, Wanted, Wish};
use dynamo::ring::{MemberState, Ring, to_json};
use dynamo::token::{HashKey, PartitionCount};
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Host name of the operator.
pub const NAME: &str = "operator";
/// Number of the operator's host in the trace.
const HOST: u64 = 100;
const CALL_TIMEOUT: Duration = Duration::from_millis(600);
const RING_BYTES_MAX: usize = 8 << 20;

/// What nodes answered, by slot.
type Answers = BTreeMap<usize, NodeStatus>;

/// Works until its host crashes.
///
/// # Errors
/// Never, so far.
pub async fn run(shared: Arc<Shared>) -> turmoil::Result {
    let connector = wire::connector(&shared, HOST);
    loop {
        round(&shared, &connector).await;
        tokio::time::sleep(shared.scenario.operator_pause).await;
    }
}

async fn round(shared: &Arc<Shared>, connector: &Connector) {
    let answers = observe(shared, connector).await;
    let ring = shared.ring.lock().clone();
    let next = match &ring {
        None => create(shared, &answers),
        Some(ring) => advance(shared, ring, &answers),
    };
    if let Some(next) = next {
        shared.trace.say(|| format!("epoch {}: {}", next.epoch, describe(&next)));
        *shared.ring.lock() = Some(next);
        if let Some(ring) = shared.view() {
            shared.oracle.lock().ring(ring);
        }
    }
    publish(shared, connector, &answers).await;
}

async fn observe(shared: &Arc<Shared>, connector: &Connector) -> Answers {
    let mut slots: BTreeSet<usize> = shared.wanted.lock().slots.clone();
    if let Some(ring) = shared.ring.lock().as_ref() {
        slots.extend(ring.members.iter().filter_map(|member| slot_of(&member.name)));
    }
    let asked = slots.into_iter().map(|slot| async move {
        let mut client = client(connector, slot).await?;
        let status = tokio::time::timeout(CALL_TIMEOUT, client.status(StatusRequest {})).await.ok()?.ok()?;
        Some((slot, status.into_inner()))
    });
    let answers: Answers = join_all(asked).await.into_iter().flatten().collect();
    for (slot, status) in &answers {
        if let Some(incarnation) = incarnation(status) {
            check::ring_is_durable(shared, *slot, incarnation, status.epoch);
        }
    }
    answers
}

fn create(shared: &Shared, answers: &Answers) -> Option<Ring> {
    let slots = shared.wanted.lock().slots.clone();
    let members: Option<Vec<Wanted>> =
        slots.iter().map(|slot| Some(wanted(*slot, incarnation(answers.get(slot)?)?))).collect();
    let wish = wish(shared, members?)?;
    let hash_key = HashKey(shared.random().to_be_bytes());
    moves::create(shared.cluster, hash_key, &wish).ok()
}

fn advance(shared: &Shared, ring: &Ring, answers: &Answers) -> Option<Ring> {
    note_destroyed(shared, ring, answers);
    let slots = shared.wanted.lock().slots.clone();
    let members: Vec<Wanted> = slots
        .iter()
        .filter_map(|slot| {
            let known = ring.members.iter().find(|m| m.name == name(*slot) && m.state != MemberState::Leaving);
            let incarnation = answers.get(slot).and_then(incarnation).or(known.map(|member| member.incarnation))?;
            Some(wanted(*slot, incarnation))
        })
        .collect();
    let complete = members.len() == slots.len();
    let wish = wish(shared, members)?;
    let mut reports: Reports =
        answers.values().filter_map(|status| Some((incarnation(status)?, report(status)))).collect();
    for (slot, incarnation, synced) in told(answers, &reports) {
        check::moves_are_durable(shared, ring, slot, incarnation, synced);
    }
    note_copied(shared, answers, &reports);
    misread(ring, &mut reports);
    let step = moves::advance(ring, &wish, &reports, Pace { parallel_moves: shared.scenario.parallel_moves });
    let left: Vec<String> = match step {
        Ok(Step::Publish(next, _)) => {
            *shared.settled.lock() = Err(String::from("the ring changes"));
            return Some(*next);
        }
        Ok(Step::Wait(reasons)) => reasons.iter().map(ToString::to_string).collect(),
        Ok(Step::Settled) => unfinished(shared, ring, answers, complete),
        Err(error) => vec![error.to_string()],
    };
    *shared.settled.lock() = if left.is_empty() { Ok(()) } else { Err(left.join("; ")) };
    None
}

/// Who has answered, and the moves that it says are complete.
fn told<'a>(
    answers: &'a Answers,
    reports: &'a Reports,
) -> impl Iterator<Item = (usize, Uuid, &'a BTreeSet<(u32, u64)>)> {
    answers.iter().filter_map(|(slot, status)| {
        let incarnation = incarnation(status)?;
        Some((*slot, incarnation, &reports.get(&incarnation)?.synced))
    })
}

/// A node that tells of a partition copied is struck, as the seed has it: what it told has to be on its disk.
fn note_copied(shared: &Shared, answers: &Answers, reports: &Reports) {
    if !shared.scenario.strikes || shared.phase() != Phase::Chaos {
        return;
    }
    for (slot, incarnation, synced) in told(answers, reports) {
        let mut copied = shared.copied.lock();
        let new =
            synced.iter().filter(|(partition, since)| copied.insert((incarnation, *partition, *since))).count();
        if new > 0 && shared.random().is_multiple_of(3) {
            shared.struck.lock().insert(slot);
        }
    }
}

/// Planted bugs of whoever reads the reports.
fn misread(ring: &Ring, reports: &mut Reports) {
    let moving = (0u32..).zip(&ring.partitions).filter(|(_, placement)| placement.also.is_some());
    let synced = moving.map(|(partition, placement)| (partition, placement.since));
    if planted::is("old-list-dropped-early") {
        for member in &ring.members {
            reports.entry(member.incarnation).or_default().epoch = ring.epoch;
        }
    }
    if planted::is("new-list-served-early") {
        reports.values_mut().for_each(|report| report.synced.extend(synced.clone()));
    }
}

/// A slot that answers with another incarnation than the ring knows has lost the volume of that one.
fn note_destroyed(shared: &Shared, ring: &Ring, answers: &Answers) {
    for member in &ring.members {
        let Some(status) = slot_of(&member.name).and_then(|slot| answers.get(&slot)) else { continue };
        if incarnation(status).is_some_and(|incarnation| incarnation != member.incarnation) {
            shared.wanted.lock().gone.insert(member.incarnation);
        }
    }
}

/// What is left to do once the lists are as wished: pods to take away on proof, and nodes that are not done yet.
fn unfinished(shared: &Shared, ring: &Ring, answers: &Answers, complete: bool) -> Vec<String> {
    let mut left = Vec::new();
    if !complete {
        left.push(String::from("not everyone wanted has answered"));
    }
    for member in &ring.members {
        let slot = slot_of(&member.name);
        let answer = slot.and_then(|slot| answers.get(&slot));
        let Some((slot, status)) = slot.zip(answer) else {
            left.push(format!("{} does not answer", member.name));
            continue;
        };
        if member.state == MemberState::Leaving {
            left.push(format!("{} leaves", member.name));
            let proof =
                certificate(status).map(|certificate| moves::may_go(ring, member.incarnation, &certificate));
            if matches!(proof, Ok(Ok(()))) && !shared.wanted.lock().slots.contains(&slot) {
                shared.wanted.lock().removable.insert(slot);
            }
            continue;
        }
        if status.epoch != ring.epoch {
            left.push(format!("{} is at epoch {}", member.name, status.epoch));
        }
        for (what, count) in [
            ("hints", status.hints),
            ("leftover partitions", status.leftover_partitions.into()),
            ("partitions to copy", status.copying_partitions.into()),
            ("unreachable peers", status.unreachable.len() as u64),
        ] {
            if count > 0 {
                left.push(format!("{} has {count} {what}", member.name));
            }
        }
    }
    left
}

/// Hands the document to everyone who is behind.
async fn publish(shared: &Shared, connector: &Connector, answers: &Answers) {
    let Some(ring) = shared.ring.lock().clone() else { return };
    let json = Bytes::from(to_json(&ring));
    let behind = answers.iter().filter(|(_, status)| status.epoch < ring.epoch);
    let handed = behind.map(|(slot, _)| {
        let json = json.clone();
        async move {
            let mut client = client(connector, *slot).await?;
            tokio::time::timeout(CALL_TIMEOUT, client.install_ring(InstallRingRequest { ring: json })).await.ok()
        }
    });
    join_all(handed).await;
    if shared.phase() == Phase::Start && answers.values().all(|status| status.epoch == ring.epoch) {
        shared.enter(Phase::Chaos);
    }
}

async fn client(connector: &Connector, slot: usize) -> Option<ControlClient<tonic::transport::Channel>> {
    let address = format!("{}:{PEER_PORT}", name(slot));
    let channel = net::channel(connector, &address, CALL_TIMEOUT).await.ok()?;
    Some(ControlClient::new(channel).max_decoding_message_size(RING_BYTES_MAX))
}

fn wish(shared: &Shared, members: Vec<Wanted>) -> Option<Wish> {
    let (gone, quorums) = {
        let wanted = shared.wanted.lock();
        (wanted.gone.clone(), wanted.quorums)
    };
    let partitions = PartitionCount::new(shared.scenario.partitions).ok()?;
    Some(Wish { partitions, quorums, members, gone })
}

fn wanted(slot: usize, incarnation: Uuid) -> Wanted {
    let name = name(slot);
    Wanted {
        incarnation,
        peer_address: format!("{name}:{PEER_PORT}"),
        client_address: format!("{name}:{RESP_PORT}"),
        name,
        zone: None,
        weight: 1,
    }
}

fn incarnation(status: &NodeStatus) -> Option<Uuid> {
    uuid_from("incarnation", &status.incarnation).ok()
}

fn slot_of(name: &str) -> Option<usize> {
    name.strip_prefix('n')?.parse().ok()
}

fn describe(ring: &Ring) -> String {
    let moving = ring.partitions.iter().filter(|placement| placement.also.is_some()).count();
    let members: Vec<String> =
        ring.members.iter().map(|member| format!("{}:{} {:?}", member.index, member.name, member.state)).collect();
    format!("{moving} of {} partitions move; {}", ring.partitions.len(), members.join(", "))
}

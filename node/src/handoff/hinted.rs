//! Delivering hints: to the member they were written for as soon as it answers, or, when the ring has moved the
//! partition away from it, to those that hold the partition now.

use crate::peers::Peers;
use crate::planted;
use crate::replica::{HeldHint, Replica};
use crate::ring_state::{Installed, RingState};
use annulus_proto::v1::{reply, request::Operation};
use dynamo::hlc::Hlc;
use dynamo::object::Object;
use dynamo::preference::MemberIndex;
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PAGE_HINTS_MAX: usize = 256;
/// Hints under way at once: the back-pressure on the receiver.
const AT_ONCE_MAX: usize = 32;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Delivers hints until shutdown, with a pause between two rounds over them.
pub async fn deliver_hints(
    pause: Duration,
    ring: Arc<RingState>,
    replica: Arc<Replica>,
    peers: Arc<Peers>,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        if replica.hints.held().0 == 0 {
            continue;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = round(&ring, &replica, &peers) => {}
        }
    }
}

/// One walk over all hints.
async fn round(ring: &RingState, replica: &Replica, peers: &Peers) {
    let (mut after, mut oldest_ms) = (None, None);
    loop {
        // What is read here is on its way until the next page is.
        let _flight = replica.take_off();
        let (hints, more) = match replica.hints.page(after.clone(), PAGE_HINTS_MAX) {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "hints cannot be read");
                return;
            }
        };
        let Some((_, last)) = hints.last() else {
            replica.hints.note_oldest(oldest_ms);
            return;
        };
        after = Some(last.hint_key.clone());
        oldest_ms = hints.iter().filter_map(|(_, hint)| written_ms(hint)).chain(oldest_ms).min();
        let Some(installed) = ring.load() else { return };
        futures::stream::iter(hints)
            .for_each_concurrent(AT_ONCE_MAX, |(target, hint)| {
                let installed = installed.clone();
                async move { deliver(&installed, replica, peers, target, hint).await }
            })
            .await;
        if !more {
            replica.hints.note_oldest(oldest_ms);
            return;
        }
    }
}

fn written_ms(hint: &HeldHint) -> Option<u64> {
    let object = Object::decode(hint.object.clone()).ok()?;
    object.max_timestamp().map(Hlc::millis)
}

async fn deliver(installed: &Installed, replica: &Replica, peers: &Peers, target: Uuid, hint: HeldHint) {
    for receiver in receivers(installed, target, &hint) {
        let stored = store_at(installed, replica, peers, receiver, &hint).await;
        if !stored && !planted::is("hint-dropped-unacknowledged") {
            // Not everyone has it: the hint stays, and is tried again in the next round.
            return;
        }
    }
    if let Err(error) = replica.hints.delivered(&hint).await {
        tracing::debug!(%error, "a delivered hint stays for now");
    }
}

/// Who has to have the object before the hint may go: its target while the ring lists it for the partition, else
/// everyone who holds the partition now.
fn receivers(installed: &Installed, target: Uuid, hint: &HeldHint) -> Vec<MemberIndex> {
    let partition = installed.view.partition(hint.token);
    let holders = installed.view.placement(partition).map(|placement| placement.holders()).unwrap_or_default();
    let member = installed.view.ring().member_by_incarnation(target);
    match member.filter(|member| holders.contains(&member.index)) {
        Some(member) => vec![member.index],
        None if planted::is("hint-dropped-on-ring-change") => Vec::new(),
        None => holders,
    }
}

async fn store_at(
    installed: &Installed,
    replica: &Replica,
    peers: &Peers,
    receiver: MemberIndex,
    hint: &HeldHint,
) -> bool {
    let since = installed.view.since(hint.token);
    if installed.me == Some(receiver) {
        return match replica.merge(hint.token, &hint.key, hint.object.clone(), since).await {
            Ok(Some(durable)) => durable.await.is_ok(),
            Ok(None) => true,
            Err(_) => false,
        };
    }
    let Some(peer) = peers.by_index(receiver) else { return false };
    let request = peer.request(hint.key.clone(), since, Operation::Store(hint.object.clone()));
    matches!(tokio::time::timeout(ANSWER_TIMEOUT, request).await, Ok(Ok(reply::Result::Stored(_))))
}

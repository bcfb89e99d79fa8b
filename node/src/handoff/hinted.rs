//! Delivering hints: to the member they were written for as soon as it answers, or, when the ring has moved the
//! partition away from it, to those that hold the partition now. Clients come first: it goes as fast as they bear.

mod due;

use super::foreground::Foreground;
use super::give_way::GiveWay;
use crate::peers::Peers;
use crate::planted;
use crate::replica::{HeldHint, Replica};
use crate::ring_state::{Installed, RingState};
use annulus_proto::v1::{reply, request::Operation};
use bytes::Bytes;
use due::{Surroundings, Tries, Walked};
use dynamo::hlc::Hlc;
use dynamo::object::Object;
use dynamo::preference::MemberIndex;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PAGE_HINTS_MAX: usize = 256;
/// Hints of one member under way at once: the back-pressure on the receiver.
const AT_ONCE_MAX: usize = 32;
/// Members whose hints are gone through at once.
const WALKS_MAX: usize = 4;
/// What giving a hint to somebody is taken for at least, in bytes: what a request costs both ends.
const HINT_BYTES_MIN: u64 = 1 << 10;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What delivering hints takes.
pub struct Delivery {
    /// Between two looks at whose hints are to be delivered.
    pub pause: Duration,
    /// The ring of this node.
    pub ring: Arc<RingState>,
    /// Where the hints are.
    pub replica: Arc<Replica>,
    /// Who they are for.
    pub peers: Arc<Peers>,
    /// Whom it gives way to.
    pub foreground: Arc<Foreground>,
}

/// Where a hint has gone.
struct Given {
    /// Whether everyone has it who has to.
    to_all: bool,
    /// What that is to be taken for.
    bytes: u64,
}

impl Delivery {
    /// Delivers hints until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let (mut tries, mut walks) = (Tries::new(self.pause), FuturesUnordered::new());
        let mut pace = Arc::new(GiveWay::new(self.foreground.clone()));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some((target, walked)) = walks.next() => tries.ended(target, walked, Instant::now()),
                () = tokio::time::sleep(self.pause) => {
                    if walks.is_empty() {
                        pace = Arc::new(GiveWay::new(self.foreground.clone()));
                    }
                    let due = self.due(&mut tries, WALKS_MAX - walks.len());
                    walks.extend(due.into_iter().map(|target| self.walk(target, pace.clone())));
                }
            }
            self.replica.hints.note_oldest(tries.oldest_ms());
        }
    }

    /// Whose hints are to be gone through now, those first that can be delivered.
    fn due(&self, tries: &mut Tries, walks_max: usize) -> Vec<Uuid> {
        let targets = self.replica.hints.targets();
        tries.keep(&targets);
        let Some(installed) = self.ring.load() else { return Vec::new() };
        let surroundings = |target: Uuid| {
            (target, Surroundings::of(&installed.view, target, |index| self.is_reached(&installed, index)))
        };
        let (reached, others): (Vec<_>, Vec<_>) =
            targets.into_iter().map(surroundings).partition(|(_, seen)| seen.is_reached());
        let (targets, now) = (reached.into_iter().chain(others), Instant::now());
        targets
            .filter_map(|(target, seen)| tries.begin(target, seen, now).then_some(target))
            .take(walks_max)
            .collect()
    }

    fn is_reached(&self, installed: &Installed, index: MemberIndex) -> bool {
        installed.me == Some(index) || self.peers.by_index(index).is_some_and(|peer| peer.is_up())
    }

    /// Goes through the hints for a member once.
    async fn walk(&self, target: Uuid, pace: Arc<GiveWay>) -> (Uuid, Walked) {
        let (mut walked, mut after) = (Walked::default(), None);
        loop {
            let (bytes, next) = self.page(target, after, &mut walked).await;
            match bytes {
                // Requests get their turn.
                0 => tokio::task::yield_now().await,
                bytes => pace.pay(bytes).await,
            }
            if next.is_none() {
                return (target, walked);
            }
            after = next;
        }
    }

    /// Delivers the hints of a page. Returns what that is to be taken for, in bytes, and where the next page begins.
    async fn page(&self, target: Uuid, after: Option<Bytes>, walked: &mut Walked) -> (u64, Option<Bytes>) {
        // What is read here is on its way until the last of it is stored.
        let _flight = self.replica.take_off();
        let page = match self.replica.hints.page(target, after, PAGE_HINTS_MAX) {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "hints cannot be read");
                return (0, None);
            }
        };
        let Some(installed) = self.ring.load() else { return (0, None) };
        let installed = &installed;
        let mut answers = futures::stream::iter(page.hints)
            .map(|hint| async move { (self.give(installed, target, &hint).await, hint) })
            .buffer_unordered(AT_ONCE_MAX);
        let (mut delivered, mut bytes) = (Vec::new(), 0);
        while let Some((given, hint)) = answers.next().await {
            bytes += given.bytes;
            if given.to_all || planted::is("hint-dropped-unacknowledged") {
                delivered.push(hint);
            } else {
                walked.oldest_ms = written_ms(&hint).into_iter().chain(walked.oldest_ms).min();
            }
        }
        match self.replica.hints.delivered(&delivered).await {
            Ok(()) => walked.delivered += delivered.len() as u64,
            Err(error) => tracing::debug!(%error, "delivered hints stay for now"),
        }
        (bytes, page.next)
    }

    /// Gives the object to whoever has to have it before the hint may go. If not everyone takes it the hint stays, and is
    /// tried again.
    async fn give(&self, installed: &Installed, target: Uuid, hint: &HeldHint) -> Given {
        let mut given = Given { to_all: true, bytes: 0 };
        for receiver in receivers(installed, target, hint) {
            if !self.is_reached(installed, receiver) || !self.store_at(installed, receiver, hint).await {
                given.to_all = false;
                return given;
            }
            given.bytes += HINT_BYTES_MIN.max(hint.object.len() as u64);
        }
        given
    }

    async fn store_at(&self, installed: &Installed, receiver: MemberIndex, hint: &HeldHint) -> bool {
        let since = installed.view.since(hint.token);
        if installed.me == Some(receiver) {
            return match self.replica.merge(hint.token, &hint.key, hint.object.clone(), since).await {
                Ok(Some(durable)) => durable.await.is_ok(),
                Ok(None) => true,
                Err(_) => false,
            };
        }
        let Some(peer) = self.peers.by_index(receiver) else { return false };
        let request = peer.request(hint.key.clone(), since, Operation::Store(hint.object.clone()));
        matches!(tokio::time::timeout(ANSWER_TIMEOUT, request).await, Ok(Ok(reply::Result::Stored(_))))
    }
}

fn written_ms(hint: &HeldHint) -> Option<u64> {
    let object = Object::decode(hint.object.clone()).ok()?;
    object.max_timestamp().map(Hlc::millis)
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

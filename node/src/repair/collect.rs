//! Leading collections: the owner of a partition finds what is dead in it and asks all members; see `dynamo::collect`.

use super::collect_serve::{OBJECTS_MAX, collect, is_dead};
use crate::config::Limits;
use crate::peers::{BulkError, Peers};
use crate::replica::{Replica, split_storage_key};
use crate::ring_state::{Installed, RingState};
use crate::storage::{EngineError, ScanRange, Space};
use annulus_proto::v1::peer_client::PeerClient;
use annulus_proto::v1::{CollectRequest, DeadObject, collect_request};
use bytes::Bytes;
use dynamo::collect::{Collection, Stage};
use dynamo::object::Object;
use dynamo::preference::MemberIndex;
use dynamo::reconcile::item_hash;
use dynamo::ring::Member;
use dynamo::token::{slot_tokens, slots};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A member may wait for its peers meanwhile.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Bytes of keys in one collection, give or take one.
const KEYS_BYTES_MAX: usize = 1 << 20;
/// Objects that a round looks at, give or take a hash slot.
const LOOKED_AT_MAX: usize = 100_000;
/// After a round that took long there is a pause of as many times that, so that others have most of the machine, but of no
/// more than so many of the usual pauses.
const PAUSE_PER_ROUND: u32 = 20;
const PAUSE_LONGEST: u32 = 5;
const PAGE_ITEMS: usize = 1024;
const PAGE_BYTES: usize = 2 << 20;

/// Collecting what is dead, as far as this node leads.
pub struct Collector {
    ring: Arc<RingState>,
    replica: Arc<Replica>,
    peers: Arc<Peers>,
    pause: Duration,
    view: Mutex<CollectorView>,
}

/// What was collected since the node started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectorView {
    /// Objects removed everywhere under this node's lead.
    pub collected: u64,
    /// Attempts that ended early.
    pub failed: u64,
    /// Why the last attempt ended early; `None`: it did not.
    pub blocked_by: Option<String>,
}

/// Why an attempt ended early. Nothing was removed, or some holders have removed what the others will remove later.
#[derive(Debug, thiserror::Error)]
enum CollectError {
    #[error("{0} cannot be reached")]
    Away(String),
    #[error(transparent)]
    Bulk(#[from] BulkError),
    #[error("{0}")]
    Status(#[from] tonic::Status),
    #[error("no answer within {CALL_TIMEOUT:?}")]
    TimedOut(#[from] tokio::time::error::Elapsed),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Collector {
    /// Collecting that has yet to be run.
    #[must_use]
    pub fn new(ring: Arc<RingState>, replica: Arc<Replica>, peers: Arc<Peers>, limits: &Limits) -> Arc<Self> {
        Arc::new(Self { ring, replica, peers, pause: limits.collect_pause, view: Mutex::default() })
    }

    /// What was done so far.
    #[must_use]
    pub fn view(&self) -> CollectorView {
        self.view.lock().clone()
    }

    /// Collects until shutdown.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let (mut from_slot, mut pause) = (0, self.pause);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let began = Instant::now();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.round(&mut from_slot) => {}
            }
            pause = (began.elapsed() * PAUSE_PER_ROUND).clamp(self.pause, self.pause * PAUSE_LONGEST);
        }
    }

    /// Goes once around the hash slots that this node owns, or as far as a round may go, and remembers where it was.
    async fn round(&self, from_slot: &mut usize) {
        let Some(installed) = self.ring.load() else { return };
        let mut slots = self.owned_slots_with_dead(&installed);
        let turn = slots.partition_point(|slot| slot < from_slot);
        slots.rotate_left(turn);
        let (mut dead, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
        let mut slots = slots.into_iter().peekable();
        while let Some(slot) = slots.next() {
            *from_slot = slot + 1;
            match self.find(&installed, slot).await {
                Ok((found, items)) => {
                    bytes += found.iter().map(|object| object.key.len()).sum::<usize>();
                    looked_at += items;
                    dead.extend(found);
                }
                Err(error) => tracing::warn!(%error, "what is dead cannot be looked for"),
            }
            let over = looked_at >= LOOKED_AT_MAX || slots.peek().is_none();
            if !dead.is_empty() && (over || dead.len() >= OBJECTS_MAX || bytes >= KEYS_BYTES_MAX) {
                bytes = 0;
                for objects in std::mem::take(&mut dead).chunks(OBJECTS_MAX) {
                    if !self.attempt(&installed, objects).await {
                        return;
                    }
                }
            }
            if over {
                return;
            }
        }
    }

    /// Tries to collect some objects. Returns whether all members answered.
    async fn attempt(&self, installed: &Installed, objects: &[DeadObject]) -> bool {
        let outcome = self.lead(installed, objects).await;
        let mut view = self.view.lock();
        match outcome {
            Ok(collected) => {
                view.collected += collected as u64;
                view.blocked_by = None;
                true
            }
            Err(error) => {
                tracing::debug!(%error, "what is dead is not collected yet");
                view.failed += 1;
                view.blocked_by = Some(error.to_string());
                false
            }
        }
    }

    fn owned_slots_with_dead(&self, installed: &Installed) -> Vec<usize> {
        let (count, now_ms) = (installed.view.count(), self.replica.now_ms());
        let owned = (0u32..).zip(&installed.view.ring().partitions).filter(|(_, placement)| {
            placement.also.is_none() && placement.preference.first().copied() == installed.me
        });
        let slots = owned.flat_map(|(partition, _)| slots(partition, count));
        slots.filter(|&slot| self.replica.counters().has_dead(slot, now_ms)).collect()
    }

    /// What is dead in a hash slot, and how many objects were looked at.
    async fn find(&self, installed: &Installed, slot: usize) -> Result<(Vec<DeadObject>, usize), EngineError> {
        let Ok(slot_number) = u16::try_from(slot) else { return Ok((Vec::new(), 0)) };
        let (first, last) = slot_tokens(slot_number);
        let mut range = ScanRange::tokens(first, last);
        let now_ms = self.replica.now_ms();
        let look = self.replica.counters().look(slot);
        let (mut dead, mut items) = (Vec::new(), 0);
        loop {
            let page = self.replica.engine().scan(Space::Data, &range, PAGE_ITEMS, PAGE_BYTES)?;
            items += page.items.len();
            for (storage_key, encoded) in &page.items {
                let due = Object::decode(encoded.clone()).ok().and_then(|object| object.dead_from_ms());
                if let Some(due_ms) = due.filter(|&due_ms| due_ms > 0) {
                    self.replica.counters().due(slot, due_ms);
                }
                let Some((token, key)) = split_storage_key(storage_key) else { continue };
                if is_dead(encoded, now_ms) && installed.view.token(&key) == token {
                    dead.push(DeadObject { key, hash: item_hash(storage_key, encoded) });
                }
            }
            match page.items.last() {
                Some((last, _)) if page.more => range.after = Some(last.clone()),
                _ => {
                    look.end();
                    return Ok((dead, items));
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Leads all members through the stages. Returns how many objects were removed everywhere.
    async fn lead(&self, installed: &Installed, objects: &[DeadObject]) -> Result<usize, CollectError> {
        let members = &installed.view.ring().members;
        for member in members.iter().filter(|member| installed.me != Some(member.index)) {
            if !self.peers.by_incarnation(member.incarnation).is_some_and(|peer| peer.is_up()) {
                return Err(CollectError::Away(member.name.clone()));
            }
        }
        let mut collection = Collection::new(members.iter().map(|member| member.index), objects.len());
        while collection.stage() != Stage::Done {
            let positions: Vec<usize> = collection.left().collect();
            let left: Vec<DeadObject> = positions.iter().map(|&position| objects[position].clone()).collect();
            let stage = message_stage(collection.stage());
            let open: Vec<MemberIndex> = collection.open().collect();
            let asked = members.iter().filter(|member| open.contains(&member.index));
            let mut answers: FuturesUnordered<_> =
                asked.map(|member| self.ask(installed, member, stage, left.clone())).collect();
            while let Some(answer) = answers.next().await {
                let (member, refused) = answer?;
                let refused = refused.into_iter().filter_map(|at| positions.get(at as usize).copied());
                collection.answered(member, refused);
            }
        }
        Ok(collection.left().count())
    }

    async fn ask(
        &self,
        installed: &Installed,
        member: &Member,
        stage: collect_request::Stage,
        objects: Vec<DeadObject>,
    ) -> Result<(MemberIndex, Vec<u32>), CollectError> {
        let objects = if stage == collect_request::Stage::Settle { Vec::new() } else { objects };
        let request = CollectRequest {
            cluster: Bytes::copy_from_slice(self.ring.cluster().as_bytes()),
            epoch: installed.view.epoch(),
            incarnation: Bytes::copy_from_slice(member.incarnation.as_bytes()),
            stage: stage.into(),
            objects,
        };
        if installed.me == Some(member.index) {
            let here = collect(&self.ring, &self.replica, &self.peers, &request);
            return Ok((member.index, tokio::time::timeout(CALL_TIMEOUT, here).await??.refused));
        }
        let (channel, _) = self.peers.bulk_channel(member.index).await?;
        let mut client = PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let reply = tokio::time::timeout(CALL_TIMEOUT, client.collect(request)).await??;
        Ok((member.index, reply.into_inner().refused))
    }
}

fn message_stage(stage: Stage) -> collect_request::Stage {
    match stage {
        Stage::Confirm => collect_request::Stage::Confirm,
        Stage::Settle | Stage::SettleAgain => collect_request::Stage::Settle,
        Stage::Check => collect_request::Stage::Check,
        Stage::Remove => collect_request::Stage::Remove,
        Stage::Done => collect_request::Stage::Unknown,
    }
}

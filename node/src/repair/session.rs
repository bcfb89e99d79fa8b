//! One comparison with one member, from the roots down to the items.

use super::range::{self, Item};
use super::serve::{self, PARTITIONS_MAX, RANGES_MAX};
use crate::peers::{BulkError, Peer, Peers};
use crate::replica::{Replica, ReplicaError};
use crate::ring_state::{Installed, RingState};
use crate::storage::{EngineError, StorageError};
use annulus_proto::v1::peer_client::PeerClient;
use annulus_proto::v1::{
    ItemRange, ItemsReply, ItemsRequest, Read, RootsRequest, Seen, reply, request::Operation,
};
use bytes::Bytes;
use dynamo::object::{CodecError, Context, ContextError, Object};
use dynamo::preference::MemberIndex;
use dynamo::reconcile::{self, Exchange, leaf_tokens, short};
use dynamo::token::Token;
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Channel;

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// A leaf with more items is first compared in parts of [`PART_ITEMS`].
const LEAF_ITEMS_MAX: usize = 128;
const PART_ITEMS: usize = 32;
/// Leaves whose items are compared by one call.
const LEAVES_AT_ONCE: usize = 256;
/// Single objects sent or fetched at once.
const OBJECTS_AT_ONCE: usize = 64;

/// Why a comparison ended early. What was merged until then stays.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Bulk(#[from] BulkError),
    #[error("{0}")]
    Status(#[from] tonic::Status),
    #[error("no answer within {CALL_TIMEOUT:?}")]
    TimedOut(#[from] tokio::time::error::Elapsed),
    #[error("its answer does not fit the question")]
    Shape,
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("it sent an object that cannot be decoded: {0}")]
    Codec(#[from] CodecError),
    #[error("it sent a context that cannot be decoded: {0}")]
    Context(#[from] ContextError),
    #[error("it did not take an object")]
    NotTaken,
    #[error("the ring has changed")]
    RingChanged,
}

/// What a comparison found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Partitions whose roots differed.
    pub partitions: u64,
    /// Leaves that differed.
    pub leaves: u64,
    /// Objects fetched from the other side.
    pub fetched: u64,
    /// Objects sent to it.
    pub sent: u64,
    /// Bytes of messages in both directions, without what the transport adds.
    pub bytes: u64,
}

pub(super) struct Session<'a> {
    pub ring: &'a RingState,
    pub replica: &'a Replica,
    pub peers: &'a Peers,
    pub peer: Arc<Peer>,
    pub installed: Arc<Installed>,
    pub member: MemberIndex,
    pub salt: u64,
    /// Most bytes a second that are exchanged.
    pub bytes_per_second_max: u64,
    pub found: Found,
}

impl Session<'_> {
    /// Compares everything that both hold, and makes both have all of it.
    pub(super) async fn run(&mut self) -> Result<(), SessionError> {
        let shared = serve::shared_with(&self.installed, self.peer.incarnation());
        if shared.is_empty() {
            return Ok(());
        }
        let (channel, _) = self.peers.bulk_channel(self.member).await?;
        let mut client = PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let ours = serve::partition_roots(self.replica, &self.installed, &shared);
        let request = RootsRequest { root: reconcile::root(ours.iter().copied()), ..self.roots_request() };
        let theirs = self.ask_roots(&mut client, request).await?;
        if theirs.is_empty() {
            return Ok(());
        }
        let (theirs, rest) = theirs.as_chunks::<8>();
        if theirs.len() != ours.len() || !rest.is_empty() {
            return Err(SessionError::Shape);
        }
        let differs = ours.iter().zip(theirs).map(|(ours, theirs)| *ours != u64::from_le_bytes(*theirs));
        let differing: Vec<u32> =
            shared.iter().zip(differs).filter(|(_, differs)| *differs).map(|(partition, _)| *partition).collect();
        self.found.partitions += differing.len() as u64;
        for partitions in differing.chunks(PARTITIONS_MAX) {
            let leaves = self.differing_leaves(&mut client, partitions).await?;
            self.found.leaves += leaves.len() as u64;
            for leaves in leaves.chunks(LEAVES_AT_ONCE) {
                self.compare_leaves(&mut client, leaves).await?;
            }
        }
        Ok(())
    }

    fn roots_request(&self) -> RootsRequest {
        RootsRequest {
            cluster: Bytes::copy_from_slice(self.ring.cluster().as_bytes()),
            epoch: self.installed.view.epoch(),
            incarnation: Bytes::copy_from_slice(self.peer.incarnation().as_bytes()),
            sender: Bytes::copy_from_slice(self.ring.incarnation().as_bytes()),
            salt: self.salt,
            ..RootsRequest::default()
        }
    }

    async fn ask_roots(
        &mut self,
        client: &mut PeerClient<Channel>,
        request: RootsRequest,
    ) -> Result<Bytes, SessionError> {
        self.found.bytes += 80 + 3 * request.partitions.len() as u64;
        let reply = tokio::time::timeout(CALL_TIMEOUT, client.roots(request)).await??.into_inner();
        self.found.bytes += reply.roots.len() as u64;
        Ok(reply.roots)
    }

    async fn differing_leaves(
        &mut self,
        client: &mut PeerClient<Channel>,
        partitions: &[u32],
    ) -> Result<Vec<usize>, SessionError> {
        let count = self.installed.view.count().get();
        let request = RootsRequest { partitions: partitions.to_vec(), ..self.roots_request() };
        let theirs = self.ask_roots(client, request).await?;
        let (theirs, _) = theirs.as_chunks::<2>();
        let leaves: Vec<usize> = partitions.iter().flat_map(|&p| serve::leaves_of(p, count)).collect();
        if theirs.len() != leaves.len() {
            return Err(SessionError::Shape);
        }
        let ours = leaves.iter().flat_map(|&leaf| self.replica.leaves().sums(leaf..leaf + 1));
        let ours: Vec<u16> = ours.map(|sum| short(sum, self.salt)).collect();
        let differs = ours.iter().zip(theirs).map(|(ours, theirs)| *ours != u16::from_le_bytes(*theirs));
        Ok(leaves.iter().zip(differs).filter(|(_, differs)| *differs).map(|(leaf, _)| *leaf).collect())
    }

    async fn compare_leaves(
        &mut self,
        client: &mut PeerClient<Channel>,
        leaves: &[usize],
    ) -> Result<(), SessionError> {
        let _flight = self.replica.take_off();
        self.replica.committer().barrier().await?;
        let (mut small, mut parts) = (Vec::new(), Vec::new());
        for &leaf in leaves {
            let (first, last) = leaf_tokens(leaf);
            let items = range::read(self.replica, first, last).await?;
            if items.len() > LEAF_ITEMS_MAX {
                parts.extend(cut(first, last, items));
            } else {
                small.push((first, last, items));
            }
        }
        while !parts.is_empty() {
            let asked: Vec<Part> = parts.drain(..parts.len().min(RANGES_MAX)).collect();
            let ranges = asked.iter().map(|(first, last, items)| range::with_sum(*first, *last, items, self.salt));
            let reply = self.ask_items(client, ranges.collect()).await?;
            if reply.ranges.len() != asked.len() {
                return Err(SessionError::Shape);
            }
            let differing = asked.into_iter().zip(reply.ranges).filter(|(_, reply)| reply.differs);
            small.extend(differing.map(|(part, _)| part));
        }
        while !small.is_empty() {
            let asked = small.iter().take(RANGES_MAX);
            let ranges = asked.map(|(first, last, items)| range::with_items(*first, *last, items, self.salt));
            let reply = self.ask_items(client, ranges.collect()).await?;
            // At least one, so that this comes to an end; what was left out is asked for again.
            if reply.ranges.is_empty() || reply.ranges.len() > small.len() {
                return Err(SessionError::Shape);
            }
            let answered: Vec<Part> = small.drain(..reply.ranges.len()).collect();
            self.settle(answered, reply).await?;
        }
        Ok(())
    }

    async fn ask_items(
        &mut self,
        client: &mut PeerClient<Channel>,
        ranges: Vec<ItemRange>,
    ) -> Result<ItemsReply, SessionError> {
        let sent: usize = ranges.iter().map(|range| 24 + range.hashes.len()).sum();
        let request = ItemsRequest {
            cluster: Bytes::copy_from_slice(self.ring.cluster().as_bytes()),
            epoch: self.installed.view.epoch(),
            incarnation: Bytes::copy_from_slice(self.peer.incarnation().as_bytes()),
            salt: self.salt,
            ranges,
        };
        let reply = tokio::time::timeout(CALL_TIMEOUT, client.items(request)).await??.into_inner();
        let received: usize = reply
            .ranges
            .iter()
            .map(|range| {
                let items = range.items.iter().map(|item| 8 + item.key.len() + item.object.len());
                let seen = range.seen.iter().map(|seen| 6 + seen.key.len() + seen.context.len());
                4 + 2 * range.unknown.len() + items.sum::<usize>() + seen.sum::<usize>()
            })
            .sum();
        self.spend(sent + received).await;
        Ok(reply)
    }

    /// Counts bytes and waits for as long as they are to take.
    async fn spend(&mut self, bytes: usize) {
        self.found.bytes += bytes as u64;
        let micros = (bytes as u64).saturating_mul(1_000_000) / self.bytes_per_second_max.max(1);
        if micros > 0 {
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
    }

    /// Merges what came, and sends or fetches what either side lacks.
    async fn settle(&mut self, parts: Vec<Part>, reply: ItemsReply) -> Result<(), SessionError> {
        let mut durable = Vec::new();
        let (mut send, mut fetch) = (BTreeSet::new(), BTreeSet::new());
        for ((_, _, items), answer) in parts.into_iter().zip(reply.ranges) {
            for item in answer.items {
                self.found.fetched += 1;
                let token = self.installed.view.token(&item.key);
                durable.extend(self.replica.merge(token, &item.key, item.object, self.since(token)?).await?);
            }
            let unknown = answer.unknown.iter().filter_map(|&at| items.get(at as usize));
            let mut unknown: BTreeMap<Bytes, ()> = unknown.map(|item| (item.key.clone(), ())).collect();
            for seen in answer.seen {
                let ours = unknown.remove(&seen.key).is_some();
                match self.decide(&seen, ours)? {
                    Exchange::Send => send.extend([seen.key]),
                    Exchange::Fetch => fetch.extend([(seen.key, false)]),
                    Exchange::Both => fetch.extend([(seen.key, true)]),
                }
            }
            send.extend(unknown.into_keys());
        }
        for stored in durable {
            stored.await?;
        }
        self.fetch(fetch).await?;
        self.send(send).await
    }

    fn decide(&self, seen: &Seen, ours: bool) -> Result<Exchange, SessionError> {
        let token = self.installed.view.token(&seen.key);
        let here = if ours { self.replica.read(token, &seen.key, self.since(token)?)? } else { None };
        let Some(here) = here else { return Ok(Exchange::Fetch) };
        Ok(reconcile::exchange(&Object::decode(here)?.context(), &Context::decode(&seen.context)?))
    }

    /// Fetches objects and merges them; those marked are sent back afterwards, with what is here.
    async fn fetch(&mut self, keys: BTreeSet<(Bytes, bool)>) -> Result<(), SessionError> {
        self.in_force()?;
        let (peer, replica, view) = (self.peer.clone(), self.replica, self.installed.view.clone());
        let fetched: Vec<Result<(Bytes, bool, usize), SessionError>> = futures::stream::iter(keys)
            .map(|(key, send_back)| {
                let (peer, view) = (peer.clone(), view.clone());
                async move {
                    let token = view.token(&key);
                    let since = view.since(token);
                    let answer = peer.request(key.clone(), since, Operation::Read(Read { known: None }));
                    let Ok(Ok(reply::Result::Object(object))) = tokio::time::timeout(CALL_TIMEOUT, answer).await
                    else {
                        return Err(SessionError::NotTaken);
                    };
                    let bytes = 40 + key.len() + object.len();
                    if !object.is_empty()
                        && let Some(durable) = replica.merge(token, &key, object, since).await?
                    {
                        durable.await?;
                    }
                    Ok((key, send_back, bytes))
                }
            })
            .buffer_unordered(OBJECTS_AT_ONCE)
            .collect()
            .await;
        let mut send_back = BTreeSet::new();
        for outcome in fetched {
            let (key, back, bytes) = outcome?;
            self.found.fetched += 1;
            self.spend(bytes).await;
            if back {
                send_back.insert(key);
            }
        }
        self.send(send_back).await
    }

    /// Sends what is here of some keys.
    async fn send(&mut self, keys: BTreeSet<Bytes>) -> Result<(), SessionError> {
        self.in_force()?;
        let (peer, replica, view) = (self.peer.clone(), self.replica, self.installed.view.clone());
        let sent: Vec<Result<usize, SessionError>> = futures::stream::iter(keys)
            .map(|key| {
                let (peer, view) = (peer.clone(), view.clone());
                async move {
                    let token = view.token(&key);
                    let since = view.since(token);
                    let Some(object) = replica.read(token, &key, since)? else { return Ok(0) };
                    let bytes = 40 + key.len() + object.len();
                    let answer = peer.request(key, since, Operation::Store(object));
                    match tokio::time::timeout(CALL_TIMEOUT, answer).await {
                        Ok(Ok(reply::Result::Stored(_))) => Ok(bytes),
                        _ => Err(SessionError::NotTaken),
                    }
                }
            })
            .buffer_unordered(OBJECTS_AT_ONCE)
            .collect()
            .await;
        for outcome in sent {
            let bytes = outcome?;
            self.found.sent += u64::from(bytes > 0);
            self.spend(bytes).await;
        }
        Ok(())
    }

    /// Since when the lists of a key are what they are, as long as the ring of the comparison is in force.
    fn since(&self, token: Token) -> Result<u64, SessionError> {
        self.in_force().map(|()| self.installed.view.since(token))
    }

    fn in_force(&self) -> Result<(), SessionError> {
        if self.ring.epoch() == self.installed.view.epoch() { Ok(()) } else { Err(SessionError::RingChanged) }
    }
}

/// A range and what is here of it.
type Part = (u64, u64, Vec<Item>);

/// Cuts a leaf into ranges of few items that cover it without gaps. Items with the same token stay together.
fn cut(first: u64, last: u64, items: Vec<Item>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut from = first;
    let mut part: Vec<Item> = Vec::new();
    for item in items {
        if part.len() >= PART_ITEMS && part.last().is_some_and(|before| before.token < item.token) {
            parts.push((from, item.token - 1, std::mem::take(&mut part)));
            from = item.token;
        }
        part.push(item);
    }
    parts.push((from, last, part));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_cut_without_gaps() {
        let item = |token: u64| Item { token, key: Bytes::from(token.to_string()), hash: token };
        for tokens in [vec![], vec![5], (10..500).collect(), vec![7; 300], (0..100).flat_map(|t| [t, t]).collect()]
        {
            let parts = cut(0, 1000, tokens.iter().copied().map(item).collect());
            assert_eq!((parts[0].0, parts[parts.len() - 1].1), (0, 1000));
            assert!(parts.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0));
            assert!(parts.iter().all(|(from, to, items)| items.iter().all(|i| (*from..=*to).contains(&i.token))));
            assert_eq!(parts.iter().map(|part| part.2.len()).sum::<usize>(), tokens.len());
        }
    }
}

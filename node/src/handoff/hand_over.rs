//! Handing a partition over to those who hold it now, before what is left of it here is dropped.
//!
//! The new holders have copied the partition from enough of the old ones that every write that w of those had is among
//! it. But a write may have been acknowledged on the strength of a hint, and then fewer of the old list have it: what
//! is left here can be one of the copies that the client was promised. So it is given to the holders before it goes
//! (the handoff of Riak, which deletes only what the new owner has confirmed); digests keep the cost at what differs.

use super::compare::differing_ranges;
use super::fetch::{FetchError, fetch_digest};
use super::give_way::GiveWay;
use super::serve::local_digests;
use crate::peers::Peers;
use crate::replica::{InFlight, Replica, split_storage_key};
use crate::ring_state::{Installed, RingState};
use crate::storage::{EngineError, ScanRange, Space};
use annulus_proto::v1::{DigestRequest, reply, request::Operation};
use bytes::Bytes;
use dynamo::digest::{Buckets, differing};
use dynamo::preference::MemberIndex;
use dynamo::throttle::CALL_BYTES;
use dynamo::token;
use futures::StreamExt;
use std::time::Duration;

/// Buckets a range is split into at each level.
const FANOUT: usize = 16;
/// A differing range with no more than this is sent instead of split.
const SEND_ITEMS_MAX: usize = 64;
const SEND_BYTES_MAX: usize = 256 << 10;
/// Objects under way to one holder at once.
const AT_ONCE_MAX: usize = 32;
const PAGE_ITEMS: usize = 512;
const PAGE_BYTES: usize = 4 << 20;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a partition was not handed over. What is here stays; what a holder has been given it keeps.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// Too few holders have confirmed that they have all of it.
    #[error("only {confirmed} of {need} holders have confirmed what is here; last: {why}")]
    TooFew {
        /// Holders that have all of it.
        confirmed: usize,
        /// Holders that must.
        need: usize,
        /// Why the last one has not.
        why: String,
    },
    /// A holder's digests could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// This node's engine cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A holder has not confirmed an object.
    #[error("an object was not confirmed")]
    Unconfirmed,
}

/// Sees to it that w of the partition's holders, and as many more as can be reached, have all that is here; at a pace, if
/// one is given.
///
/// # Errors
/// [`HandOverError::TooFew`].
pub(super) async fn hand_over(
    ring: &RingState,
    replica: &Replica,
    peers: &Peers,
    installed: &Installed,
    partition: u32,
    pace: Option<&GiveWay>,
) -> Result<(), HandOverError> {
    let holders = installed.view.placement(partition).map(|placement| placement.preference.clone());
    let holders = holders.unwrap_or_default();
    let need = installed.view.ring().quorums.of_list(holders.len()).1.min(holders.len());
    let (mut confirmed, mut why) = (0, String::from("none was asked"));
    for &holder in &holders {
        if !peers.by_index(holder).is_some_and(|peer| peer.is_up()) {
            why = String::from("not connected");
            continue;
        }
        let giving = Giving { ring, replica, peers, installed, holder, pace };
        match giving.run(partition).await {
            Ok(()) => confirmed += 1,
            Err(error) => why = error.to_string(),
        }
    }
    if confirmed >= need { Ok(()) } else { Err(HandOverError::TooFew { confirmed, need, why }) }
}

/// What is given to whom.
struct Giving<'a> {
    ring: &'a RingState,
    replica: &'a Replica,
    peers: &'a Peers,
    installed: &'a Installed,
    holder: MemberIndex,
    pace: Option<&'a GiveWay>,
}

impl Giving<'_> {
    /// Gives the holder what it lacks of a partition. It has all of it, durably, when this returns.
    async fn run(&self, partition: u32) -> Result<(), HandOverError> {
        let count = self.installed.view.count();
        let (first, last) = (token::first_token(partition, count).0, token::last_token(partition, count).0);
        let request = self.digest_request(first, last);
        let mut ranges = differing_ranges(self.peers, self.replica, self.holder, request).await?;
        let mut load = Load::default();
        while let Some((first, last)) = ranges.pop() {
            // Which of a few differ is not asked: to be told takes longer than to send them.
            if load.take(self.replica, first, last)? {
                if load.is_full() {
                    self.store(std::mem::take(&mut load)).await?;
                }
                continue;
            }
            let Some(buckets) = Buckets::new(first, last, FANOUT) else {
                self.send(first, last).await?;
                continue;
            };
            let theirs = fetch_digest(self.peers, self.holder, self.digest_request(first, last)).await?;
            let ours = local_digests(self.replica, &buckets).await?;
            let differing = differing(&ours, &theirs).into_iter().filter(|&bucket| ours[bucket].count > 0);
            ranges.extend(differing.map(|bucket| buckets.bucket_range(bucket)));
        }
        self.store(load).await
    }

    fn digest_request(&self, first_token: u64, last_token: u64) -> DigestRequest {
        DigestRequest {
            cluster: Bytes::copy_from_slice(self.ring.cluster().as_bytes()),
            epoch: self.installed.view.epoch(),
            first_token,
            last_token,
            fanout: u32::try_from(FANOUT).unwrap_or(1),
            ..DigestRequest::default()
        }
    }

    /// Sends all of a range.
    async fn send(&self, first: u64, last: u64) -> Result<(), HandOverError> {
        let mut range = ScanRange::tokens(first, last);
        loop {
            let flight = self.replica.take_off();
            let page = self.replica.engine().scan(Space::Data, &range, PAGE_ITEMS, PAGE_BYTES)?;
            range.after = page.items.last().map(|(key, _)| key.clone()).filter(|_| page.more);
            let mut load = Load { flight: Some(flight), ..Load::default() };
            load.add(page.items);
            self.store(load).await?;
            if range.after.is_none() {
                return Ok(());
            }
        }
    }

    async fn store(&self, load: Load) -> Result<(), HandOverError> {
        let Load { items, bytes, flight } = load;
        let peer = self.peers.by_index(self.holder).ok_or(HandOverError::Unconfirmed)?;
        let sent = futures::stream::iter(items).map(|(storage_key, object)| {
            let peer = peer.clone();
            async move {
                let Some((token, key)) = split_storage_key(&storage_key) else { return true };
                let request = peer.request(key, self.installed.view.since(token), Operation::Store(object));
                let answer = tokio::time::timeout(ANSWER_TIMEOUT, request).await;
                matches!(answer, Ok(Ok(reply::Result::Stored(_))))
            }
        });
        if !sent.buffer_unordered(AT_ONCE_MAX).all(|stored| async move { stored }).await {
            return Err(HandOverError::Unconfirmed);
        }
        drop(flight);
        if let Some(pace) = self.pace {
            pace.pay(bytes as u64 + CALL_BYTES).await;
        }
        Ok(())
    }
}

/// Objects that are sent together.
#[derive(Default)]
struct Load {
    items: Vec<(Bytes, Bytes)>,
    /// Of all keys and objects.
    bytes: usize,
    /// Since before the first was read.
    flight: Option<InFlight>,
}

impl Load {
    /// Takes all of a range if that is not much; whether it was.
    fn take(&mut self, replica: &Replica, first: u64, last: u64) -> Result<bool, EngineError> {
        let flight = self.flight.take().unwrap_or_else(|| replica.take_off());
        let range = ScanRange::tokens(first, last);
        let page = replica.engine().scan(Space::Data, &range, SEND_ITEMS_MAX, SEND_BYTES_MAX)?;
        if !page.more {
            self.add(page.items);
        }
        self.flight = Some(flight).filter(|_| !self.items.is_empty());
        Ok(!page.more)
    }

    fn add(&mut self, items: Vec<(Bytes, Bytes)>) {
        self.bytes += items.iter().map(|(key, object)| key.len() + object.len()).sum::<usize>();
        self.items.extend(items);
    }

    fn is_full(&self) -> bool {
        self.items.len() >= PAGE_ITEMS || self.bytes >= PAGE_BYTES
    }
}

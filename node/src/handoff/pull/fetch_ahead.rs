//! Fetching the pages of one partition from one holder, ahead of their landing.
//!
//! Each page begins where the one before ends, so there is never more than one of a partition on its way, and what is gained
//! is gained by fetching several partitions at once. Beside clients the next page comes while one lands. While nobody is there
//! some pages wait: those of a partition whose turn to land is yet to come.

use super::order::Place;
use super::room::Room;
use super::{PullError, Pulls};
use crate::handoff::compare::CompareError;
use crate::handoff::fetch::{FetchedPage, fetch_page};
use crate::handoff::record::MoveRecord;
use crate::handoff::serve;
use crate::handoff::spool::SpooledPage;
use crate::planted;
use crate::replica::InFlight;
use crate::ring_state::Installed;
use annulus_proto::v1::PageRequest;
use bytes::Bytes;
use dynamo::preference::MemberIndex;
use dynamo::throttle::CALL_BYTES;
use dynamo::token::{self, Token};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Most pages that wait to land, of each partition.
pub(super) const WAITING_MAX: usize = 8;

/// Where a partition comes from.
#[derive(Clone)]
pub(super) struct Origin<'a> {
    pub(super) pulls: &'a Pulls,
    pub(super) record: MoveRecord,
    pub(super) installed: &'a Arc<Installed>,
    pub(super) holder: MemberIndex,
    /// Low half of the incarnation that everything so far was copied from, or
    /// [`SEVERAL_SOURCES`](crate::handoff::record::SEVERAL_SOURCES).
    pub(super) source: u64,
}

/// A page that has come.
pub(super) struct Arrived {
    pub(super) page: Received,
    pub(super) how: How,
    /// Its part of what may be on its way at once.
    pub(super) room: Room,
    /// A sign to those who collect what is dead that it is not merged yet.
    pub(super) flight: InFlight,
}

/// How a page comes and lands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Small, and the one behind the next is fetched once it is durable: there are clients.
    BesideClients,
    /// Large, and nothing waits until it is durable.
    InBulk,
    /// The same, as part of a run, so that it has its turn.
    AsRun,
}

/// What a page has.
pub(super) struct Received {
    pub(super) items: Vec<(Token, Bytes, Bytes)>,
    pub(super) bytes: u64,
    /// Storage key of the last item, or of the last before.
    pub(super) after: Bytes,
    /// Whether the partition has more.
    more: bool,
}

impl Pulls {
    fn how(&self) -> How {
        match (self.pace.is_alone(), self.room.is_ample()) {
            (false, _) => How::BesideClients,
            (true, false) => How::InBulk,
            (true, true) => How::AsRun,
        }
    }
}

impl Origin<'_> {
    /// Fetches all pages behind a place, each when there is room for it and few enough wait to land, until they are wanted
    /// no more. `land` takes them in their order.
    pub(super) async fn fetch_all(
        &self,
        mut after: Bytes,
        place: &Place<'_>,
        land: mpsc::Sender<Arrived>,
    ) -> Result<(), PullError> {
        loop {
            let how = self.pulls.how();
            if how == How::AsRun {
                place.near().await;
            }
            let bytes_max = self.pulls.pace.page_bytes(how != How::BesideClients);
            let waiting = match how {
                How::BesideClients => 1,
                How::InBulk | How::AsRun => self.pulls.room.pages_waiting_max(bytes_max),
            };
            // That many places, less the ones that may be taken.
            let reserved = WAITING_MAX + 1 - waiting.clamp(1, WAITING_MAX);
            let Ok(mut reserved) = land.reserve_many(reserved).await else { return Ok(()) };
            let Some(to_land) = reserved.next() else { return Ok(()) };
            drop(reserved);
            // A client may have come while this waited.
            if self.pulls.how() != how {
                continue;
            }
            self.pulls.is_wanted(self.record).ok_or(PullError::Unwanted)?;
            let arrived = self.page(after, bytes_max, how).await?;
            after = arrived.page.after.clone();
            let (bytes, more) = (arrived.page.bytes, arrived.page.more);
            to_land.send(arrived);
            // Be it the last one.
            self.pulls.pace.pay(bytes + CALL_BYTES).await;
            if !more {
                return Ok(());
            }
        }
    }

    /// Fetches a page, once there is room for it.
    async fn page(&self, after: Bytes, bytes_max: u32, how: How) -> Result<Arrived, PullError> {
        let pulls = self.pulls;
        let count = self.installed.view.count();
        let before = after.clone();
        let (mut room, bytes_max) = pulls.room.take(bytes_max).await;
        let request = PageRequest {
            cluster: Bytes::copy_from_slice(pulls.ring.cluster().as_bytes()),
            epoch: self.installed.view.epoch(),
            first_token: token::first_token(self.record.partition, count).0,
            last_token: token::last_token(self.record.partition, count).0,
            after,
            items_max: serve::PAGE_ITEMS_MAX,
            bytes_max,
            incarnation: Bytes::new(),
        };
        let flight = pulls.replica.take_off();
        let page = fetch_page(&pulls.peers, self.holder, request).await;
        let page = page.map_err(|error| self.failed(error.into()))?;
        let (partition, holder) = (self.record.partition, self.holder.0);
        tracing::debug!(partition, holder, items = page.items.len(), bytes = page.packed.len(), "a page has come");
        pulls.room.learn(page.range_bytes);
        pulls.pace.told(self.holder, f64::from(page.pressure_percent) / 100.0);
        self.keep(&page, before.clone(), &mut room);
        Ok(Arrived { page: self.received(page.items, page.more, &before), how, room, flight })
    }

    /// Keeps a page aside, behind what was received before.
    fn keep(&self, page: &FetchedPage, before: Bytes, room: &mut Room) {
        if page.items.is_empty() || !self.pulls.spool.keeps() {
            return;
        }
        let (packed, checksum) = (page.packed.clone(), page.checksum);
        let spooled = SpooledPage { record: self.record, source: self.source, before, packed, checksum };
        let spool = self.pulls.spool.clone();
        room.keep(async move { spool.keep(&spooled).await });
    }

    /// Takes a page apart that follows on what was received before.
    pub(super) fn received(&self, items: Vec<(Bytes, Bytes)>, more: bool, before: &Bytes) -> Received {
        let skipped = !more && planted::is("pull-skips-last-page");
        let items: Vec<(Token, Bytes, Bytes)> = items
            .into_iter()
            .filter(|_| !skipped)
            .map(|(key, object)| (self.installed.view.token(&key), key, object))
            .collect();
        let bytes = items.iter().map(|(_, key, object)| (key.len() + object.len()) as u64).sum();
        let last = items.last().map(|(token, key, _)| serve::cursor(*token, key));
        Received { items, bytes, after: last.unwrap_or_else(|| before.clone()), more }
    }

    pub(super) fn failed(&self, error: CompareError) -> PullError {
        PullError::Compare { partition: self.record.partition, error }
    }
}

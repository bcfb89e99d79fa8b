//! Copying one partition from one holder, page by page, and comparing it with others.
//!
//! Where nothing is here yet, a page is stored as a whole, with how far the copying is; where something is, each of its
//! objects is merged with what is here, and the record follows once they are durable. While a page is made durable, the
//! next is on its way. What a crash loses of that is sent again, and is little: see `room`. What a process had received that
//! was killed, the next one takes up: see `recover`.
//!
//! While no client is there that it could hold up, pages are large, the next one comes while one lands, and nothing but the
//! end waits until they are durable. If there is much to copy they land in the order of their keys, as runs that the engine
//! can load.

use super::order::Place;
use super::room::Room;
use super::{PullError, Pulls};
use crate::handoff::ITEMS_AT_ONCE;
use crate::handoff::compare::{CompareError, Comparison};
use crate::handoff::fetch::{FetchedPage, fetch_page};
use crate::handoff::pace::CALL_BYTES;
use crate::handoff::record::{Cursor, MoveRecord, MovedTotal, SEVERAL_SOURCES};
use crate::handoff::serve;
use crate::handoff::spool::SpooledPage;
use crate::planted;
use crate::replica::{InFlight, PageRules};
use crate::ring_state::Installed;
use crate::storage::{Change, StorageError, Submitted};
use annulus_proto::v1::PageRequest;
use bytes::Bytes;
use dynamo::preference::MemberIndex;
use dynamo::token::{self, Token};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// One partition on its way from one holder.
pub(super) struct Copying<'a> {
    pulls: &'a Pulls,
    record: MoveRecord,
    installed: &'a Arc<Installed>,
    holder: MemberIndex,
    /// Low half of the incarnation that everything so far was copied from, or [`SEVERAL_SOURCES`].
    pub(super) source: u64,
    /// Commits of objects that had failed when the cursor was read.
    failed_commits: u64,
    /// Pages that were taken whole and are not yet durable.
    behind: JoinSet<Result<(), StorageError>>,
}

/// A page that has come.
struct Arrived {
    page: FetchedPage,
    /// Whether nobody is there, so that the next need not wait until it is durable.
    bulk: bool,
    /// Its part of what may be on its way at once.
    room: Room,
    /// A sign to those who collect what is dead that it is not merged yet.
    flight: InFlight,
}

/// What a page has.
pub(super) struct Received {
    items: Vec<(Token, Bytes, Bytes)>,
    bytes: u64,
    /// Storage key of the last item, or of the last before.
    pub(super) after: Bytes,
    /// Whether the partition has more.
    more: bool,
}

impl Pulls {
    /// Copies the partition page by page, from where the last attempt stopped. Was that with another holder, then this
    /// one may have more before that place: both are compared, which costs what differs.
    pub(super) async fn copy(
        &self,
        record: MoveRecord,
        installed: &Arc<Installed>,
        holder: MemberIndex,
    ) -> Result<(), PullError> {
        let mut copying = Copying::new(self, record, installed, holder);
        let recorded = copying.cursor()?;
        let goes_on = recorded.as_ref().is_none_or(|cursor| cursor.source == copying.source);
        if !goes_on {
            copying.source = SEVERAL_SOURCES;
        }
        copying.all_pages(recorded.map(|cursor| cursor.after).unwrap_or_default()).await?;
        if goes_on { Ok(()) } else { self.compare(record, installed, holder).await }
    }

    /// Fetches what another holder has besides.
    pub(super) async fn compare(
        &self,
        record: MoveRecord,
        installed: &Arc<Installed>,
        member: MemberIndex,
    ) -> Result<(), PullError> {
        let fail = |error: CompareError| PullError::Compare { partition: record.partition, error };
        let view = installed.view.clone();
        let token_of = move |key: &[u8]| -> Token { view.token(key) };
        let comparison = Comparison {
            peers: &self.peers,
            replica: &self.replica,
            cluster: Bytes::copy_from_slice(self.ring.cluster().as_bytes()),
            epoch: installed.view.epoch(),
            since: record.since,
            member,
            token_of: &token_of,
        };
        let count = installed.view.count();
        let first = token::first_token(record.partition, count).0;
        let last = token::last_token(record.partition, count).0;
        self.pace.pay(CALL_BYTES).await;
        let fetched = comparison.run(first, last).await.map_err(fail)?;
        if fetched.items == 0 {
            return Ok(());
        }
        let (partition, holder) = (record.partition, member.0);
        tracing::debug!(partition, holder, fetched.items, fetched.bytes, "another holder had more");
        let moved = self.moved(installed, fetched.bytes, fetched.items);
        self.record(vec![moved.put()]).await.map_err(|error| fail(error.into()))
    }

    /// Counts what arrived for the target in force.
    fn moved(&self, installed: &Installed, bytes: u64, items: u64) -> MovedTotal {
        let since = installed.view.ring().target.as_ref().map(|target| target.since);
        let mut state = self.state.lock();
        state.moved_since_start += bytes;
        state.progress = Some(Instant::now());
        let since = since.unwrap_or(state.moved.since);
        if state.moved.since != since {
            state.moved = MovedTotal { since, ..MovedTotal::default() };
        }
        state.moved.bytes += bytes;
        state.moved.items += items;
        state.moved
    }
}

impl<'a> Copying<'a> {
    pub(super) fn new(
        pulls: &'a Pulls,
        record: MoveRecord,
        installed: &'a Arc<Installed>,
        holder: MemberIndex,
    ) -> Self {
        let source = installed.view.member(holder).map_or(0, |member| member.incarnation.as_u64_pair().1);
        // Before the cursor, which is then not beyond anything that has failed since.
        let failed_commits = pulls.replica.failed_commits();
        Self { pulls, record, installed, holder, source, failed_commits, behind: JoinSet::new() }
    }

    /// How far it was when that was last written down.
    pub(super) fn cursor(&self) -> Result<Option<Cursor>, PullError> {
        self.record.cursor(self.pulls.replica.engine().as_ref()).map_err(|error| self.failed(error.into()))
    }

    async fn all_pages(&mut self, mut after: Bytes) -> Result<(), PullError> {
        let pulls = self.pulls;
        let place = pulls.order.enter(self.record.partition);
        if pulls.pace.is_alone() && pulls.room.is_ample() {
            place.near().await;
        }
        let mut recorded = None;
        let mut arrived = Some(self.page(after.clone(), None).await?);
        while let Some(Arrived { page, bulk, room, flight }) = arrived {
            pulls.told(self.holder, f64::from(page.pressure_percent) / 100.0);
            let received = self.received(page.items, page.more, &after);
            after = received.after.clone();
            let turn = (bulk && pulls.room.is_ample()).then_some(&place);
            let (submitted, ahead) = self.land(&received, turn, bulk).await?;
            let Some(submitted) = submitted else {
                let submitted = self.merge(&received).await?;
                drop(flight);
                let next = self.next_page(&received, ahead);
                let durable = async {
                    self.all_durable(submitted).await?;
                    room.landed().await;
                    Ok::<_, PullError>(())
                };
                let (durable, next) = tokio::join!(durable, next);
                durable?;
                // The last page's record is durable by now, most likely.
                if let Some(recorded) = recorded.replace(self.record_items(&received).await) {
                    self.checked(recorded.await)?;
                }
                arrived = next?;
                continue;
            };
            drop(flight);
            if bulk {
                self.behind.spawn(room.until(submitted));
                arrived = self.next_page(&received, ahead).await?;
            } else {
                let (durable, next) = tokio::join!(room.until(submitted), self.next_page(&received, ahead));
                self.checked(durable)?;
                arrived = next?;
            }
        }
        drop(place);
        if let Some(recorded) = recorded {
            self.checked(recorded.await)?;
        }
        self.nothing_behind().await
    }

    /// Queues a page as a whole, when it has its `turn` if it is to be part of a run. While nobody is there the next one
    /// comes meanwhile, if there is room for it now; it is returned, too.
    async fn land(
        &self,
        received: &Received,
        turn: Option<&Place<'_>>,
        bulk: bool,
    ) -> Result<(Option<Submitted>, Option<Arrived>), PullError> {
        let landing = async {
            let Some(place) = turn else { return self.insert(received, false).await };
            place.turn().await;
            let inserted = self.insert(received, true).await;
            place.landed();
            inserted
        };
        let pulls = self.pulls;
        let ahead = bulk && received.more && turn.is_none_or(Place::is_next);
        let room = if ahead { pulls.room.try_take(pulls.pace.page_bytes(bulk)) } else { None };
        if room.is_none() {
            return Ok((landing.await?, None));
        }
        let (ahead, landed) = tokio::join!(self.page(received.after.clone(), room), landing);
        Ok((landed?, Some(ahead?)))
    }

    /// Pays for a page, be it the last one. Returns the page behind it, unless there is none.
    async fn next_page(&self, before: &Received, ahead: Option<Arrived>) -> Result<Option<Arrived>, PullError> {
        self.pulls.pace.pay(before.bytes + CALL_BYTES).await;
        if !before.more {
            return Ok(None);
        }
        self.pulls.is_wanted(self.record).ok_or(PullError::Unwanted)?;
        match ahead {
            Some(ahead) => Ok(Some(ahead)),
            None => self.page(before.after.clone(), None).await.map(Some),
        }
    }

    /// Fetches a page, once there is room for it.
    async fn page(&self, after: Bytes, room: Option<(Room, u32)>) -> Result<Arrived, PullError> {
        let count = self.installed.view.count();
        let bulk = self.pulls.pace.is_alone();
        let before = after.clone();
        let (mut room, bytes_max) = match room {
            Some(room) => room,
            None => self.pulls.room.take(self.pulls.pace.page_bytes(bulk)).await,
        };
        let request = PageRequest {
            cluster: Bytes::copy_from_slice(self.pulls.ring.cluster().as_bytes()),
            epoch: self.installed.view.epoch(),
            first_token: token::first_token(self.record.partition, count).0,
            last_token: token::last_token(self.record.partition, count).0,
            after,
            items_max: serve::PAGE_ITEMS_MAX,
            bytes_max,
            incarnation: Bytes::new(),
        };
        let flight = self.pulls.replica.take_off();
        let page = fetch_page(&self.pulls.peers, self.holder, request).await;
        let page = page.map_err(|error| self.failed(error.into()))?;
        let (partition, holder) = (self.record.partition, self.holder.0);
        tracing::debug!(partition, holder, items = page.items.len(), bytes = page.packed.len(), "a page has come");
        self.pulls.room.learn(page.range_bytes);
        self.keep(&page, before, &mut room);
        Ok(Arrived { page, bulk, room, flight })
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

    /// Queues a page as a whole, with how far the copying is then. `None`: something is here of it, so that it has to be
    /// merged.
    pub(super) async fn insert(&self, received: &Received, run: bool) -> Result<Option<Submitted>, PullError> {
        // Once the lists have changed, what is still on its way is refused: this node may be in them no more, and would keep
        // what it ought to drop.
        let rules = PageRules { since: self.record.since, failed_commits: self.failed_commits, run };
        let inserted = self.pulls.replica.insert_page(&received.items, rules, || self.records(received)).await;
        inserted.map_err(|error| self.failed(error.into()))
    }

    /// Queues a page item by item, each merged with what is here.
    pub(super) async fn merge(&mut self, received: &Received) -> Result<Vec<Submitted>, PullError> {
        // If a commit has failed, it may be one that this partition needs.
        self.nothing_behind().await?;
        self.failed_commits = self.pulls.replica.failed_commits();
        let mut durable = Vec::with_capacity(received.items.len());
        for (at, (token, key, object)) in received.items.iter().enumerate() {
            if at % ITEMS_AT_ONCE == ITEMS_AT_ONCE - 1 {
                // Requests go first.
                tokio::task::yield_now().await;
            }
            let merged = self.pulls.replica.merge(*token, key, object.clone(), self.record.since).await;
            durable.extend(merged.map_err(|error| self.failed(error.into()))?);
        }
        Ok(durable)
    }

    /// Counts what arrived: the records that say so, and how far the copying is. Both survive a restart once they are
    /// durable, which they may only be when what arrived is.
    fn records(&self, received: &Received) -> Vec<Change> {
        let cursor = Cursor { source: self.source, after: received.after.clone() };
        let moved = self.pulls.moved(self.installed, received.bytes, received.items.len() as u64);
        vec![moved.put(), self.record.put_cursor(&cursor)]
    }

    pub(super) async fn record_items(&self, received: &Received) -> Submitted {
        let records = self.records(received);
        let reservation = self.pulls.replica.committer().reserve_control().await;
        self.pulls.replica.committer().submit(records, reservation)
    }

    pub(super) async fn all_durable(&self, submitted: Vec<Submitted>) -> Result<(), PullError> {
        for submitted in submitted {
            self.checked(submitted.await)?;
        }
        Ok(())
    }

    /// Returns when every page that was taken whole is durable.
    async fn nothing_behind(&mut self) -> Result<(), PullError> {
        while let Some(ended) = self.behind.join_next().await {
            self.checked(ended.unwrap_or(Err(StorageError::Closed)))?;
        }
        Ok(())
    }

    fn checked(&self, durable: Result<(), StorageError>) -> Result<(), PullError> {
        if planted::is("synced-before-sync") {
            return Ok(());
        }
        durable.map_err(|error| self.failed(error.into()))
    }

    fn failed(&self, error: CompareError) -> PullError {
        PullError::Compare { partition: self.record.partition, error }
    }
}

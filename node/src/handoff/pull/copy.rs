//! Copying one partition from one holder, page by page, and comparing it with others.
//!
//! Where nothing is here yet, a page is stored as a whole, with how far the copying is; where something is, each of its
//! objects is merged with what is here, and the record follows once they are durable. While a page is made durable, the
//! next is on its way. What a crash loses of that is sent again, and is little: see `room`.
//!
//! While no client is there that it could hold up, pages are large, and nothing but the end waits until they are durable.

use super::room::Room;
use super::{PullError, Pulls};
use crate::handoff::ITEMS_AT_ONCE;
use crate::handoff::compare::{CompareError, Comparison};
use crate::handoff::fetch::fetch_page;
use crate::handoff::record::{Cursor, MoveRecord, MovedTotal, SEVERAL_SOURCES};
use crate::handoff::serve;
use crate::planted;
use crate::replica::{InFlight, PageRules};
use crate::ring_state::Installed;
use crate::storage::{Change, StorageError, Submitted};
use annulus_proto::v1::{PageReply, PageRequest};
use bytes::Bytes;
use dynamo::preference::MemberIndex;
use dynamo::token::{self, Token};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// One partition on its way from one holder.
struct Copying<'a> {
    pulls: &'a Pulls,
    record: MoveRecord,
    installed: &'a Arc<Installed>,
    holder: MemberIndex,
    /// Low half of the incarnation that everything so far was copied from, or [`SEVERAL_SOURCES`].
    source: u64,
    /// Commits of objects that had failed when the cursor was read.
    failed_commits: u64,
    /// Pages that were taken whole and are not yet durable.
    behind: JoinSet<Result<(), StorageError>>,
}

/// A page that has come.
struct Arrived {
    page: PageReply,
    /// Whether nobody is there, so that the next need not wait until it is durable.
    bulk: bool,
    /// Its part of what may be on its way at once.
    room: Room,
    /// A sign to those who collect what is dead that it is not merged yet.
    flight: InFlight,
}

/// A page that is queued for the engine.
struct Landed {
    /// Storage key of the last item received.
    after: Bytes,
    durable: Durable,
    bytes: u64,
    items: u64,
}

/// When a page is durable.
enum Durable {
    /// Recorded together with how far the copying is.
    Page(Submitted),
    /// Item by item.
    Items(Vec<Submitted>),
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
        let source = installed.view.member(holder).map_or(0, |member| member.incarnation.as_u64_pair().1);
        // Before the cursor, which is then not beyond anything that has failed since.
        let failed_commits = self.replica.failed_commits();
        let behind = JoinSet::new();
        let mut copying = Copying { pulls: self, record, installed, holder, source, failed_commits, behind };
        let recorded =
            record.cursor(self.replica.engine().as_ref()).map_err(|error| copying.failed(error.into()))?;
        let goes_on = recorded.as_ref().is_none_or(|cursor| cursor.source == source);
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
        let fetched = comparison.run(first, last).await.map_err(fail)?;
        if fetched.items == 0 {
            return Ok(());
        }
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

impl Copying<'_> {
    async fn all_pages(&mut self, mut after: Bytes) -> Result<(), PullError> {
        let mut recorded = None;
        let mut arrived = self.page(after.clone()).await?;
        loop {
            let Arrived { page, bulk, room, flight } = arrived;
            let more = page.more;
            self.pulls.told(self.holder, f64::from(page.pressure_percent) / 100.0);
            let landed = self.land(page, &after).await?;
            drop(flight);
            after = landed.after;
            let next = match landed.durable {
                Durable::Page(submitted) if bulk => {
                    self.behind.spawn(room.until(submitted));
                    self.next_page(more, landed.bytes, after.clone()).await?
                }
                Durable::Page(submitted) => {
                    let next = self.next_page(more, landed.bytes, after.clone());
                    let (durable, next) = tokio::join!(room.until(submitted), next);
                    self.checked(durable)?;
                    next?
                }
                Durable::Items(submitted) => {
                    let next = self.next_page(more, landed.bytes, after.clone());
                    let (durable, next) = tokio::join!(self.all_durable(submitted, room), next);
                    durable?;
                    let recording = self.record_items(&after, landed.bytes, landed.items).await;
                    // The last page's record is durable by now, most likely.
                    if let Some(recorded) = recorded.replace(recording) {
                        self.checked(recorded.await)?;
                    }
                    next?
                }
            };
            match next {
                Some(next) => arrived = next,
                None => break,
            }
        }
        if let Some(recorded) = recorded {
            self.checked(recorded.await)?;
        }
        self.nothing_behind().await
    }

    async fn next_page(&self, more: bool, paid_bytes: u64, after: Bytes) -> Result<Option<Arrived>, PullError> {
        if !more {
            return Ok(None);
        }
        self.pulls.pace.pay(paid_bytes).await;
        self.pulls.is_wanted(self.record).ok_or(PullError::Unwanted)?;
        self.page(after).await.map(Some)
    }

    async fn page(&self, after: Bytes) -> Result<Arrived, PullError> {
        let count = self.installed.view.count();
        let bulk = self.pulls.pace.is_alone();
        let (room, bytes_max) = self.pulls.room.take(self.pulls.pace.page_bytes(bulk)).await;
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
        self.pulls.room.learn(page.range_bytes);
        Ok(Arrived { page, bulk, room, flight })
    }

    /// Queues a page: as a whole if nothing is here of it, else item by item.
    async fn land(&mut self, page: PageReply, after: &Bytes) -> Result<Landed, PullError> {
        let skipped = !page.more && planted::is("pull-skips-last-page");
        let items: Vec<(Token, Bytes, Bytes)> = page
            .items
            .into_iter()
            .filter(|_| !skipped)
            .map(|item| (self.installed.view.token(&item.key), item.key, item.object))
            .collect();
        let bytes = items.iter().map(|(_, key, object)| (key.len() + object.len()) as u64).sum();
        let last = items.last().map(|(token, key, _)| serve::cursor(*token, key));
        let after = last.unwrap_or_else(|| after.clone());
        let items_count = items.len() as u64;
        let landed = |durable| Landed { after: after.clone(), durable, bytes, items: items_count };
        // Once the lists have changed, what is still on its way is refused: this node may be in them no more, and would keep
        // what it ought to drop.
        let rules = PageRules { since: self.record.since, failed_commits: self.failed_commits };
        let records = || self.records(&after, bytes, items_count);
        let inserted = self.pulls.replica.insert_page(&items, rules, records).await;
        if let Some(submitted) = inserted.map_err(|error| self.failed(error.into()))? {
            return Ok(landed(Durable::Page(submitted)));
        }
        // If a commit has failed, it may be one that this partition needs.
        self.nothing_behind().await?;
        self.failed_commits = self.pulls.replica.failed_commits();
        Ok(landed(Durable::Items(self.merge(items).await?)))
    }

    async fn merge(&self, items: Vec<(Token, Bytes, Bytes)>) -> Result<Vec<Submitted>, PullError> {
        let mut durable = Vec::with_capacity(items.len());
        for (at, (token, key, object)) in items.into_iter().enumerate() {
            if at % ITEMS_AT_ONCE == ITEMS_AT_ONCE - 1 {
                // Requests go first.
                tokio::task::yield_now().await;
            }
            let merged = self.pulls.replica.merge(token, &key, object, self.record.since).await;
            durable.extend(merged.map_err(|error| self.failed(error.into()))?);
        }
        Ok(durable)
    }

    /// Counts what arrived: the records that say so, and how far the copying is. Both survive a restart once they are
    /// durable, which they may only be when what arrived is.
    fn records(&self, after: &Bytes, bytes: u64, items: u64) -> Vec<Change> {
        let cursor = Cursor { source: self.source, after: after.clone() };
        vec![self.pulls.moved(self.installed, bytes, items).put(), self.record.put_cursor(&cursor)]
    }

    async fn record_items(&self, after: &Bytes, bytes: u64, items: u64) -> Submitted {
        let records = self.records(after, bytes, items);
        let reservation = self.pulls.replica.committer().reserve_control().await;
        self.pulls.replica.committer().submit(records, reservation)
    }

    async fn all_durable(&self, submitted: Vec<Submitted>, room: Room) -> Result<(), PullError> {
        for submitted in submitted {
            self.checked(submitted.await)?;
        }
        drop(room);
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

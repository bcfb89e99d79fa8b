//! Copying one partition from one holder, page by page, and comparing it with others.
//!
//! Where nothing is here yet, a page is stored as a whole, with how far the copying is; where something is, each of its
//! objects is merged with what is here, and the record follows once they are durable. Meanwhile others come: see
//! `fetch_ahead`. What a crash loses of that is sent again, and is little: see `room`. What a process had received that was
//! killed, the next one takes up: see `recover`.
//!
//! While no client is there that it could hold up, nothing but the end waits until pages are durable. If there is much to
//! copy they land in the order of their keys, as runs that the engine can load.

use super::fetch_ahead::{Arrived, How, Origin, Received, WAITING_MAX};
use super::order::Place;
use super::{Places, PullError, Pulls};
use crate::handoff::ITEMS_AT_ONCE;
use crate::handoff::compare::{CompareError, Comparison};
use crate::handoff::record::{Cursor, MoveRecord, MovedTotal, SEVERAL_SOURCES};
use crate::planted;
use crate::replica::PageRules;
use crate::ring_state::Installed;
use crate::storage::{Change, StorageError, Submitted};
use bytes::Bytes;
use dynamo::preference::MemberIndex;
use dynamo::throttle::CALL_BYTES;
use dynamo::token::{self, Token};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What a comparison counts for besides what it brings: a call and, at both ends, a wait until all that is queued is
/// durable.
const COMPARISON_BYTES: u64 = 4 * CALL_BYTES;

/// One partition on its way from one holder.
pub(super) struct Copying<'a> {
    pub(super) from: Origin<'a>,
    /// Commits of objects that had failed when the cursor was read.
    failed_commits: u64,
    /// Pages that were taken whole and are not yet durable.
    behind: JoinSet<Result<(), StorageError>>,
    /// The record of the last page that was merged.
    recorded: Option<Submitted>,
}

impl Pulls {
    /// Copies the partition page by page, from where the last attempt stopped. Was that with another holder, then this
    /// one may have more before that place: both are compared, which costs what differs.
    pub(super) async fn copy(
        &self,
        record: MoveRecord,
        installed: &Arc<Installed>,
        holder: MemberIndex,
        places: &mut Places,
    ) -> Result<(), PullError> {
        let mut copying = Copying::new(self, record, installed, holder);
        let recorded = copying.cursor()?;
        let goes_on = recorded.as_ref().is_none_or(|cursor| cursor.source == copying.from.source);
        if !goes_on {
            copying.from.source = SEVERAL_SOURCES;
        }
        copying.all_pages(recorded.map(|cursor| cursor.after).unwrap_or_default(), places).await?;
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
        self.pace.pay(COMPARISON_BYTES).await;
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
        let from = Origin { pulls, record, installed, holder, source };
        Self { from, failed_commits, behind: JoinSet::new(), recorded: None }
    }

    /// How far it was when that was last written down.
    pub(super) fn cursor(&self) -> Result<Option<Cursor>, PullError> {
        let engine = self.from.pulls.replica.engine();
        self.from.record.cursor(engine.as_ref()).map_err(|error| self.from.failed(error.into()))
    }

    async fn all_pages(&mut self, after: Bytes, places: &mut Places) -> Result<(), PullError> {
        let from = self.from.clone();
        let place = from.pulls.order.enter(from.record.partition);
        let (land, arrived) = mpsc::channel(WAITING_MAX);
        // Whatever becomes of the others, what has come lands. If that fails, no more is fetched.
        let (landed, fetched) = tokio::join!(self.land_all(arrived, &place), from.fetch_all(after, &place, land));
        drop(place);
        if from.pulls.pace.is_alone() {
            // What is left is to wait for the disk and to compare, and nobody is there whom others could hold up meanwhile.
            places.0 = None;
        }
        landed?;
        if let Some(recorded) = self.recorded.take() {
            self.checked(recorded.await)?;
        }
        self.nothing_behind().await?;
        fetched
    }

    async fn land_all(&mut self, mut pages: mpsc::Receiver<Arrived>, place: &Place<'_>) -> Result<(), PullError> {
        while let Some(arrived) = pages.recv().await {
            self.land(arrived, place).await?;
        }
        Ok(())
    }

    /// Stores a page, as a whole if nothing is here of it; of a run when it has its turn. Beside clients it is waited for.
    async fn land(&mut self, arrived: Arrived, place: &Place<'_>) -> Result<(), PullError> {
        let Arrived { page, how, room, flight } = arrived;
        if how == How::AsRun {
            place.turn().await;
        }
        let inserted = self.insert(&page, how == How::AsRun).await;
        if how == How::AsRun {
            place.landed();
        }
        if let Some(submitted) = inserted? {
            drop(flight);
            if how != How::BesideClients {
                self.behind.spawn(room.until(submitted));
                return Ok(());
            }
            return self.checked(room.until(submitted).await);
        }
        let submitted = self.merge(&page).await?;
        drop(flight);
        self.all_durable(submitted).await?;
        room.landed().await;
        // The last page's record is durable by now, most likely.
        let recorded = self.record_items(&page).await;
        match self.recorded.replace(recorded) {
            Some(last) => self.checked(last.await),
            None => Ok(()),
        }
    }

    /// Queues a page as a whole, with how far the copying is then. `None`: something is here of it, so that it has to be
    /// merged.
    pub(super) async fn insert(&self, received: &Received, run: bool) -> Result<Option<Submitted>, PullError> {
        // Once the lists have changed, what is still on its way is refused: this node may be in them no more, and would keep
        // what it ought to drop.
        let rules = PageRules { since: self.from.record.since, failed_commits: self.failed_commits, run };
        let inserted =
            self.from.pulls.replica.insert_page(&received.items, rules, || self.records(received)).await;
        inserted.map_err(|error| self.from.failed(error.into()))
    }

    /// Queues a page item by item, each merged with what is here.
    pub(super) async fn merge(&mut self, received: &Received) -> Result<Vec<Submitted>, PullError> {
        // If a commit has failed, it may be one that this partition needs.
        self.nothing_behind().await?;
        self.failed_commits = self.from.pulls.replica.failed_commits();
        let mut durable = Vec::with_capacity(received.items.len());
        for (at, (token, key, object)) in received.items.iter().enumerate() {
            if at % ITEMS_AT_ONCE == ITEMS_AT_ONCE - 1 {
                // Requests go first.
                tokio::task::yield_now().await;
            }
            let merged = self.from.pulls.replica.merge(*token, key, object.clone(), self.from.record.since).await;
            durable.extend(merged.map_err(|error| self.from.failed(error.into()))?);
        }
        Ok(durable)
    }

    /// Counts what arrived: the records that say so, and how far the copying is. Both survive a restart once they are
    /// durable, which they may only be when what arrived is.
    fn records(&self, received: &Received) -> Vec<Change> {
        let cursor = Cursor { source: self.from.source, after: received.after.clone() };
        let moved = self.from.pulls.moved(self.from.installed, received.bytes, received.items.len() as u64);
        self.from.pulls.state.lock().recorded.insert(self.from.record);
        vec![moved.put(), self.from.record.put_cursor(&cursor)]
    }

    pub(super) async fn record_items(&self, received: &Received) -> Submitted {
        let records = self.records(received);
        let reservation = self.from.pulls.replica.committer().reserve_control().await;
        self.from.pulls.replica.committer().submit(records, reservation)
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
        durable.map_err(|error| self.from.failed(error.into()))
    }
}

//! Copying one partition from one holder, page by page, and comparing it with others.
//!
//! While a page is made durable, the next is on its way. What a crash loses of that is sent again: nothing is recorded
//! as received before it is durable.

use super::{PullError, Pulls};
use crate::handoff::ITEMS_AT_ONCE;
use crate::handoff::compare::{CompareError, Comparison};
use crate::handoff::fetch::fetch_page;
use crate::handoff::record::{Cursor, MoveRecord, MovedTotal, SEVERAL_SOURCES};
use crate::handoff::serve;
use crate::planted;
use crate::replica::InFlight;
use crate::ring_state::Installed;
use crate::storage::Submitted;
use annulus_proto::v1::{PageReply, PageRequest};
use bytes::Bytes;
use dynamo::preference::MemberIndex;
use dynamo::token::{self, Token};
use std::sync::Arc;

/// Small enough that what is on its way when a node dies is little of what is moved.
const PAGE_BYTES: u32 = 128 << 10;

/// One partition on its way from one holder.
struct Copying<'a> {
    pulls: &'a Pulls,
    record: MoveRecord,
    installed: &'a Arc<Installed>,
    holder: MemberIndex,
}

/// A page that was merged.
struct Landed {
    /// Storage key of its last item; `None` if it had none.
    after: Option<Bytes>,
    durable: Vec<Submitted>,
    bytes: u64,
    items: u64,
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
        let copying = Copying { pulls: self, record, installed, holder };
        let source = installed.view.member(holder).map_or(0, |member| member.incarnation.as_u64_pair().1);
        let recorded =
            record.cursor(self.replica.engine().as_ref()).map_err(|error| copying.failed(error.into()))?;
        let goes_on = recorded.as_ref().is_none_or(|cursor| cursor.source == source);
        let source = if goes_on { source } else { SEVERAL_SOURCES };
        copying.all_pages(source, recorded.map(|cursor| cursor.after).unwrap_or_default()).await?;
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
            member,
            token_of: &token_of,
        };
        let count = installed.view.count();
        let first = token::first_token(record.partition, count).0;
        let last = token::last_token(record.partition, count).0;
        let fetched = comparison.run(first, last).await.map_err(fail)?;
        let recorded = self.received(record, installed, None, fetched.bytes, fetched.items).await;
        recorded.await.map_err(|error| fail(error.into()))
    }

    /// Counts what arrived and records how far the copying is; both survive a restart, once the future has resolved.
    async fn received(
        &self,
        record: MoveRecord,
        installed: &Installed,
        cursor: Option<&Cursor>,
        bytes: u64,
        items: u64,
    ) -> Submitted {
        let since = installed.view.ring().target.as_ref().map(|target| target.since);
        let moved = {
            let mut state = self.state.lock();
            state.moved_since_start += bytes;
            let since = since.unwrap_or(state.moved.since);
            if state.moved.since != since {
                state.moved = MovedTotal { since, ..MovedTotal::default() };
            }
            state.moved.bytes += bytes;
            state.moved.items += items;
            state.moved
        };
        let mut changes = vec![moved.put()];
        changes.extend(cursor.map(|cursor| record.put_cursor(cursor)));
        let reservation = self.replica.committer().reserve_control().await;
        self.replica.committer().submit(changes, reservation)
    }
}

impl Copying<'_> {
    async fn all_pages(&self, source: u64, mut after: Bytes) -> Result<(), PullError> {
        let mut recorded = None;
        let (mut page, mut flight) = self.page(after.clone()).await?;
        loop {
            let (more, pressure) = (page.more, f64::from(page.pressure_percent) / 100.0);
            let landed = self.merge(page).await?;
            drop(flight);
            after = landed.after.unwrap_or(after);
            self.pulls.told(self.holder, pressure);
            let next = async {
                if more { self.next_page(landed.bytes, after.clone()).await.map(Some) } else { Ok(None) }
            };
            let (durable, next) = tokio::join!(self.all_durable(landed.durable), next);
            durable?;
            let cursor = Cursor { source, after: after.clone() };
            let (bytes, items) = (landed.bytes, landed.items);
            let pulls = self.pulls;
            let recording = pulls.received(self.record, self.installed, Some(&cursor), bytes, items).await;
            // The last page's record is durable by now, most likely.
            if let Some(recorded) = recorded.replace(recording) {
                self.all_durable(vec![recorded]).await?;
            }
            match next? {
                Some(next) => (page, flight) = next,
                None => break,
            }
        }
        self.all_durable(recorded.into_iter().collect()).await
    }

    async fn next_page(&self, paid_bytes: u64, after: Bytes) -> Result<(PageReply, InFlight), PullError> {
        self.pulls.pace.pay(paid_bytes).await;
        self.pulls.is_wanted(self.record).ok_or(PullError::Unwanted)?;
        self.page(after).await
    }

    /// The page, and a sign to those who collect what is dead that it is not merged yet.
    async fn page(&self, after: Bytes) -> Result<(PageReply, InFlight), PullError> {
        let count = self.installed.view.count();
        let request = PageRequest {
            cluster: Bytes::copy_from_slice(self.pulls.ring.cluster().as_bytes()),
            // Not the ring's epoch of the moment: once the lists have changed, what is still on its way is refused,
            // for this node may be in them no more and would keep what it ought to drop.
            epoch: self.installed.view.epoch(),
            first_token: token::first_token(self.record.partition, count).0,
            last_token: token::last_token(self.record.partition, count).0,
            after,
            items_max: serve::PAGE_ITEMS_MAX,
            bytes_max: PAGE_BYTES,
            incarnation: Bytes::new(),
        };
        let flight = self.pulls.replica.take_off();
        let page = fetch_page(&self.pulls.peers, self.holder, request).await;
        Ok((page.map_err(|error| self.failed(error.into()))?, flight))
    }

    async fn merge(&self, page: PageReply) -> Result<Landed, PullError> {
        let items = page.items.len() as u64;
        let mut landed = Landed { after: None, durable: Vec::with_capacity(page.items.len()), bytes: 0, items };
        let skipped = !page.more && planted::is("pull-skips-last-page");
        let epoch = self.installed.view.epoch();
        for (at, item) in page.items.into_iter().filter(|_| !skipped).enumerate() {
            if at % ITEMS_AT_ONCE == ITEMS_AT_ONCE - 1 {
                // Requests go first.
                tokio::task::yield_now().await;
            }
            landed.bytes += (item.key.len() + item.object.len()) as u64;
            let token = self.installed.view.token(&item.key);
            landed.after = Some(serve::cursor(token, &item.key));
            let merged = self.pulls.replica.merge(token, &item.key, item.object, epoch).await;
            landed.durable.extend(merged.map_err(|error| self.failed(error.into()))?);
        }
        Ok(landed)
    }

    async fn all_durable(&self, submitted: Vec<Submitted>) -> Result<(), PullError> {
        for submitted in submitted {
            if !planted::is("synced-before-sync") {
                submitted.await.map_err(|error| self.failed(error.into()))?;
            }
        }
        Ok(())
    }

    fn failed(&self, error: CompareError) -> PullError {
        PullError::Compare { partition: self.record.partition, error }
    }
}

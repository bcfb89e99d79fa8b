//! Taking up what a process had received that was killed before it was durable.

use super::copy::Copying;
use super::{MoveRecord, PullError, Pulls};
use crate::handoff::record::Cursor;
use crate::handoff::spool::{Items, SpooledPage};
use crate::storage::Submitted;
use std::collections::BTreeMap;

/// How far the copying of partitions is, with the pages that were taken up already.
type Ends = BTreeMap<MoveRecord, Cursor>;

impl Pulls {
    /// Stores pages that were kept aside where copying goes on with them, as if they had come just now. To be called before
    /// anyone hears from this node, for what it says of itself takes these pages for stored.
    pub async fn recover(&self) {
        let (mut ends, mut landing) = (Ends::new(), Vec::new());
        for (page, items) in self.spool.found() {
            let partition = page.record.partition;
            match self.take_up(page, items, &mut ends).await {
                Ok(submitted) => landing.extend(submitted),
                Err(error) => tracing::info!(%error, partition, "a page that was kept aside is sent again"),
            }
        }
        let pages = landing.len();
        for submitted in landing {
            if let Err(error) = submitted.await {
                tracing::info!(%error, "a page that was kept aside is sent again");
            }
        }
        if pages > 0 {
            tracing::info!(pages, "took up what was on its way when the node ended");
        }
        self.spool.clear();
    }

    /// Stores a page if copying goes on with it.
    async fn take_up(
        &self,
        page: SpooledPage,
        items: Items,
        ends: &mut Ends,
    ) -> Result<Option<Submitted>, PullError> {
        let SpooledPage { record, source, before, .. } = page;
        let Some((installed, me, _)) = self.is_wanted(record) else { return Ok(None) };
        let mut copying = Copying::new(self, record, &installed, me);
        copying.from.source = source;
        let end = match ends.get(&record) {
            Some(end) => Some(end.clone()),
            None => copying.cursor()?,
        };
        if !end.map_or(before.is_empty(), |end| end.source == source && end.after == before) {
            return Ok(None);
        }
        let received = copying.from.received(items, true, &before);
        ends.insert(record, Cursor { source, after: received.after.clone() });
        if let Some(submitted) = copying.insert(&received, true).await? {
            return Ok(Some(submitted));
        }
        // It had landed, and how far the copying is had not been written; or something else is there.
        let merged = copying.merge(&received).await?;
        copying.all_durable(merged).await?;
        Ok(Some(copying.record_items(&received).await))
    }
}

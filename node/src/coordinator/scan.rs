//! Walking a partition's keys, and counting the cluster's.

use super::{Coordinator, RequestError, ScanPage};
use crate::handoff;
use crate::replica::{split_storage_key, storage_key};
use crate::storage::{ScanRange, Space};
use annulus_proto::v1::{PageRequest, StatusRequest, control_client::ControlClient};
use bytes::Bytes;
use dynamo::object::Object;
use dynamo::preference::MemberIndex;
use dynamo::token;

const PAGE_BYTES_MAX: usize = 4 << 20;

impl Coordinator {
    /// One page of a partition from its first reachable replica.
    pub(super) async fn scan_partition(
        &self,
        partition: u32,
        after: Option<Bytes>,
        items_max: usize,
    ) -> Result<ScanPage, RequestError> {
        let installed = self.installed()?;
        let Some(placement) = installed.view.placement(partition) else {
            return Err(RequestError::Invalid(format!("there is no partition {partition}")));
        };
        let count = installed.view.count();
        let (first, last) = (token::first_token(partition, count), token::last_token(partition, count));
        if installed.me.is_some_and(|me| placement.preference.contains(&me)) {
            let range = ScanRange { after, ..ScanRange::tokens(first.0, last.0) };
            let page = self
                .parts
                .replica
                .engine()
                .scan(Space::Data, &range, items_max, PAGE_BYTES_MAX)
                .map_err(|error| RequestError::Storage(error.to_string()))?;
            let next = page.items.last().filter(|_| page.more).map(|(key, _)| key.clone());
            let items =
                page.items.into_iter().filter_map(|(key, object)| Some((split_storage_key(&key)?.1, object)));
            return Ok(ScanPage { items: decode_all(items)?, next });
        }
        let mut failures = Vec::new();
        for &member in &placement.preference {
            let request = PageRequest {
                cluster: Bytes::copy_from_slice(self.parts.ring.cluster().as_bytes()),
                epoch: installed.view.epoch(),
                first_token: first.0,
                last_token: last.0,
                after: after.clone().unwrap_or_default(),
                items_max: u32::try_from(items_max).unwrap_or(u32::MAX),
                bytes_max: u32::try_from(PAGE_BYTES_MAX).unwrap_or(u32::MAX),
                incarnation: Bytes::new(),
            };
            match handoff::fetch_page(&self.parts.peers, member, request).await {
                Ok(page) => {
                    let last = page.items.last().filter(|_| page.more);
                    let next = last.map(|item| storage_key(installed.view.token(&item.key), &item.key));
                    let items = decode_all(page.items.into_iter().map(|item| (item.key, item.object)))?;
                    return Ok(ScanPage { items, next });
                }
                Err(error) => failures.push(error.to_string()),
            }
        }
        Err(RequestError::Unavailable { got: 0, need: 1, missing: failures.join(", ") })
    }

    /// Sum of what the owners of all partitions count.
    pub(super) async fn count_keys(&self) -> Result<u64, RequestError> {
        let installed = self.installed()?;
        let owners: std::collections::BTreeSet<MemberIndex> = installed.view.ring().owners().into_iter().collect();
        let counts = owners.into_iter().map(|owner| async move {
            if self.parts.ring.load().and_then(|installed| installed.me) == Some(owner) {
                return Ok(self.keys_owned());
            }
            let unavailable = |why: String| RequestError::Unavailable { got: 0, need: 1, missing: why };
            let bulk = self.parts.peers.bulk_channel(owner).await;
            let (channel, _) = bulk.map_err(|error| unavailable(error.to_string()))?;
            let status = ControlClient::new(channel).status(StatusRequest {}).await;
            status.map(|status| status.into_inner().keys_owned).map_err(|error| unavailable(error.to_string()))
        });
        let counts: Result<Vec<u64>, RequestError> = futures::future::try_join_all(counts).await;
        Ok(counts?.into_iter().sum())
    }

    /// Live keys of the partitions that this node owns.
    #[must_use]
    pub fn keys_owned(&self) -> u64 {
        let Some(installed) = self.parts.ring.load() else { return 0 };
        let Some(me) = installed.me else { return 0 };
        let owned = |partition| {
            installed.view.placement(partition).is_some_and(|placement| placement.preference.first() == Some(&me))
        };
        self.parts.replica.counters().sum(installed.view.count(), owned).live
    }
}

fn decode_all(items: impl Iterator<Item = (Bytes, Bytes)>) -> Result<Vec<(Bytes, Object)>, RequestError> {
    items
        .map(|(key, object)| Object::decode(object).map(|object| (key, object)))
        .collect::<Result<_, _>>()
        .map_err(|error| RequestError::Storage(error.to_string()))
}

//! Walking a partition's keys, and counting the cluster's.

use super::{Coordinator, RequestError, ScanPage};
use crate::handoff;
use crate::replica::{split_storage_key, storage_key};
use crate::ring_state::Installed;
use crate::storage::{ScanRange, Space};
use annulus_proto::v1::{PageRequest, StatusRequest, control_client::ControlClient};
use bytes::Bytes;
use dynamo::object::{CodecError, Object};
use dynamo::preference::MemberIndex;
use dynamo::token;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

const PAGE_BYTES_MAX: usize = 4 << 20;

impl Coordinator {
    /// One page of a partition from r of its replicas, merged: what was acknowledged before is there. With fewer that
    /// can be reached, from those.
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
        let list = &placement.preference;
        let wanted = installed.view.ring().quorums.of_list(list.len()).0.max(1);
        let read =
            |member: MemberIndex| self.scan_replica(&installed, member, partition, after.clone(), items_max);
        // Whoever is nearest first; others only in the place of those that fail.
        let mut members: VecDeque<MemberIndex> = list.iter().copied().collect();
        if let Some(here) = list.iter().position(|member| installed.me == Some(*member)) {
            members.rotate_left(here);
        }
        let (mut parts, mut failures) = (Vec::new(), Vec::new());
        while parts.len() < wanted && !members.is_empty() {
            let missing = (wanted - parts.len()).min(members.len());
            for part in futures::future::join_all(members.drain(..missing).map(read)).await {
                match part {
                    Ok(part) => parts.push(part),
                    Err(error) => failures.push(error),
                }
            }
        }
        if parts.is_empty() {
            return Err(RequestError::Unavailable { got: 0, need: 1, missing: failures.join(", ") });
        }
        merged(parts, items_max).map_err(|error| RequestError::Storage(error.to_string()))
    }

    /// One page of one replica; an error says which and why.
    async fn scan_replica(
        &self,
        installed: &Installed,
        member: MemberIndex,
        partition: u32,
        after: Option<Bytes>,
        items_max: usize,
    ) -> Result<Part, String> {
        let count = installed.view.count();
        let (first, last) = (token::first_token(partition, count), token::last_token(partition, count));
        if installed.me == Some(member) {
            let range = ScanRange { after, ..ScanRange::tokens(first.0, last.0) };
            let page = self.parts.replica.engine().scan(Space::Data, &range, items_max, PAGE_BYTES_MAX);
            let page = page.map_err(|error| error.to_string())?;
            return Ok(Part { items: page.items, more: page.more });
        }
        let request = PageRequest {
            cluster: Bytes::copy_from_slice(self.parts.ring.cluster().as_bytes()),
            epoch: installed.view.epoch(),
            first_token: first.0,
            last_token: last.0,
            after: after.unwrap_or_default(),
            items_max: u32::try_from(items_max).unwrap_or(u32::MAX),
            bytes_max: u32::try_from(PAGE_BYTES_MAX).unwrap_or(u32::MAX),
            incarnation: Bytes::new(),
        };
        let page = handoff::fetch_page(&self.parts.peers, member, request).await;
        let page = page.map_err(|error| error.to_string())?;
        let stored = |key: &Bytes| storage_key(installed.view.token(key), key);
        Ok(Part {
            items: page.items.into_iter().map(|(key, object)| (stored(&key), object)).collect(),
            more: page.more,
        })
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

/// What one replica has of a partition from some place on, in the order of storage keys.
struct Part {
    items: Vec<(Bytes, Bytes)>,
    /// There is more behind the last item.
    more: bool,
}

/// The pages of several replicas as one, up to where all of them reach, and no more than `items_max` keys.
fn merged(parts: Vec<Part>, items_max: usize) -> Result<ScanPage, CodecError> {
    let ends = parts.iter().filter(|part| part.more).filter_map(|part| part.items.last());
    let mut reach = ends.map(|(key, _)| key.clone()).min();
    let mut objects: BTreeMap<Bytes, Object> = BTreeMap::new();
    for (key, object) in parts.into_iter().flat_map(|part| part.items) {
        if reach.as_ref().is_some_and(|reach| key > *reach) {
            continue;
        }
        let object = Object::decode(object)?;
        match objects.entry(key) {
            Entry::Vacant(place) => drop(place.insert(object)),
            Entry::Occupied(mut place) => {
                let merged = place.get().merge(&object);
                place.insert(merged);
            }
        }
    }
    if objects.len() > items_max {
        reach = objects.keys().nth(items_max.saturating_sub(1)).cloned();
    }
    let items = objects.into_iter().take(items_max);
    let items = items.filter_map(|(key, object)| Some((split_storage_key(&key)?.1, object))).collect();
    Ok(ScanPage { items, next: reach })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dynamo::hlc::Hlc;
    use dynamo::object::{Actor, Payload, Value};
    use dynamo::token::Token;

    fn object(actor: u64, text: &'static str) -> Object {
        let value = Value { timestamp: Hlc(actor), expires_at_ms: None, payload: Payload::Bytes(text.into()) };
        Object::default().overwrite(Actor { incarnation: actor, birth: 1 }, value)
    }

    fn part(items: &[(u64, &'static str)], actor: u64, more: bool) -> Part {
        let item = |&(at, text): &(u64, &'static str)| {
            (storage_key(Token(at), format!("k{at}").as_bytes()), object(actor, text).encode())
        };
        Part { items: items.iter().map(item).collect(), more }
    }

    fn keys(page: &ScanPage) -> Vec<String> {
        page.items.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect()
    }

    #[test]
    fn what_any_replica_has_is_there_and_merged() {
        let page = merged(vec![part(&[(1, "a"), (3, "c")], 1, false), part(&[(2, "b"), (3, "d")], 2, false)], 10);
        let page = page.unwrap();
        assert_eq!(keys(&page), ["k1", "k2", "k3"]);
        assert_eq!(page.items[2].1, object(1, "c").merge(&object(2, "d")));
        assert_eq!(page.next, None);
    }

    #[test]
    fn a_page_ends_where_the_shortest_that_goes_on_ends() {
        let page = merged(vec![part(&[(1, "a"), (5, "e")], 1, true), part(&[(2, "b"), (3, "c")], 2, true)], 10);
        let page = page.unwrap();
        assert_eq!(keys(&page), ["k1", "k2", "k3"]);
        assert_eq!(page.next, Some(storage_key(Token(3), b"k3")));
    }

    #[test]
    fn a_page_holds_no_more_than_was_asked_for() {
        let page = merged(vec![part(&[(1, "a"), (3, "c")], 1, false), part(&[(2, "b"), (4, "d")], 2, false)], 2);
        let page = page.unwrap();
        assert_eq!(keys(&page), ["k1", "k2"]);
        assert_eq!(page.next, Some(storage_key(Token(2), b"k2")));
    }
}

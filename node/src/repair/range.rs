//! The items of a token range, read from the engine.

use crate::replica::{Replica, split_storage_key};
use crate::storage::{EngineError, ScanRange, Space};
use annulus_proto::v1::ItemRange;
use bytes::Bytes;
use dynamo::reconcile::{item_hash, short};

const PAGE_ITEMS: usize = 1024;
const PAGE_BYTES: usize = 2 << 20;

/// One item: its token, its key and the hash of both and its object.
pub(super) struct Item {
    pub token: u64,
    pub key: Bytes,
    pub hash: u64,
}

/// All items of an inclusive range, in token order, without their objects.
pub(super) async fn read(replica: &Replica, first: u64, last: u64) -> Result<Vec<Item>, EngineError> {
    let mut items = Vec::new();
    let mut range = ScanRange::tokens(first, last);
    loop {
        let page = replica.engine().scan(Space::Data, &range, PAGE_ITEMS, PAGE_BYTES)?;
        for (storage_key, object) in &page.items {
            let Some((token, key)) = split_storage_key(storage_key) else { continue };
            items.push(Item { token: token.0, key, hash: item_hash(storage_key, object) });
        }
        match page.items.last() {
            Some((last, _)) if page.more => range.after = Some(last.clone()),
            _ => return Ok(items),
        }
        // A large leaf takes a while; requests go first.
        tokio::task::yield_now().await;
    }
}

/// The items' hashes, shortened.
pub(super) fn shortened(items: &[Item], salt: u64) -> Vec<u16> {
    items.iter().map(|item| short(item.hash, salt)).collect()
}

/// The sum of the items' hashes, shortened.
pub(super) fn sum(items: &[Item], salt: u64) -> u16 {
    short(items.iter().fold(0, |sum: u64, item| sum.wrapping_add(item.hash)), salt)
}

/// A question about a range: which of these items do you have, and which others?
pub(super) fn with_items(first_token: u64, last_token: u64, items: &[Item], salt: u64) -> ItemRange {
    let hashes: Vec<u8> = shortened(items, salt).into_iter().flat_map(u16::to_le_bytes).collect();
    ItemRange { first_token, last_token, hashes: Bytes::from(hashes), sum: None }
}

/// A question about a range: do you have the same?
pub(super) fn with_sum(first_token: u64, last_token: u64, items: &[Item], salt: u64) -> ItemRange {
    ItemRange { first_token, last_token, hashes: Bytes::new(), sum: Some(u32::from(sum(items, salt))) }
}

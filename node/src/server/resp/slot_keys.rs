//! CLUSTER COUNTKEYSINSLOT and GETKEYSINSLOT: a hash slot is a part of the ring, and is walked like the whole.

use super::error::CommandError;
use super::parse::integer;
use super::reply::Reply;
use super::scan::{COUNT_MAX, Page, first_block_of_slot, slot_of, walk};
use crate::coordinator::{KeyValue, RequestError};
use bytes::Bytes;
use dynamo::token::SLOTS;

/// Whether a subcommand of CLUSTER reads keys.
pub(super) fn reads(arguments: &[Bytes]) -> bool {
    match arguments {
        [_, subcommand, _] => subcommand.eq_ignore_ascii_case(b"countkeysinslot"),
        [_, subcommand, _, _] => subcommand.eq_ignore_ascii_case(b"getkeysinslot"),
        _ => false,
    }
}

/// `CLUSTER COUNTKEYSINSLOT slot | GETKEYSINSLOT slot count`
pub(super) async fn answer<K: KeyValue>(store: &K, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let slot = integer(&arguments[2]).ok_or(CommandError::Fixed("ERR Invalid or out of range slot"))?;
    let wanted = arguments.get(3).map(|count| integer(count).ok_or(CommandError::NotInteger)).transpose()?;
    let slot = u16::try_from(slot).ok().filter(|&slot| slot < SLOTS);
    match (slot, wanted) {
        (Some(slot), None) => Ok(Reply::count(count(store, slot).await?)),
        (Some(slot), Some(wanted)) if wanted >= 0 => keys(store, slot, usize::try_from(wanted).unwrap_or(0)).await,
        (None, None) => Err(CommandError::Fixed("ERR Invalid slot")),
        _ => Err(CommandError::Fixed("ERR Invalid slot or number of keys")),
    }
}

async fn count<K: KeyValue>(store: &K, slot: u16) -> Result<usize, CommandError> {
    let (mut block, mut found) = (Some(first_block_of_slot(slot)), 0);
    while let Some(from) = block {
        let page = page(store, slot, from, COUNT_MAX).await?;
        found += page.live_keys(None, None).len();
        block = page.next;
    }
    Ok(found)
}

async fn keys<K: KeyValue>(store: &K, slot: u16, wanted: usize) -> Result<Reply, CommandError> {
    let bytes_max = store.limits().connection_reply_bytes_max;
    let (mut block, mut found, mut bytes) = (Some(first_block_of_slot(slot)), Vec::new(), 0);
    while let Some(from) = block.filter(|_| found.len() < wanted) {
        let page = page(store, slot, from, (wanted - found.len()).min(COUNT_MAX)).await?;
        let keys = page.live_keys(None, None);
        bytes += keys.iter().map(Reply::bytes).sum::<usize>();
        if bytes > bytes_max {
            return Err(CommandError::ReplyTooLarge { bytes_max });
        }
        found.extend(keys);
        block = page.next;
    }
    found.truncate(wanted);
    Ok(Reply::Array(found))
}

/// About `count` keys of a slot from a block on; `next` is `None` when the slot is at its end.
async fn page<K: KeyValue>(store: &K, slot: u16, from: u64, count: usize) -> Result<Page, RequestError> {
    let view = store.ring().ok_or(RequestError::NoRing)?;
    let mut page = walk(store, &view, from, count, 1).await?;
    page.items.retain(|item| slot_of(view.token(&item.key)) == slot);
    page.next = page.next.filter(|&next| next < first_block_of_slot(slot + 1));
    Ok(page)
}

//! Reading several keys for one command, each for itself.

use super::error::CommandError;
use super::store::{Found, Store};
use crate::coordinator::KeyValue;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

/// Most reads of one command at once. While one waits for another replica, its own copy is held: keys can be large.
const READS_MAX: usize = 64;
/// How large a value is expected to be before any was read, in bytes.
const UNKNOWN_BYTES: usize = 1 << 20;

/// Reads keys and hands each over as soon as it is there, with its place; so nothing is held but what the caller keeps.
/// The larger they turn out, the fewer are read at once.
///
/// # Errors
/// The first of a read or of the caller; the other keys are not waited for.
pub(super) async fn read_each<'a, K: KeyValue>(
    store: &Store<'_, K>,
    keys: impl Iterator<Item = &'a Bytes>,
    mut each: impl FnMut(usize, &Found) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let mut keys = keys.enumerate();
    let mut reads = FuturesUnordered::new();
    let (mut bytes, mut room) = (UNKNOWN_BYTES, 0);
    loop {
        let fitting = store.limits().connection_reply_bytes_max / bytes.max(1);
        // One more for each that was read, so that many large ones behind a small one are noticed in time.
        room = (room + 1).max(4).min(fitting.clamp(1, READS_MAX));
        while reads.len() < room
            && let Some((place, key)) = keys.next()
        {
            reads.push(async move { (place, store.read(key).await) });
        }
        let Some((place, found)) = reads.next().await else { return Ok(()) };
        let found = found?;
        bytes = found.object().encoded_len().max(bytes - bytes / 4);
        each(place, &found)?;
    }
}

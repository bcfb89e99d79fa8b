//! OBJECT: how Redis would keep a key.

use super::error::CommandError;
use super::help;
use super::parse::integer;
use super::reply::Reply;
use super::store::Store;
use crate::coordinator::KeyValue;
use bytes::Bytes;
use dynamo::object::{Kind, Visible};

/// Most integers that Redis keeps as a sorted array.
const INTSET_MEMBERS_MAX: usize = 512;
/// Most members or fields that Redis keeps one behind the other, and the longest of them in bytes.
const LISTPACK_ENTRIES_MAX: usize = 128;
const LISTPACK_BYTES_MAX: usize = 64;
/// Longest string that Redis keeps in one piece with its header, in bytes.
const EMBEDDED_BYTES_MAX: usize = 44;

/// `OBJECT ENCODING | REFCOUNT | FREQ key`
pub(super) async fn object<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let subcommand = arguments[1].to_ascii_lowercase();
    match (subcommand.as_slice(), &arguments[2..]) {
        (b"encoding", [key]) => {
            let found = store.read(key).await?;
            Ok(found.visible().map_or(Reply::Null, |visible| Reply::Bulk(Bytes::from(encoding(visible)))))
        }
        (b"refcount", [key]) => Ok(store.read(key).await?.visible().map_or(Reply::Null, |_| Reply::Integer(1))),
        (b"freq", [key]) => match store.read(key).await?.visible() {
            None => Ok(Reply::Null),
            Some(_) => Err(CommandError::Fixed(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                 switching between policies at runtime LRU and LFU data will take some time to adjust.",
            )),
        },
        (b"encoding" | b"refcount" | b"freq", _) => Err(CommandError::subcommand_arity("object", &subcommand)),
        (b"idletime", _) => Err(CommandError::Unsupported {
            what: String::from("object idletime"),
            reason: "is not offered: nothing is written when a key is read, not even when it was",
        }),
        _ => help::or_unknown("OBJECT", arguments),
    }
}

/// What Redis would choose by default.
fn encoding(visible: Visible<'_>) -> &'static str {
    match visible.kind {
        Kind::String => {
            let string = visible.string();
            match string.len() {
                _ if integer(&string).is_some() => "int",
                ..=EMBEDDED_BYTES_MAX => "embstr",
                _ => "raw",
            }
        }
        Kind::Set => {
            let members: Vec<&Bytes> = visible.members().collect();
            let integers = members.iter().all(|member| integer(member).is_some());
            if integers && members.len() <= INTSET_MEMBERS_MAX {
                return "intset";
            }
            table(members.len(), members.iter().map(|member| member.len()).max())
        }
        Kind::Hash => {
            let lengths = visible.fields().map(|(field, value)| field.len().max(value.len()));
            let lengths: Vec<usize> = lengths.collect();
            table(lengths.len(), lengths.iter().copied().max())
        }
    }
}

fn table(entries: usize, bytes_max: Option<usize>) -> &'static str {
    let small = entries <= LISTPACK_ENTRIES_MAX && bytes_max.unwrap_or(0) <= LISTPACK_BYTES_MAX;
    if small { "listpack" } else { "hashtable" }
}

//! DIGEST and DELEX: strings told by their hash, and deleted if they are what the client takes them for.

use super::error::CommandError;
use super::reply::Reply;
use super::store::{ATTEMPTS_MAX, Store};
use crate::coordinator::KeyValue;
use bytes::Bytes;
use dynamo::object::{Change, Condition, Expiry, Outcome};

/// Digits of a digest.
const DIGITS: usize = 16;

/// What a string must be for something to be done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Only {
    /// What replicas test themselves.
    If(Condition),
    /// Its digest is this one, or is not.
    Digest {
        /// In lower case.
        digest: Bytes,
        /// Whether it has to be.
        equal: bool,
    },
}

impl Only {
    /// A condition by its name, in lower case; `None`: there is no such condition.
    pub(super) fn of_value(name: &[u8], value: &Bytes) -> Option<Result<Self, CommandError>> {
        let digest = |equal| {
            let digits = value.len() == DIGITS && value.iter().all(u8::is_ascii_hexdigit);
            let digest = Bytes::from(value.to_ascii_lowercase());
            if digits { Ok(Self::Digest { digest, equal }) } else { Err(NO_DIGEST) }
        };
        match name {
            b"ifeq" => Some(Ok(Self::If(Condition::Equal(value.clone())))),
            b"ifne" => Some(Ok(Self::If(Condition::Different(value.clone())))),
            b"ifdeq" => Some(digest(true)),
            b"ifdne" => Some(digest(false)),
            _ => None,
        }
    }
}

const NO_DIGEST: CommandError = CommandError::Fixed("ERR must be exactly 16 hexadecimal characters");

/// Writes a string or deletes the key if the condition holds.
///
/// Replicas know no digests: the string is read, and replaced if it is still the one that was read.
pub(super) async fn replace_if<K: KeyValue>(
    store: &Store<'_, K>,
    key: &Bytes,
    bytes: Option<Bytes>,
    expiry: Expiry,
    only: Only,
    read: bool,
) -> Result<Outcome, CommandError> {
    let (wanted, equal) = match only {
        Only::If(only) => return store.change(key, Change::Replace { bytes, expiry, only, read }).await,
        Only::Digest { digest, equal } => (digest, equal),
    };
    for _ in 0..ATTEMPTS_MAX {
        let before = store.string(key).await?;
        let holds = before.as_ref().is_some_and(|before| digest_of(before).as_bytes() == wanted) == equal;
        if !holds {
            let existed = before.is_some();
            return Ok(Outcome::Replaced { done: false, existed, before: before.filter(|_| read) });
        }
        let unchanged = before.map_or(Condition::Absent, Condition::Equal);
        let change = Change::Replace { bytes: bytes.clone(), expiry, only: unchanged, read };
        match store.change(key, change).await? {
            Outcome::Replaced { done: false, .. } => {}
            outcome => return Ok(outcome),
        }
    }
    Err(CommandError::Contended)
}

/// `DIGEST key`
pub(super) async fn digest<K: KeyValue>(store: &Store<'_, K>, key: &Bytes) -> Result<Reply, CommandError> {
    Ok(store.string(key).await?.map_or(Reply::Null, |value| Reply::Text(digest_of(&value))))
}

/// `DELEX key [IFEQ value | IFNE value | IFDEQ digest | IFDNE digest]`
pub(super) async fn delex<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let key = &arguments[1];
    let only = match &arguments[2..] {
        [] => return Ok(Reply::Integer(i64::from(store.bury(key.clone()).await?.existed))),
        [name, value] => Only::of_value(&name.to_ascii_lowercase(), value)
            .ok_or(CommandError::Fixed("ERR Invalid condition"))??,
        _ => return Err(CommandError::Arity(String::from("delex"))),
    };
    // What differs from a string that is not there deletes nothing.
    let outcome = replace_if(store, key, None, Expiry::At(None), only, false).await?;
    Ok(Reply::Integer(i64::from(matches!(outcome, Outcome::Replaced { done: true, existed: true, .. }))))
}

/// XXH3 with 64 bits, as Redis 8.4 computes and writes it.
fn digest_of(value: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(value))
}

#[cfg(test)]
mod tests {
    use super::digest_of;

    /// Of the reference implementation.
    #[test]
    fn digests_are_those_of_xxh3() {
        assert_eq!(digest_of(b""), "2d06800538d394c2");
        assert_eq!(digest_of(b"abc"), "78af5f94892f3950");
    }
}

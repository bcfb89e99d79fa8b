//! Keys in the engine.

use bytes::Bytes;
use dynamo::token::Token;

/// A token at the beginning of a key in the engine.
const TOKEN_BYTES: usize = 8;
/// Keys up to this are looked up without fetching memory.
const USUAL_KEY_BYTES_MAX: usize = 120;

/// Key in the engine: the token in big endian, then the key, so that a partition is one range at any Q.
#[must_use]
pub fn storage_key(token: Token, key: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(TOKEN_BYTES + key.len());
    bytes.extend_from_slice(&token.0.to_be_bytes());
    bytes.extend_from_slice(key);
    Bytes::from(bytes)
}

/// The same for a moment only, without memory of its own for keys of the usual length.
pub(super) fn with_storage_key<T>(token: Token, key: &[u8], look: impl FnOnce(&[u8]) -> T) -> T {
    let mut room = [0; TOKEN_BYTES + USUAL_KEY_BYTES_MAX];
    let bytes = TOKEN_BYTES + key.len();
    match room.get_mut(..bytes) {
        Some(short) => {
            let (first, rest) = short.split_at_mut(TOKEN_BYTES);
            first.copy_from_slice(&token.0.to_be_bytes());
            rest.copy_from_slice(key);
            look(short)
        }
        None => look(&storage_key(token, key)),
    }
}

/// Token and key of a key in the engine; `None` when it is too short to be one.
#[must_use]
pub fn split_storage_key(bytes: &Bytes) -> Option<(Token, Bytes)> {
    let (token, _) = token_and_key(bytes)?;
    Some((token, bytes.slice(TOKEN_BYTES..)))
}

/// The same without a handle of the key.
#[must_use]
pub fn token_and_key(bytes: &[u8]) -> Option<(Token, &[u8])> {
    let (token, key) = bytes.split_first_chunk::<TOKEN_BYTES>()?;
    Some((Token(u64::from_be_bytes(*token)), key))
}

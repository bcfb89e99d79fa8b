//! A client's change, carried out here on top of what is known of the key.

use super::{ANYWHERE, Replica, ReplicaError, Updated, Weight, storage_key};
use crate::storage::Submitted;
use bytes::Bytes;
use dynamo::object::{By, Change, Object, Outcome, Refusal};
use dynamo::token::Token;

impl Replica {
    /// Carries out a change as a replica, on top of what is here and of what is known from others. The second is what
    /// was stored, encoded, and resolves when this node's own copy is durable; `None`: there was nothing to store.
    ///
    /// # Errors
    /// [`ReplicaError`]; nothing was stored.
    pub async fn change(
        &self,
        token: Token,
        key: &[u8],
        change: &Change,
        known: &Object,
        since: u64,
    ) -> Result<(Outcome, Option<(Bytes, Submitted)>), ReplicaError> {
        let reservation = self.committer.reserve(key.len() + known.encoded_len() + change.bytes() + 128).await?;
        let updated = self.objects.update(storage_key(token, key), reservation, |current| {
            self.admit(token, since)?;
            let current_len = current.as_ref().map_or(0, Bytes::len);
            let mine = current.map(Object::decode).transpose()?;
            let before = match &mine {
                Some(mine) if mine.includes(known) => mine.clone(),
                Some(mine) => mine.merge(known),
                None => known.clone(),
            };
            self.actors.mistrust_returning(token, mine.as_ref(), known);
            // What is here decides whether this node's own actor is continued.
            let (object, outcome) = before.change(change, self.by(token, mine.as_ref(), &before));
            let (object, outcome) = match self.bounded(object, outcome) {
                Ok(bounded) => bounded,
                Err(outcome) => return Ok((None, (outcome, None))),
            };
            let encoded = object.encode();
            let weight = mine.as_ref().map(|mine| Weight::of(key, mine, current_len)).unwrap_or_default();
            self.counters.replace(token, weight, Weight::of(key, &object, encoded.len()));
            Ok::<_, ReplicaError>((Some(encoded.clone()), (outcome, Some(encoded))))
        })?;
        self.observe(known);
        Ok(match updated {
            Updated::Queued((outcome, Some(encoded)), durable) => (outcome, Some((encoded, durable))),
            Updated::Queued((outcome, None), _) | Updated::Unchanged((outcome, _)) => (outcome, None),
        })
    }

    /// The same for a key that this node is no replica of: the change is carried out where nothing is known.
    #[must_use]
    pub fn change_blind(&self, change: &Change) -> (Option<Object>, Outcome) {
        let nothing = Object::default();
        nothing.change(change, self.by(ANYWHERE, None, &nothing))
    }

    pub(super) fn by(&self, token: Token, mine: Option<&Object>, before: &Object) -> By {
        let now_ms = self.now_ms();
        let timestamp = self.timestamp(now_ms, before.max_timestamp());
        By { actor: self.actors.of(token, mine), timestamp, now_ms }
    }

    /// Refuses objects that would get too large.
    fn bounded(&self, object: Option<Object>, outcome: Outcome) -> Result<(Object, Outcome), Outcome> {
        let Some(object) = object else { return Err(outcome) };
        let siblings = object.sibling_count();
        let string = siblings > 0;
        let bytes = object.encoded_len();
        let bytes_max = if string { self.string_bytes_max } else { self.collection_bytes_max };
        if bytes > bytes_max {
            let (bytes, bytes_max) = (bytes as u64, bytes_max as u64);
            return Err(Outcome::Refused(Refusal::TooLarge { bytes, bytes_max }));
        }
        Ok((object, outcome))
    }
}

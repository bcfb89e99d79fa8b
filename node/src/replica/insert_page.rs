//! Taking a page of another replica's objects as a whole, where nothing is here of them.

use super::objects::Way;
use super::{NewObject, Replica, ReplicaError, Weight, admit, storage_key};
use crate::storage::{Change, Submitted};
use bytes::Bytes;
use dynamo::object::Object;
use dynamo::token::Token;

/// A page of objects on its way from another replica: token, key and object of each, ascending.
pub type PageItems = [(Token, Bytes, Bytes)];

/// What has to be known of an object to store it.
struct Arriving {
    token: Token,
    weight: Weight,
    object: Object,
}

/// How a page is to be stored.
#[derive(Clone, Copy, Debug)]
pub struct PageRules {
    /// Epoch since which the lists are those by which its sender means it for this node.
    pub since: u64,
    /// How many commits had [failed](Replica::failed_commits) when the first page of several was taken. If others have
    /// since, pages before this one may be lost, and it is not stored with records that say the contrary.
    pub failed_commits: u64,
    /// Whether it is part of a run, for the engine to load.
    pub run: bool,
}

impl Replica {
    /// Commits of objects that have failed.
    #[must_use]
    pub fn failed_commits(&self) -> u64 {
        self.overlay.failed_commits()
    }

    /// Stores objects if nothing is here from the first of them to the last, and what `records` returns, which is durable
    /// only when they are. `None`: something is here, or may be, and has to be merged with; nothing was stored.
    ///
    /// # Errors
    /// [`ReplicaError`]; nothing was stored.
    pub async fn insert_page(
        &self,
        items: &PageItems,
        rules: PageRules,
        records: impl FnOnce() -> Vec<Change>,
    ) -> Result<Option<Submitted>, ReplicaError> {
        let bytes = items.iter().map(|(_, key, object)| key.len() + object.len()).sum();
        let reservation = self.committer.reserve(bytes).await?;
        let mut arriving = Vec::with_capacity(items.len());
        let mut new = Vec::with_capacity(items.len());
        for (token, key, encoded) in items {
            let object = Object::decode(encoded.clone())?;
            arriving.push(Arriving { token: *token, weight: Weight::of(key, &object, encoded.len()), object });
            new.push(NewObject::new(storage_key(*token, key), encoded.clone()));
        }
        let way = if rules.run { Way::Run } else { Way::Commit };
        let inserted = self.objects.insert_new(&new, way, reservation, || {
            self.admit_all(&arriving, rules.since)?;
            if self.failed_commits() != rules.failed_commits {
                return Ok(None);
            }
            for Arriving { token, weight, object } in &arriving {
                self.actors.mistrust_returning(*token, None, object);
                self.counters.replace(*token, Weight::default(), *weight);
            }
            Ok::<_, ReplicaError>(Some(records()))
        })?;
        if inserted.is_some() {
            arriving.iter().for_each(|arriving| self.observe(&arriving.object));
        }
        Ok(inserted)
    }

    fn admit_all(&self, arriving: &[Arriving], since: u64) -> Result<(), ReplicaError> {
        let installed = self.ring.load().ok_or(ReplicaError::Behind)?;
        arriving.iter().try_for_each(|arriving| admit(&installed, arriving.token, since))
    }
}

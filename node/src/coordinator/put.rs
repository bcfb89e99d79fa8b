//! A write, from the client's request to the quorum's word.

use super::forward::Forwarded;
use super::replicate::Replication;
use super::{Coordinator, RequestError, Write, WriteOptions, Written};
use crate::replica::ReplicaError;
use crate::ring_state::Installed;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Pause before a write is tried again after the ring changed under it.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(5);

impl Coordinator {
    /// Coordinates the write here if this node is a replica of the key, else has a replica do it. A node that is still being
    /// filled has one do it, too, as long as there is any: it does not know what the write takes the place of.
    pub(super) async fn write(
        &self,
        key: Bytes,
        write: Write,
        options: WriteOptions,
    ) -> Result<Written, RequestError> {
        loop {
            let installed = self.installed()?;
            let partition = installed.view.partition(installed.view.token(&key));
            let here = installed.me.zip(installed.view.placement(partition));
            if !here.is_some_and(|(me, placement)| placement.serves(me)) {
                match self.forward(&installed, partition, &key, &write, options).await? {
                    Forwarded::Written(written) => return Ok(written),
                    Forwarded::RingChanged => {
                        tokio::time::sleep(RETRY_PAUSE).await;
                        continue;
                    }
                    Forwarded::NobodyThere if here.is_some_and(|(me, placement)| placement.names(me)) => {}
                    Forwarded::NobodyThere => {
                        return self.keep_at_fallbacks(&installed, &key, &write, options).await;
                    }
                }
            }
            match self.coordinate(&installed, &key, write.clone(), options).await {
                Err(CoordinateError::RingChanged) => tokio::time::sleep(RETRY_PAUSE).await,
                Err(CoordinateError::Request(error)) => return Err(error),
                Ok(written) => return Ok(written),
            }
        }
    }

    /// Coordinates a write as a replica of its key.
    pub(super) async fn coordinate(
        &self,
        installed: &Arc<Installed>,
        key: &Bytes,
        write: Write,
        options: WriteOptions,
    ) -> Result<Written, CoordinateError> {
        let token = installed.view.token(key);
        let since = installed.view.since(token);
        let flight = self.parts.replica.take_off();
        let coordinated = match self.parts.replica.coordinate(token, key, write, since).await {
            Err(ReplicaError::Stale | ReplicaError::Behind) => return Err(CoordinateError::RingChanged),
            other => other?,
        };
        let written = Written {
            timestamp: coordinated.timestamp,
            context: coordinated.object.context(),
            existed: coordinated.existed,
        };
        let (installed, key) = (installed.clone(), key.clone());
        let mut replication = Replication::new(self, installed, key, coordinated.encoded, options, flight);
        replication.count_local(coordinated.durable);
        replication.run().await?;
        Ok(written)
    }
}

/// Why a write was not coordinated here.
#[derive(Debug)]
pub(super) enum CoordinateError {
    /// The key's lists changed before anything was stored: look at the ring again.
    RingChanged,
    /// The request failed.
    Request(RequestError),
}

impl From<RequestError> for CoordinateError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<ReplicaError> for CoordinateError {
    fn from(error: ReplicaError) -> Self {
        Self::Request(error.into())
    }
}

//! Speaking with the other members: one long-lived stream to each, requests in batches out, replies in batches back.

mod asking;
mod client;
mod exchange;
mod frames;
#[cfg(test)]
mod fuzz;
mod incoming;
mod listening;
mod observed;
mod pending;

pub use asking::Asking;
pub use client::{Peer, PeerError};
pub use exchange::{Begun, PeerService, RequestHandler};
pub use observed::Observed;
pub use pending::{Answer, Listener};

use crate::beat::Beat;
use crate::config::Limits;
use crate::net::{ChannelError, Connector};
use crate::replica::Replica;
use crate::ring_state::RingState;
use dynamo::preference::MemberIndex;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use uuid::Uuid;

/// The peers of this node, by incarnation.
pub struct Peers {
    peers: RwLock<BTreeMap<Uuid, Arc<Peer>>>,
    ring: Arc<RingState>,
    replica: Arc<Replica>,
    connector: Connector,
    limits: Arc<Limits>,
    beat: Beat,
    shutdown: CancellationToken,
}

/// Why there is no connection for bulk calls.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// The ring in force has no such member besides this node.
    #[error("member {0} is no peer of this node")]
    Unknown(MemberIndex),
    /// It cannot be connected to.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

impl Peers {
    /// No peers yet; [`Peers::follow_ring`] finds them.
    #[must_use]
    pub fn new(
        ring: Arc<RingState>,
        replica: Arc<Replica>,
        connector: Connector,
        limits: Arc<Limits>,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let beat = Beat::new();
        Arc::new(Self { peers: RwLock::default(), ring, replica, connector, limits, beat, shutdown })
    }

    /// Keeps one stream to each other member of the ring in force, until shutdown.
    pub async fn follow_ring(self: Arc<Self>) {
        let mut epochs = self.ring.watch();
        loop {
            self.refresh();
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                changed = epochs.changed() => if changed.is_err() { return },
            }
        }
    }

    /// When this node gives signs of life.
    #[must_use]
    pub fn beat(&self) -> Beat {
        self.beat
    }

    /// The peer with this index in the ring in force.
    #[must_use]
    pub fn by_index(&self, index: MemberIndex) -> Option<Arc<Peer>> {
        let installed = self.ring.load()?;
        let incarnation = installed.view.member(index)?.incarnation;
        self.by_incarnation(incarnation)
    }

    /// The peer with this incarnation.
    #[must_use]
    pub fn by_incarnation(&self, incarnation: Uuid) -> Option<Arc<Peer>> {
        self.peers.read().get(&incarnation).cloned()
    }

    /// A connection to a member for bulk calls, and its incarnation.
    ///
    /// # Errors
    /// When it is no peer of this node, or cannot be connected to now.
    pub async fn bulk_channel(&self, index: MemberIndex) -> Result<(Channel, Uuid), BulkError> {
        let peer = self.by_index(index).ok_or(BulkError::Unknown(index))?;
        let channel = peer.bulk_channel(&self.connector).await?;
        Ok((channel, peer.incarnation()))
    }

    /// Every peer.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Peer>> {
        self.peers.read().values().cloned().collect()
    }

    /// Hands over a ring document: installs it if it is newer.
    pub async fn offer_ring(&self, json: &[u8]) {
        if let Err(error) = self.ring.install(json, || self.replica.fence_writers()).await {
            tracing::warn!(%error, "a peer's ring was not installed");
        }
    }

    fn refresh(self: &Arc<Self>) {
        let Some(installed) = self.ring.load() else { return };
        let members = &installed.view.ring().members;
        let mut peers = self.peers.write();
        peers.retain(|incarnation, peer| {
            let member = members.iter().find(|member| member.incarnation == *incarnation);
            let stays = member.is_some_and(|member| member.peer_address == peer.address());
            if !stays {
                peer.close();
            }
            stays
        });
        for member in members.iter().filter(|member| member.incarnation != self.ring.incarnation()) {
            peers.entry(member.incarnation).or_insert_with(|| {
                let peer = Peer::new(member, &self.limits, self.shutdown.child_token());
                tokio::spawn(client::run(peer.clone(), self.clone()));
                peer
            });
        }
    }
}

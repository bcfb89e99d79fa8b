//! The loop that compares with one member after the other, for as long as the node runs.

use super::session::{Found, Session};
use crate::config::Limits;
use crate::peers::{Peer, Peers};
use crate::replica::Replica;
use crate::ring_state::{Installed, RingState};
use dynamo::preference::MemberIndex;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longest pause between two rounds when what differs is only what is being written.
const PAUSE_MAX: Duration = Duration::from_secs(16);

/// Anti-entropy of a node.
pub struct Repair {
    ring: Arc<RingState>,
    replica: Arc<Replica>,
    peers: Arc<Peers>,
    pause: Duration,
    bytes_per_second_max: u64,
    view: Mutex<RepairView>,
}

/// What anti-entropy has done since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairView {
    /// Comparisons with a member, those that found nothing included.
    pub comparisons: u64,
    /// Of these, the ones that ended early.
    pub failed: u64,
    /// What they found and did.
    pub found: Found,
}

impl Repair {
    /// Anti-entropy that has yet to be run.
    #[must_use]
    pub fn new(ring: Arc<RingState>, replica: Arc<Replica>, peers: Arc<Peers>, limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            ring,
            replica,
            peers,
            pause: limits.repair_pause,
            bytes_per_second_max: limits.repair_bytes_per_second_max,
            view: Mutex::default(),
        })
    }

    /// What was done so far.
    #[must_use]
    pub fn view(&self) -> RepairView {
        *self.view.lock()
    }

    /// Compares until shutdown.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut pause = self.pause;
        let mut salt = self.ring.incarnation().as_u64_pair().1;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            salt = salt.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let busy = tokio::select! {
                () = shutdown.cancelled() => return,
                busy = self.round(salt) => busy,
            };
            // Under load something is always on its way; looking for it all the time would only add to the load.
            pause = if busy { (pause * 2).min(PAUSE_MAX.max(self.pause)) } else { self.pause };
        }
    }

    /// Compares with everyone once. Returns whether things differed that were equal when looked at closely.
    async fn round(&self, salt: u64) -> bool {
        let Some(installed) = self.ring.load() else { return false };
        let Some(me) = installed.me else { return false };
        let mut busy = false;
        for (member, peer) in self.partners(&installed, me) {
            let found = self.compare(&installed, member, peer, salt).await;
            busy |= found.leaves > 0 && found.fetched + found.sent == 0;
        }
        busy
    }

    fn partners(&self, installed: &Installed, me: MemberIndex) -> Vec<(MemberIndex, Arc<Peer>)> {
        let members = installed.view.ring().members.iter().map(|member| member.index);
        let reachable = |index| self.peers.by_index(index).filter(|peer| peer.is_up()).map(|peer| (index, peer));
        members.filter(|&index| index > me).filter_map(reachable).collect()
    }

    async fn compare(&self, installed: &Arc<Installed>, member: MemberIndex, peer: Arc<Peer>, salt: u64) -> Found {
        let mut session = Session {
            ring: &self.ring,
            replica: &self.replica,
            peers: &self.peers,
            peer,
            installed: installed.clone(),
            member,
            salt,
            bytes_per_second_max: self.bytes_per_second_max,
            found: Found::default(),
        };
        let outcome = session.run().await;
        let found = session.found;
        if let Err(error) = &outcome {
            tracing::debug!(peer = session.peer.name(), %error, "comparing ended early");
        }
        if found.fetched + found.sent > 0 {
            tracing::info!(peer = session.peer.name(), fetched = found.fetched, sent = found.sent, "repaired");
        }
        let mut view = self.view.lock();
        view.comparisons += 1;
        view.failed += u64::from(outcome.is_err());
        view.found.partitions += found.partitions;
        view.found.leaves += found.leaves;
        view.found.fetched += found.fetched;
        view.found.sent += found.sent;
        view.found.bytes += found.bytes;
        found
    }
}

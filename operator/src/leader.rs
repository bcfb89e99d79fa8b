//! At most one operator acts: the one that holds the lease.
//!
//! Should two ever act at once, as after a pause of the holder, they still cannot undo each other: rings are written
//! by compare-and-swap, pods and volumes are deleted by UID, and pods are let go only against the very version of
//! the `StatefulSet` that was observed.

use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a lease lasts unless it is renewed.
const LEASE_SECONDS: u64 = 15;
/// How long before its end it is renewed.
const RENEWAL_SECONDS: u64 = 5;

/// The lease, and the task that keeps it.
pub struct Leadership {
    holds: watch::Receiver<bool>,
    keeper: JoinHandle<Result<LeaseManager, LeaseManagerError>>,
}

impl Leadership {
    /// Begins to contend for the lease.
    ///
    /// # Errors
    /// When the lease can be neither read nor created.
    pub async fn contend(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
    ) -> Result<Self, LeaseManagerError> {
        let manager = LeaseManagerBuilder::new(client, name)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_duration(LEASE_SECONDS)
            .with_grace(RENEWAL_SECONDS)
            .build()
            .await?;
        let (holds, keeper) = manager.watch().await;
        Ok(Self { holds, keeper })
    }

    /// Waits until the lease is held. Returns `false` when it never will be, for its keeper has given up.
    pub async fn won(&mut self) -> bool {
        self.holds.wait_for(|holds| *holds).await.is_ok()
    }

    /// A future that is done when the lease is lost.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + Sync + 'static {
        let mut holds = self.holds.clone();
        async move {
            // An error means that the keeper is gone, and the lease with it.
            let _ = holds.wait_for(|holds| !*holds).await;
        }
    }

    /// Gives the lease back, so that another operator need not wait for its end.
    pub async fn release(self) {
        drop(self.holds);
        match self.keeper.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the lease was not given back"),
            Err(error) => tracing::warn!(%error, "the keeper of the lease failed"),
        }
    }
}

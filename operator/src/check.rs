//! Whether the API server is as the operator needs it: what `helm test` runs.

use crate::crd::KeyValueCluster;
use kube::api::ListParams;
use kube::{Api, Client, CustomResourceExt};

/// What is missing, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The resource is not served.
    #[error("the API server does not serve {0}; apply the CRD, as `annulus-operator crd` prints it")]
    NotServed(String),
    /// Clusters may not be listed.
    #[error("KeyValueClusters may not be listed; grant the service account the chart's ClusterRole: {0}")]
    Forbidden(String),
    /// The API server did not answer.
    #[error("the API server did not answer: {0}")]
    Api(#[from] kube::Error),
}

/// Lists clusters, in one namespace or in all, and counts them.
///
/// # Errors
/// [`CheckError`]: what is missing.
pub async fn check(client: Client, namespace: Option<&str>) -> Result<usize, CheckError> {
    let api: Api<KeyValueCluster> = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items.len()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            Err(CheckError::NotServed(KeyValueCluster::crd_name().to_owned()))
        }
        Err(kube::Error::Api(status)) if status.code == 403 => Err(CheckError::Forbidden(status.message.clone())),
        Err(error) => Err(error.into()),
    }
}

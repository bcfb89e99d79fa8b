//! What the nodes say, asked in parallel.

use crate::nodes::NodeClient;
use crate::plan::{Answer, Observation, Pod, StoredRing};
use annulus_proto::v1::NodeStatus;
use annulus_proto::{FieldError, uuid_from};
use dynamo::ring;
use futures::future::join_all;
use std::net::IpAddr;

/// Asks one node for its status.
pub async fn ask(nodes: &dyn NodeClient, ip: IpAddr) -> Observation {
    match nodes.status(ip).await {
        Ok(status) => match answer(status) {
            Ok(answer) => Observation::Answer(Box::new(answer)),
            Err(error) => Observation::NoAnswer(error.to_string()),
        },
        Err(error) => Observation::NoAnswer(error.to_string()),
    }
}

/// Reads the identities in a status.
///
/// # Errors
/// [`FieldError`] when one is no UUID.
pub fn answer(status: NodeStatus) -> Result<Answer, FieldError> {
    let incarnation = uuid_from("incarnation", &status.incarnation)?;
    let cluster = match status.cluster.is_empty() {
        true => None,
        false => Some(uuid_from("cluster", &status.cluster)?),
    };
    Ok(Answer { incarnation, cluster, status, held: None })
}

/// Asks every pod that has an address, and fetches rings from those that may hold a newer one than is stored.
pub(super) async fn ask_all(nodes: &dyn NodeClient, pods: &mut [Pod], stored: &StoredRing, known_epoch: u64) {
    let certain = match stored {
        StoredRing::Held { ring, .. } if ring.epoch >= known_epoch => ring.epoch,
        StoredRing::Held { .. } | StoredRing::Missing | StoredRing::Damaged { .. } => 0,
    };
    join_all(pods.iter_mut().filter_map(|pod| Some((pod.ip?, pod))).map(|(ip, pod)| async move {
        pod.node = ask(nodes, ip).await;
        let Observation::Answer(answer) = &mut pod.node else { return };
        if answer.status.epoch <= certain {
            return;
        }
        match nodes.ring(ip).await {
            Ok(json) => answer.held = ring::from_json(&json).ok().map(Box::new),
            Err(error) => tracing::warn!(pod = pod.name, %error, "the node did not hand over its ring"),
        }
    }))
    .await;
}

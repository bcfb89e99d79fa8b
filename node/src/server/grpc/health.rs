//! `grpc.health.v1.Health`: serving when the node is ready.

use crate::coordinator::KeyValue;
use futures::Stream;
use futures::stream;
use std::pin::Pin;
use std::time::Duration;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// How often a watched status is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Services that have a status; the empty name stands for the node.
const KNOWN: [&str; 2] = ["", "annulus.v1.KeyValue"];

/// The service over a store.
pub(super) struct Health<K> {
    store: K,
}

impl<K: KeyValue> Health<K> {
    pub(super) fn new(store: K) -> Self {
        Self { store }
    }
}

fn status_of(store: &impl KeyValue, service: &str) -> ServingStatus {
    match (KNOWN.contains(&service), store.overview().ready) {
        (false, _) => ServingStatus::ServiceUnknown,
        (true, true) => ServingStatus::Serving,
        (true, false) => ServingStatus::NotServing,
    }
}

#[tonic::async_trait]
impl<K: KeyValue> health_server::Health for Health<K> {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match status_of(&self.store, &request.into_inner().service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found("unknown service")),
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (store, service) = (self.store.clone(), request.into_inner().service);
        let changes = stream::unfold(None, move |last| {
            let (store, service) = (store.clone(), service.clone());
            async move {
                loop {
                    let status = status_of(&store, &service);
                    if last != Some(status) {
                        return Some((Ok(HealthCheckResponse { status: status.into() }), Some(status)));
                    }
                    tokio::time::sleep(WATCH_INTERVAL).await;
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

//! What may happen between the operator and the API server: a layer of the operator's client that counts what is written,
//! has the operator die after a write, and has requests fail, before they are carried out or after.

use super::stage::NAME;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kube::client::{Body, ClientBuilder, DynBody};
use kube::{Client, Config};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::sync::watch;
use tower::{BoxError, Layer, Service};

/// What happens to one operator's requests.
#[derive(Clone)]
pub struct Fate(Arc<Inner>);

struct Inner {
    /// Writes answered so far.
    writes: AtomicU64,
    /// How often the resource itself was read so far.
    rounds: AtomicU64,
    /// The operator dies after so many, and does not learn of the last.
    dies_after: u64,
    dead: watch::Sender<bool>,
    /// Where failures are drawn from, and what share of requests fails.
    failures: Option<(Mutex<StdRng>, f64)>,
}

impl Fate {
    /// Nothing happens.
    pub fn kind() -> Self {
        Self::new(u64::MAX, None)
    }

    /// It dies right after a write, counted from one.
    pub fn dies_after(writes: u64) -> Self {
        Self::new(writes, None)
    }

    /// This share of its requests fails: refused with 409, 429, 500 or 503, or carried out with the answer lost. Watches
    /// break as well, so that it often sees late what has changed.
    pub fn unreliable(seed: u64, share: f64) -> Self {
        Self::new(u64::MAX, Some((Mutex::new(StdRng::seed_from_u64(seed)), share)))
    }

    fn new(dies_after: u64, failures: Option<(Mutex<StdRng>, f64)>) -> Self {
        let (writes, rounds) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Inner { writes, rounds, dies_after, dead: watch::Sender::new(false), failures }))
    }

    /// A client whose requests are subject to it.
    pub async fn client(&self) -> Client {
        let config = Config::infer().await.unwrap();
        ClientBuilder::try_from(config).unwrap().with_layer(self).build()
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        self.0.writes.load(Ordering::SeqCst)
    }

    /// Rounds so far: each begins with the cluster's resource.
    pub fn rounds(&self) -> u64 {
        self.0.rounds.load(Ordering::SeqCst)
    }

    /// Done when the operator has died.
    pub async fn died(&self) {
        let _ = self.0.dead.subscribe().wait_for(|dead| *dead).await;
    }

    fn is_dead(&self) -> bool {
        *self.0.dead.borrow()
    }

    fn wrote(&self) {
        if self.0.writes.fetch_add(1, Ordering::SeqCst) + 1 >= self.0.dies_after {
            self.0.dead.send_replace(true);
        }
    }

    /// With what a request fails, and whether it is carried out all the same.
    fn failure(&self, write: bool) -> Option<(StatusCode, bool)> {
        let (rng, share) = self.0.failures.as_ref()?;
        let mut rng = rng.lock().unwrap();
        if !rng.random_bool(*share) {
            return None;
        }
        let refusals = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::INTERNAL_SERVER_ERROR,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::CONFLICT,
        ];
        let refusal = refusals[rng.random_range(0..if write { 4 } else { 3 })];
        let lost = write && rng.random_bool(0.3);
        Some(if lost { (StatusCode::GATEWAY_TIMEOUT, true) } else { (refusal, false) })
    }
}

impl<S> Layer<S> for Fate {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Watched { inner, fate: self.clone() }
    }
}

/// A client's service that is subject to a fate.
pub struct Watched<S> {
    inner: S,
    fate: Fate,
}

type Answer = Response<Box<DynBody>>;

impl<S> Service<Request<Body>> for Watched<S>
where
    S: Service<Request<Body>, Response = Answer, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if self.fate.is_dead() {
            return Box::pin(std::future::pending());
        }
        let write = *request.method() != Method::GET;
        if !write && request.uri().path().ends_with(&format!("/keyvalueclusters/{NAME}")) {
            self.fate.0.rounds.fetch_add(1, Ordering::SeqCst);
        }
        let failure = self.fate.failure(write);
        if let Some((code, false)) = failure {
            return Box::pin(async move { Ok(refusal(code)) });
        }
        let (answer, fate) = (self.inner.call(request), self.fate.clone());
        Box::pin(async move {
            let answer = answer.await?;
            if write {
                fate.wrote();
            }
            if fate.is_dead() {
                std::future::pending::<()>().await;
            }
            Ok(failure.map_or(answer, |(code, _)| refusal(code)))
        })
    }
}

fn refusal(code: StatusCode) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
        "reason": code.canonical_reason().unwrap_or_default().replace(' ', ""), "message": "made to fail",
    });
    let body = Full::new(bytes::Bytes::from(status.to_string())).map_err(|never| match never {});
    let mut answer: Answer = Response::new(Box::new(body));
    *answer.status_mut() = code;
    answer
}

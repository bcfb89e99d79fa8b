//! The HTTP front end: metrics for Prometheus, health for Kubernetes, and the ring drawn for people.

mod ring_page;

use super::metrics::Metrics;
use crate::coordinator::KeyValue;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::serve::Listener;
use futures::{Stream, StreamExt};
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The page loads nothing from elsewhere, and says so.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";

/// Serves HTTP on every connection that comes in, until `shutdown` is cancelled; requests under way are answered.
pub async fn serve<K, I, IO>(incoming: I, store: K, metrics: Metrics, shutdown: CancellationToken)
where
    K: KeyValue,
    I: Stream<Item = io::Result<IO>> + Send + Unpin + 'static,
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let served = axum::serve(Incoming(incoming), router(store, metrics));
    // Its errors are those of `accept`, which has none.
    let _ = served.with_graceful_shutdown(shutdown.cancelled_owned()).await;
}

/// `/metrics`, `/healthz`, `/readyz`, `/ui` and `/ui/ring.json`.
pub fn router<K: KeyValue>(store: K, metrics: Metrics) -> Router {
    let metrics = move || std::future::ready(metrics_text(&metrics));
    Router::new()
        .route("/", get(async || Redirect::temporary("/ui")))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz::<K>))
        .route("/ui", get(async || ([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], ring_page::html())))
        .route("/ui/ring.json", get(ring_json::<K>))
        .with_state(store)
}

fn metrics_text(metrics: &Metrics) -> Response {
    match metrics.encode() {
        Ok(body) => ([(header::CONTENT_TYPE, METRICS_TYPE)], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn readyz<K: KeyValue>(State(store): State<K>) -> Response {
    let overview = store.overview();
    if overview.ready {
        return "ready\n".into_response();
    }
    let reason = match store.ring() {
        None => String::from("not ready: no ring has been received yet\n"),
        Some(view) if view.ring().member_by_incarnation(overview.incarnation).is_none() => {
            format!("not ready: the ring of epoch {} does not name this node\n", view.epoch())
        }
        Some(view) => format!("not ready: starting up or shutting down, at epoch {}\n", view.epoch()),
    };
    (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
}

async fn ring_json<K: KeyValue>(State(store): State<K>) -> Response {
    axum::Json(ring_page::describe(store.ring().as_deref(), &store.overview())).into_response()
}

/// A stream of connections as axum wants it.
struct Incoming<I>(I);

impl<I, IO> Listener for Incoming<I>
where
    I: Stream<Item = io::Result<IO>> + Send + Unpin + 'static,
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Io = IO;
    type Addr = ();

    async fn accept(&mut self) -> (IO, ()) {
        loop {
            match self.0.next().await {
                Some(Ok(io)) => return (io, ()),
                Some(Err(error)) => tracing::warn!(%error, "an HTTP connection could not be accepted"),
                // There will be no more; those that are open go on until the shutdown.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

//! HTTP: metrics, health, and the ring page.

use crate::memory::Memory;
use annulus_node::config::Limits;
use annulus_node::server::{Metrics, http};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

async fn fetch(address: SocketAddr, path: &str) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).await.unwrap();
    response
}

#[tokio::test]
async fn every_page() {
    let store = Memory::new(Limits::default());
    let (address, incoming) = annulus_node::net::tcp_incoming(([127, 0, 0, 1], 0).into()).await.unwrap();
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(http::serve(
        incoming,
        store.clone(),
        Metrics::new(store.clone(), Arc::default()),
        shutdown.clone(),
    ));
    assert!(fetch(address, "/healthz").await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200 OK\r\n"));
    let metrics = fetch(address, "/metrics").await;
    assert!(
        metrics.contains("application/openmetrics-text") && metrics.contains("\nannulus_ring_epoch 7\n"),
        "{metrics}"
    );
    assert!(metrics.trim_end().ends_with("# EOF"), "{metrics}");
    let page = fetch(address, "/ui").await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("text/html") && page.contains("<svg"));
    assert!(!page.contains("https://"), "the page needs nothing from elsewhere");
    let ring = fetch(address, "/ui/ring.json").await;
    let (_, ring) = ring.split_once("\r\n\r\n").unwrap();
    let ring: serde_json::Value = serde_json::from_str(ring).unwrap();
    assert_eq!(ring["epoch"], 7);
    assert_eq!(ring["owners"].as_array().unwrap().len(), 64);
    assert_eq!((&ring["members"][0]["owned"], &ring["members"][0]["held"]), (&22.into(), &64.into()));
    store.without_ring.store(true, SeqCst);
    let unready = fetch(address, "/readyz").await;
    assert!(
        unready.starts_with("HTTP/1.1 503 ") && unready.contains("no ring has been received yet"),
        "{unready}"
    );
    assert!(fetch(address, "/healthz").await.starts_with("HTTP/1.1 200 OK\r\n"), "alive all the same");
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
}

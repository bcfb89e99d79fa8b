//! Clients of etcd: its gRPC API by tonic, one connection to a client, spread over the members.

use super::{Draw, KeySpace, MEASURING, STOPPED, Shared, Tally};
use crate::proto::etcd::kv_client::KvClient;
use crate::proto::etcd::request_op::Request;
use crate::proto::etcd::{PutRequest, RangeRequest, RequestOp, TxnRequest};
use anyhow::Context;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// Writes in one transaction while filling; etcd allows 128.
const FILL_BATCH: usize = 100;

/// Connects all clients and starts them.
pub(super) async fn start(
    shared: &Arc<Shared>,
    endpoints: &[String],
    clients: usize,
) -> anyhow::Result<Vec<JoinHandle<anyhow::Result<()>>>> {
    let mut started = Vec::new();
    for client in 0..clients {
        let connection = connect(&endpoints[client % endpoints.len()]).await?;
        let draw = Draw::new(shared.keys.clone(), shared.workload, client, None);
        started.push(tokio::spawn(work(shared.clone(), draw, connection)));
    }
    Ok(started)
}

async fn connect(endpoint: &str) -> anyhow::Result<KvClient<Channel>> {
    KvClient::connect(endpoint.to_owned()).await.context("connecting to etcd")
}

async fn work(shared: Arc<Shared>, mut draw: Draw, mut connection: KvClient<Channel>) -> anyhow::Result<()> {
    let mut tally = Tally::new()?;
    let mut batch = Vec::new();
    loop {
        draw.batch(&mut batch);
        let (key, writes) = (batch[0], draw.writes());
        let asked = Instant::now();
        let answer = if writes {
            let answer = connection.put(put(key, draw.value())).await;
            answer.map(|_| ()).map_err(|error| error.to_string())
        } else {
            get(&mut connection, key, shared.keys.value_bytes()).await
        };
        match shared.phase.load(Ordering::Relaxed) {
            MEASURING => tally.count(1, asked, answer),
            STOPPED => break,
            _ => {}
        }
    }
    shared.tallies.lock().push(tally);
    Ok(())
}

fn put(key: u32, value: &[u8]) -> PutRequest {
    PutRequest { key: KeySpace::key(key).into(), value: Bytes::copy_from_slice(value) }
}

/// A linearizable read, which is what etcd does unless told otherwise.
async fn get(connection: &mut KvClient<Channel>, key: u32, value_bytes: usize) -> Result<(), String> {
    let request = RangeRequest { key: KeySpace::key(key).into() };
    let response = connection.range(request).await.map_err(|error| error.to_string())?.into_inner();
    match response.kvs.first() {
        Some(found) if found.value.len() == value_bytes => Ok(()),
        _ => Err(String::from("the value is not there")),
    }
}

/// Writes every key once.
pub(super) async fn fill(keys: &Arc<KeySpace>, endpoints: &[String]) -> anyhow::Result<()> {
    let mut client = connect(&endpoints[0]).await?;
    let numbers: Vec<u32> = (0..keys.count() as u32).collect();
    for batch in numbers.chunks(FILL_BATCH) {
        let put =
            |&key: &u32| RequestOp { request: Some(Request::RequestPut(put(key, keys.value(u64::from(key))))) };
        client.txn(TxnRequest { success: batch.iter().map(put).collect() }).await.context("filling etcd")?;
    }
    Ok(())
}

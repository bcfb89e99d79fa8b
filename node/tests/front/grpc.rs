//! gRPC: siblings and contexts, statuses, health and reflection.

use crate::memory::Memory;
use annulus_node::config::Limits;
use annulus_node::coordinator::RequestError;
use annulus_node::server::{Metrics, grpc};
use annulus_proto::v1::key_value_client::KeyValueClient;
use annulus_proto::v1::operation::Operation as AnyOperation;
use annulus_proto::v1::operation_result::Result as AnyResult;
use annulus_proto::v1::{
    BatchRequest, DeleteRequest, GetRequest, GetResponse, Operation, PutRequest, Quorum, ScanRequest,
};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

async fn connect() -> (Memory, Channel, Metrics) {
    let store = Memory::new(Limits { value_bytes_max: 1000, ..Limits::default() });
    let (address, incoming) = annulus_node::net::tcp_incoming(([127, 0, 0, 1], 0).into()).await.unwrap();
    let metrics = Metrics::new(store.clone(), Arc::default());
    tokio::spawn(grpc::serve(incoming, store.clone(), metrics.clone(), CancellationToken::new()));
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    (store, channel, metrics)
}

fn put(value: &'static str, context: &GetResponse) -> PutRequest {
    PutRequest { key: "a".into(), value: value.into(), context: context.context.clone(), ..PutRequest::default() }
}

fn get() -> GetRequest {
    GetRequest { key: "a".into(), quorum: None }
}

fn values(response: &GetResponse) -> Vec<&[u8]> {
    let mut values: Vec<&[u8]> = response.siblings.iter().map(|sibling| &sibling.value[..]).collect();
    values.sort_unstable();
    values
}

#[tokio::test]
async fn concurrent_puts_become_siblings_and_a_put_with_their_context_merges_them() {
    let (_, channel, metrics) = connect().await;
    let mut client = KeyValueClient::new(channel);
    let nothing = client.get(get()).await.unwrap().into_inner();
    assert!(nothing.siblings.is_empty());
    client.put(put("one", &nothing)).await.unwrap();
    client.put(put("two", &nothing)).await.unwrap();
    let both = client.get(get()).await.unwrap().into_inner();
    assert_eq!(values(&both), [b"one", b"two"]);
    let third = client.put(put("three", &both)).await.unwrap().into_inner();
    let merged = client.get(get()).await.unwrap().into_inner();
    assert_eq!(values(&merged), [b"three"]);
    assert_eq!((merged.siblings[0].timestamp, &merged.context), (third.timestamp, &third.context));
    client.put(put("stale", &both)).await.unwrap();
    assert_eq!(values(&client.get(get()).await.unwrap().into_inner()), [&b"stale"[..], b"three"]);
    let overwrite = PutRequest { overwrite: true, ..put("last", &nothing) };
    client.put(overwrite).await.unwrap();
    assert_eq!(values(&client.get(get()).await.unwrap().into_inner()), [b"last"]);
    let delete = || DeleteRequest { key: "a".into(), ..DeleteRequest::default() };
    assert!(client.delete(delete()).await.unwrap().into_inner().existed);
    assert!(!client.delete(delete()).await.unwrap().into_inner().existed);
    let gone = client.get(get()).await.unwrap().into_inner();
    assert!(gone.siblings.is_empty() && !gone.context.is_empty(), "the context of a deleted key is told");
    let text = metrics.encode().unwrap();
    assert!(text.contains("duration_seconds_count{interface=\"grpc\",operation=\"put\"} 5\n"), "{text}");
}

#[tokio::test]
async fn a_value_with_a_time_to_live_expires() {
    let (store, channel, _) = connect().await;
    let mut client = KeyValueClient::new(channel);
    client.put(PutRequest { ttl_ms: 5000, ..put("x", &GetResponse::default()) }).await.unwrap();
    let response = client.get(get()).await.unwrap().into_inner();
    assert!(response.siblings[0].expires_at_ms.is_some());
    store.ahead_ms.store(6000, SeqCst);
    assert!(client.get(get()).await.unwrap().into_inner().siblings.is_empty());
}

#[tokio::test]
async fn statuses_say_what_became_of_the_data() {
    let (store, channel, _) = connect().await;
    let mut client = KeyValueClient::new(channel);
    let nothing = GetResponse::default();
    for (failure, code) in [
        (RequestError::NoRing, Code::Unavailable),
        (RequestError::Unavailable { got: 1, need: 2, missing: "demo-2".into() }, Code::Unavailable),
        (RequestError::Overloaded("full"), Code::ResourceExhausted),
        (RequestError::DiskFull { bytes_free: 0, bytes_reserved: 1 }, Code::ResourceExhausted),
        (RequestError::TooManySiblings { siblings: 100 }, Code::FailedPrecondition),
        (RequestError::Invalid("x".into()), Code::InvalidArgument),
        (RequestError::Storage("x".into()), Code::Internal),
        (RequestError::TimedOut(Duration::from_secs(5)), Code::DeadlineExceeded),
    ] {
        *store.failure.lock().unwrap() = Some(failure.clone());
        let status = client.put(put("x", &nothing)).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, failure.to_string().as_str()));
    }
    *store.failure.lock().unwrap() = None;
    let garbage = PutRequest { context: "garbage".into(), ..put("x", &nothing) };
    assert_eq!(client.put(garbage).await.unwrap_err().code(), Code::InvalidArgument);
    let replicas = Quorum { replicas: 256, strict: true };
    let too_many = GetRequest { quorum: Some(replicas), ..get() };
    assert_eq!(client.get(too_many).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(store.object(b"a").is_empty(), "nothing was written");
}

#[tokio::test]
async fn a_batch_answers_each_operation_for_itself() {
    let (_, channel, _) = connect().await;
    let mut client = KeyValueClient::new(channel);
    let operation = |operation| Operation { operation: Some(operation) };
    let request = BatchRequest {
        operations: vec![
            operation(AnyOperation::Put(PutRequest { key: "b".into(), ..put("x", &GetResponse::default()) })),
            operation(AnyOperation::Put(PutRequest {
                context: "garbage".into(),
                ..put("x", &GetResponse::default())
            })),
            operation(AnyOperation::Delete(DeleteRequest { key: "c".into(), ..DeleteRequest::default() })),
            operation(AnyOperation::Get(get())),
            Operation { operation: None },
        ],
    };
    let results = client.batch(request).await.unwrap().into_inner().results;
    let results: Vec<AnyResult> = results.into_iter().filter_map(|result| result.result).collect();
    assert!(matches!(&results[0], AnyResult::Put(_)));
    assert!(matches!(&results[1], AnyResult::Error(error) if error.code == Code::InvalidArgument as i32));
    assert!(matches!(&results[2], AnyResult::Delete(deleted) if !deleted.existed));
    assert!(matches!(&results[3], AnyResult::Get(got) if got.siblings.is_empty()));
    assert!(matches!(&results[4], AnyResult::Error(_)));
}

#[tokio::test]
async fn a_partition_is_scanned_page_by_page() {
    let (_, channel, _) = connect().await;
    let mut client = KeyValueClient::new(channel);
    for key in 0..300 {
        // One hash tag, so one partition.
        let key = format!("{{tag}}{key}").into();
        client.put(PutRequest { key, value: "x".into(), ..PutRequest::default() }).await.unwrap();
    }
    let deleted = DeleteRequest { key: "{tag}7".into(), ..DeleteRequest::default() };
    client.delete(deleted).await.unwrap();
    let partition = u32::from(dynamo::token::slot(b"{tag}")) / 256;
    let (mut after, mut keys, mut pages) = (bytes::Bytes::new(), std::collections::BTreeSet::new(), 0);
    loop {
        let request = ScanRequest { partition, after, items_max: 100, keys_only: pages == 0 };
        let page = client.scan(request).await.unwrap().into_inner();
        assert!(page.items.iter().all(|item| item.siblings[0].value.is_empty() == (pages == 0)));
        keys.extend(page.items.into_iter().map(|item| item.key));
        (after, pages) = (page.next, pages + 1);
        if after.is_empty() {
            break;
        }
    }
    assert_eq!((keys.len(), pages), (299, 3));
}

#[tokio::test]
async fn health_follows_readiness_and_reflection_lists_the_services() {
    let (store, channel, _) = connect().await;
    let mut health = HealthClient::new(channel.clone());
    let request = |service: &str| HealthCheckRequest { service: service.into() };
    assert_eq!(health.check(request("")).await.unwrap().into_inner().status, 1);
    assert_eq!(health.check(request("annulus.v1.KeyValue")).await.unwrap().into_inner().status, 1);
    assert_eq!(health.check(request("nobody")).await.unwrap_err().code(), Code::NotFound);
    let mut watch = health.watch(request("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    store.without_ring.store(true, SeqCst);
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
    assert_eq!(health.check(request("")).await.unwrap().into_inner().status, 2);

    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let mut answers = reflection.server_reflection_info(futures::stream::iter([list])).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list")
    };
    let mut names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["annulus.v1.KeyValue", "grpc.health.v1.Health"]);
}

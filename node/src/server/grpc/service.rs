//! `annulus.v1.KeyValue`.

use super::convert::{delete_write, get_response, put_write, read_options, scan_item, write_options};
use super::status::status;
use crate::coordinator::KeyValue;
use crate::server::metrics::FrontMetrics;
use annulus_proto::v1::key_value_server;
use annulus_proto::v1::operation::Operation as AnyOperation;
use annulus_proto::v1::operation_result::Result as AnyResult;
use annulus_proto::v1::{
    BatchRequest, BatchResponse, DeleteRequest, DeleteResponse, GetRequest, GetResponse, Operation,
    OperationError, OperationResult, PutRequest, PutResponse, ScanRequest, ScanResponse,
};
use futures::stream::{self, StreamExt};
use std::sync::Arc;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// Operations of one batch on the store at once.
const BATCH_AT_ONCE_MAX: usize = 256;
/// Most operations of one batch.
const BATCH_OPERATIONS_MAX: usize = 10_000;
/// Items of a page unless told otherwise, and most of them.
const PAGE_ITEMS_DEFAULT: u32 = 1000;
const PAGE_ITEMS_MAX: u32 = 10_000;

/// The service over a store.
pub(super) struct Service<K> {
    store: K,
    metrics: Arc<FrontMetrics>,
}

impl<K: KeyValue> Service<K> {
    pub(super) fn new(store: K, metrics: Arc<FrontMetrics>) -> Self {
        Self { store, metrics }
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, Status> {
        let options = read_options(request.quorum)?;
        let object = self.store.get(request.key, options).await.map_err(|error| status(&error))?;
        get_response(&object, self.store.now_ms())
    }

    async fn put(&self, request: PutRequest) -> Result<PutResponse, Status> {
        let options = write_options(request.quorum)?;
        let write = put_write(&request, self.store.now_ms())?;
        let written = self.store.put(request.key, write, options).await.map_err(|error| status(&error))?;
        Ok(PutResponse { timestamp: written.timestamp.0, context: written.context.encode() })
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeleteResponse, Status> {
        let options = write_options(request.quorum)?;
        let write = delete_write(&request)?;
        let written = self.store.put(request.key, write, options).await.map_err(|error| status(&error))?;
        Ok(DeleteResponse { existed: written.existed })
    }

    async fn one_of_batch(&self, operation: Operation) -> OperationResult {
        let result = match operation.operation {
            Some(AnyOperation::Get(get)) => self.get(get).await.map(AnyResult::Get),
            Some(AnyOperation::Put(put)) => self.put(put).await.map(AnyResult::Put),
            Some(AnyOperation::Delete(delete)) => self.delete(delete).await.map(AnyResult::Delete),
            None => Err(Status::invalid_argument("the operation is empty")),
        };
        let failed = |failure: Status| {
            AnyResult::Error(OperationError { code: failure.code() as i32, message: failure.message().to_owned() })
        };
        OperationResult { result: Some(result.unwrap_or_else(failed)) }
    }

    async fn batch(&self, request: BatchRequest) -> Result<BatchResponse, Status> {
        if request.operations.len() > BATCH_OPERATIONS_MAX {
            let message =
                format!("{} operations in a batch; the limit is {BATCH_OPERATIONS_MAX}", request.operations.len());
            return Err(Status::invalid_argument(message));
        }
        let operations = stream::iter(request.operations).map(|operation| self.one_of_batch(operation));
        Ok(BatchResponse { results: operations.buffered(BATCH_AT_ONCE_MAX).collect().await })
    }

    async fn scan(&self, request: ScanRequest) -> Result<ScanResponse, Status> {
        let items_max = match request.items_max {
            0 => PAGE_ITEMS_DEFAULT,
            asked => asked.min(PAGE_ITEMS_MAX),
        };
        let after = (!request.after.is_empty()).then_some(request.after);
        let page = self.store.scan(request.partition, after, items_max as usize).await;
        let page = page.map_err(|error| status(&error))?;
        let now_ms = self.store.now_ms();
        let items = page.items.into_iter();
        let items = items.filter_map(|(key, object)| scan_item(key, &object, now_ms, request.keys_only));
        Ok(ScanResponse { items: items.collect(), next: page.next.unwrap_or_default() })
    }

    /// Counts a request, and wraps its outcome.
    async fn counted<T>(
        &self,
        method: usize,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<Response<T>, Status> {
        let since = Instant::now();
        let outcome = work.await;
        if let Some(counters) = self.metrics.grpc(method) {
            counters.record(since.elapsed(), outcome.is_err());
        }
        outcome.map(Response::new)
    }
}

#[tonic::async_trait]
impl<K: KeyValue> key_value_server::KeyValue for Service<K> {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        self.counted(0, self.get(request.into_inner())).await
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.counted(1, self.put(request.into_inner())).await
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        self.counted(2, self.delete(request.into_inner())).await
    }

    async fn batch(&self, request: Request<BatchRequest>) -> Result<Response<BatchResponse>, Status> {
        self.counted(3, self.batch(request.into_inner())).await
    }

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<ScanResponse>, Status> {
        self.counted(4, self.scan(request.into_inner())).await
    }
}

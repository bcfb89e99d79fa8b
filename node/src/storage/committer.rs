use super::*;
use crate::config::Limits;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    #[error("disk full")]
    DiskFull { bytes_free: u64, bytes_reserved: u64 },
    #[error("overloaded")]
    Overloaded { bytes: usize },
    #[error("broken: {0}")]
    Broken(String),
    #[error("closed")]
    Closed,
}
pub struct Reservation(Option<OwnedSemaphorePermit>);
struct Job {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), StorageError>>,
    _r: Reservation,
}
#[derive(Clone)]
pub struct Committer {
    queue: mpsc::UnboundedSender<Job>,
    room: Arc<Semaphore>,
}
pub struct Submitted(oneshot::Receiver<Result<(), StorageError>>);
impl Future for Submitted {
    type Output = Result<(), StorageError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|r| r.unwrap_or(Err(StorageError::Closed)))
    }
}
impl Committer {
    pub fn start(
        engine: Arc<dyn Engine>,
        limits: &Limits,
        on_committed: impl Fn(&[Change], &Result<(), StorageError>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (queue, mut jobs) = mpsc::unbounded_channel::<Job>();
        std::thread::Builder::new().name("committer".into()).spawn(move || {
            while let Some(first) = jobs.blocking_recv() {
                let mut taken = vec![first];
                while taken.len() < 1024 {
                    let Ok(j) = jobs.try_recv() else { break };
                    taken.push(j);
                }
                let all: Vec<Change> = taken.iter_mut().flat_map(|j| std::mem::take(&mut j.changes)).collect();
                let r = if all.is_empty() {
                    Ok(())
                } else {
                    engine.commit(&all).map_err(|e| StorageError::Broken(e.to_string()))
                };
                on_committed(&all, &r);
                for j in taken {
                    let _ = j.done.send(r.clone());
                }
            }
        })?;
        Ok(Self { queue, room: Arc::new(Semaphore::new(limits.commit_queue_bytes_max)) })
    }
    pub async fn reserve(&self, bytes: usize) -> Result<Reservation, StorageError> {
        let n = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.room
            .clone()
            .acquire_many_owned(n)
            .await
            .map(|p| Reservation(Some(p)))
            .map_err(|_| StorageError::Closed)
    }
    pub async fn reserve_control(&self) -> Reservation {
        Reservation(None)
    }
    pub fn submit(&self, changes: Vec<Change>, r: Reservation) -> Submitted {
        let (done, rx) = oneshot::channel();
        let _ = self.queue.send(Job { changes, done, _r: r });
        Submitted(rx)
    }
    pub fn barrier(&self) -> Submitted {
        self.submit(Vec::new(), Reservation(None))
    }
    pub async fn close(&self) {
        let _ = self.barrier().await;
    }
}
impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.take();
    }
}

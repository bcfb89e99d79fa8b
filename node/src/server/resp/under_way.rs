//! Commands of one connection that are under way.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

pin_project! {
    /// Most clients wait for an answer before they ask again. So a command that is alone has its place here, is polled
    /// with the connection's own waker, and costs no memory to be fetched; those of a pipeline that join it have a task
    /// each.
    pub(super) struct UnderWay<F> {
        #[pin]
        alone: Option<F>,
        others: FuturesUnordered<F>,
    }
}

impl<F: Future> UnderWay<F> {
    /// None.
    pub(super) fn new() -> Self {
        Self { alone: None, others: FuturesUnordered::new() }
    }

    /// One more begins; it is first polled by [`UnderWay::poll_next`].
    pub(super) fn push(self: Pin<&mut Self>, command: F) {
        let mut this = self.project();
        if this.alone.is_none() && this.others.is_empty() {
            this.alone.set(Some(command));
        } else {
            this.others.push(command);
        }
    }

    /// One that has ended; `None`: there is none under way but, perhaps, one that will wake the task.
    pub(super) fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let mut this = self.project();
        let alone = this.alone.as_mut().as_pin_mut().map(|alone| alone.poll(cx));
        if let Some(Poll::Ready(output)) = alone {
            this.alone.set(None);
            return Poll::Ready(Some(output));
        }
        if this.others.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(ready!(this.others.poll_next_unpin(cx)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn whichever_ends_first_is_heard_of_and_what_comes_alone_again_too() {
        let (first, second, third) = (oneshot::channel(), oneshot::channel(), oneshot::channel());
        let mut under_way = pin!(UnderWay::new());
        under_way.as_mut().push(first.1);
        under_way.as_mut().push(second.1);
        let mut ended = Vec::new();
        second.0.send(2).unwrap();
        poll_fn(|cx| match under_way.as_mut().poll_next(cx) {
            Poll::Ready(Some(number)) => {
                ended.push(number.unwrap());
                Poll::Ready(())
            }
            _ => Poll::Pending,
        })
        .await;
        first.0.send(1).unwrap();
        under_way.as_mut().push(third.1);
        tokio::spawn(async move { third.0.send(3).unwrap() });
        poll_fn(|cx| {
            while let Poll::Ready(Some(number)) = under_way.as_mut().poll_next(cx) {
                ended.push(number.unwrap());
            }
            if ended.len() == 3 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(ended, [2, 1, 3]);
    }
}

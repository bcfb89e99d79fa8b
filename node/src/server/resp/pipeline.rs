//! One connection: requests in, replies out in the same order, and as much as possible side by side in between.
//!
//! Everything happens in one `poll`: parse what was read, start what may start, collect what is done, write, read on. A
//! client that does not take its replies, or sends more than can be carried out, is not read from until it does.

mod replies;
mod requests;
mod room;

use super::clients::Client;
use super::command_table::COMMANDS;
use super::connection::Session;
use super::dispatch;
use super::in_flight::KeysInFlight;
use super::output::Output;
use super::parse::RequestParser;
use super::patience::{Patience, Stall};
use super::reply::Reply;
use super::server::Server;
use super::under_way::UnderWay;
use crate::coordinator::KeyValue;
use bytes::{Bytes, BytesMut};
use replies::Due;
use requests::{Begun, Parsed};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// Most commands of one connection under way at once.
const COMMANDS_MAX: usize = 1024;
/// What is read at once: little while the client sends little, more while it sends much. In bytes.
const READ_BYTES_MIN: usize = 4 << 10;
const READ_BYTES_MAX: usize = 256 << 10;

const CLIENTS_FULL: &str = "other clients have yet to take their replies, and there is no memory for more";

/// Serves one connection until the client or the server ends it.
///
/// # Errors
/// The socket's. Commands under way are dropped: their writes may have been stored.
pub(super) async fn run<K, IO>(io: IO, server: &Server<K>, client: &Arc<Client>) -> io::Result<()>
where
    K: KeyValue,
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let limits = server.store.limits();
    let mut session = Session::default();
    session.become_user(server.acl.anonymous(), client);
    let mut connection = Connection {
        io,
        server,
        client,
        input: BytesMut::new(),
        parser: RequestParser::new(limits),
        session,
        read_bytes: READ_BYTES_MIN,
        waiting: None,
        keys: KeysInFlight::default(),
        replies: VecDeque::new(),
        first: 0,
        commands: 0,
        reads: 0,
        request_bytes: 0,
        held_bytes: 0,
        typical_bytes: 0,
        output: Output::default(),
        put_off: false,
        registered: None,
        counted_bytes: 0,
        has_replied: false,
        reading: Reading::Open,
        patience: Patience::new(limits.stalled_client_timeout),
        received: 0,
        sent: 0,
    };
    let mut running = pin!(UnderWay::new());
    let start = |Begun { number, index, consistency, arguments, since }: Begun| async move {
        let reply = dispatch::execute(server, consistency, &COMMANDS[index], &arguments).await;
        account(server, client, index, &arguments, since, reply.is_error());
        (number, reply)
    };
    std::future::poll_fn(|cx| connection.poll(cx, running.as_mut(), &start)).await?;
    // The client may be gone already, which is no error of ours.
    let _ = connection.io.shutdown().await;
    Ok(())
}

/// Counts a command that has ended, and notes it if it was slow.
fn account<K: KeyValue>(
    server: &Server<K>,
    client: &Client,
    index: usize,
    arguments: &[Bytes],
    since: Instant,
    failed: bool,
) {
    let took = since.elapsed();
    if let Some(counters) = server.metrics.resp(index) {
        counters.record(took, failed);
    }
    server.slow_log.note(&COMMANDS[index], arguments, took, || server.store.now_ms(), client);
}

struct Connection<'a, K, IO> {
    io: IO,
    server: &'a Server<K>,
    client: &'a Arc<Client>,
    input: BytesMut,
    parser: RequestParser,
    session: Session,
    read_bytes: usize,
    /// A command that waits for all before it to end, or for room for its reply, and so does all that follows it.
    waiting: Option<Parsed>,
    keys: KeysInFlight,
    /// Replies that are due, in order; the first is that of command number `first`.
    replies: VecDeque<Due>,
    first: u64,
    /// Commands under way, and those that wait for them to give their keys free.
    commands: usize,
    /// Those of them that do not write.
    reads: usize,
    /// Bytes of their requests.
    request_bytes: usize,
    /// Bytes of replies that are ready and not yet their turn.
    held_bytes: usize,
    /// Size of a large recent reply: what a command under way is expected to bring.
    typical_bytes: usize,
    output: Output,
    /// What is to be written waits for those who are ready.
    put_off: bool,
    /// Who is woken when the client is told to end.
    registered: Option<Waker>,
    /// What the server has been told that this connection holds.
    counted_bytes: usize,
    /// Whether anything was read, so that there is something to tell the size of replies by.
    has_replied: bool,
    reading: Reading,
    patience: Patience,
    /// Bytes read and written since the connection began.
    received: u64,
    sent: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Open,
    /// Nothing more is read; what was read is carried out.
    Ended,
    /// What was read and not yet begun is dropped.
    Closed,
}

impl<K, IO> Drop for Connection<'_, K, IO> {
    fn drop(&mut self) {
        self.server.memory.change(self.counted_bytes, 0);
    }
}

impl<K: KeyValue, IO: AsyncRead + AsyncWrite + Send + Unpin> Connection<'_, K, IO> {
    fn poll<F, S>(
        &mut self,
        cx: &mut Context<'_>,
        running: Pin<&mut UnderWay<F>>,
        start: &S,
    ) -> Poll<io::Result<()>>
    where
        F: Future<Output = (u64, Reply)>,
        S: Fn(Begun) -> F,
    {
        if let Poll::Ready(ended) = self.progress(cx, running, start) {
            return Poll::Ready(ended);
        }
        let stall = self.stall();
        self.patience.poll(cx, stall).map(|stall| Err(io::Error::new(io::ErrorKind::TimedOut, stall)))
    }

    /// What the client is waited for when nothing can go on, and the bytes it has moved there.
    fn stall(&self) -> Option<(Stall, u64)> {
        if self.session.user.is_none() {
            return Some((Stall::Nameless, 0));
        }
        if self.output.bytes() > 0 {
            return Some((Stall::Replies, self.sent));
        }
        let reads = self.reading == Reading::Open && self.waiting.is_none() && self.may_start();
        let within = reads && (!self.input.is_empty() || self.parser.is_within_request());
        within.then(|| (Stall::Request(self.first + self.replies.len() as u64), self.received))
    }

    fn progress<F, S>(
        &mut self,
        cx: &mut Context<'_>,
        mut running: Pin<&mut UnderWay<F>>,
        start: &S,
    ) -> Poll<io::Result<()>>
    where
        F: Future<Output = (u64, Reply)>,
        S: Fn(Begun) -> F,
    {
        loop {
            if self.reading == Reading::Open && self.is_stopped(cx) {
                self.reading = Reading::Ended;
            }
            let mut progressed = self.take_requests(running.as_mut(), start);
            let was_full = !self.may_start();
            while let Poll::Ready(Some((number, reply))) = running.as_mut().poll_next(cx) {
                self.complete(number, reply, running.as_mut(), start);
                progressed = true;
            }
            self.encode_ready();
            if self.puts_off(cx) {
                return Poll::Pending;
            }
            let written = self.output.bytes();
            let drained = self.output.poll_write(&mut self.io, cx)?.is_ready();
            self.count_sent(written - self.output.bytes());
            self.count();
            if (progressed || was_full) && self.may_start() && self.reading != Reading::Closed {
                continue;
            }
            if self.waiting.is_some() && self.holds_nothing() {
                // It waited for room, and nothing else would wake it.
                continue;
            }
            if self.reading != Reading::Open {
                let done = drained && self.replies.is_empty() && self.waiting.is_none();
                return if done { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            if self.waiting.is_some() || !self.may_start() {
                // Woken by a command that ends or by the socket taking replies.
                return Poll::Pending;
            }
            match self.poll_read(cx)? {
                Poll::Ready(0) => self.reading = Reading::Ended,
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Whether the client has been told to end; if not, the task is woken when it is.
    fn is_stopped(&mut self, cx: &Context<'_>) -> bool {
        if !self.registered.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.registered = Some(cx.waker().clone());
            self.client.when_stopped(cx.waker());
        }
        self.client.is_stopped()
    }

    /// Whether replies are written only when every connection that is ready has been served. A client that is woken by
    /// its reply may take this processor at once; then the next one's request would wait while this one asks again.
    fn puts_off(&mut self, cx: &Context<'_>) -> bool {
        self.put_off = !self.put_off && self.output.bytes() > 0;
        if self.put_off {
            cx.waker().wake_by_ref();
        }
        self.put_off
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let wanted =
            self.parser.bytes_wanted(&self.input).clamp(self.read_bytes, READ_BYTES_MAX.max(self.read_bytes));
        if self.input.capacity() - self.input.len() < wanted {
            self.input.reserve(wanted);
        }
        let room = self.input.capacity() - self.input.len();
        let read = pin!(self.io.read_buf(&mut self.input)).poll(cx);
        if let Poll::Ready(Ok(bytes)) = read {
            // A read that fills its room says that more is waiting.
            self.read_bytes =
                if bytes == room { self.read_bytes * 2 } else { self.read_bytes - self.read_bytes / 4 };
            self.read_bytes = self.read_bytes.clamp(READ_BYTES_MIN, READ_BYTES_MAX);
            self.client.active_ms.store(self.server.store.now_ms(), Relaxed);
            self.received += bytes as u64;
            self.server.metrics.bytes_in.fetch_add(bytes as u64, Relaxed);
        } else if self.input.is_empty() && room > 4 * READ_BYTES_MIN && self.commands == 0 {
            // Thousands of idle connections shall not keep the room that a busy moment needed.
            self.input = BytesMut::new();
            self.read_bytes = READ_BYTES_MIN;
        }
        read
    }

    fn count_sent(&mut self, bytes: usize) {
        if bytes > 0 {
            self.sent += bytes as u64;
            self.server.metrics.bytes_out.fetch_add(bytes as u64, Relaxed);
        }
    }
}

//! One connection: requests in, replies out in the same order, and as much as possible side by side in between.
//!
//! Everything happens in one `poll`: parse what was read, start what may start, collect what is done, write, read on. A
//! client that does not take its replies, or sends more than can be carried out, is not read from until it does.

use super::clients::Client;
use super::command_table::{Access, COMMANDS, Id, Spec};
use super::connection::{self, Session};
use super::dispatch;
use super::error::CommandError;
use super::in_flight::{KeysInFlight, Touched};
use super::output::Output;
use super::parse::{ARGUMENT_BYTES, Request, RequestParser};
use super::patience::{Patience, Stall};
use super::reply::{Protocol, Reply};
use super::server::Server;
use super::store::Consistency;
use super::under_way::UnderWay;
use crate::coordinator::{KeyValue, RequestError};
use bytes::{Bytes, BytesMut};
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

/// While a command is under way its reply may be here as often as this: its own replica's and another's.
const COPIES: usize = 2;
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

/// A command that begins.
struct Begun {
    number: u64,
    /// Its place in the table.
    index: usize,
    consistency: Consistency,
    arguments: Vec<Bytes>,
    since: Instant,
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
    /// A command that waits for others to give its keys free, or for room for its reply.
    waiting: Option<Parsed>,
    keys: KeysInFlight,
    /// Replies that are due, in order; the first is that of command number `first`.
    replies: VecDeque<Due>,
    first: u64,
    /// Commands under way.
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

/// A command that has been parsed and checked.
struct Parsed {
    index: usize,
    spec: &'static Spec,
    arguments: Vec<Bytes>,
    bytes: usize,
    touched: Touched,
    /// What the connection had chosen when the command came.
    consistency: Consistency,
}

/// A reply that is due.
struct Due {
    protocol: Protocol,
    silent: bool,
    state: State,
}

enum State {
    Ready(Reply),
    Running { access: Access, touched: Touched, bytes: usize },
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
                self.complete(number, reply);
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

    /// Parses and starts until there is nothing to parse or something has to wait. Whether anything was begun.
    fn take_requests<F, S>(&mut self, mut running: Pin<&mut UnderWay<F>>, start: &S) -> bool
    where
        F: Future<Output = (u64, Reply)>,
        S: Fn(Begun) -> F,
    {
        let mut progressed = false;
        let mut now = None;
        while self.reading != Reading::Closed && self.may_start() {
            let Some(parsed) = self.waiting.take().or_else(|| self.parse(&mut progressed)) else { break };
            if !self.has_room_for_reply(&parsed) {
                if self.holds_nothing() {
                    // Nothing of this connection could end and make room: better told than kept waiting.
                    self.refuse(CommandError::from(RequestError::Overloaded(CLIENTS_FULL)).into());
                    progressed = true;
                    continue;
                }
                self.waiting = Some(parsed);
                break;
            }
            if !self.keys.begin(&parsed.touched, parsed.spec.access) {
                self.waiting = Some(parsed);
                break;
            }
            self.count();
            let number = self.first + self.replies.len() as u64;
            let Parsed { index, spec, arguments, bytes, touched, consistency } = parsed;
            let since = *now.get_or_insert_with(Instant::now);
            progressed = true;
            if let Some(reply) = dispatch::execute_now(self.server, consistency, spec, &arguments) {
                self.keys.end(&touched, spec.access);
                account(self.server, self.client, index, &arguments, since, reply.is_error());
                self.hold(reply.bytes(), spec.access);
                self.due(State::Ready(reply));
                continue;
            }
            self.commands += 1;
            self.reads += usize::from(spec.access != Access::Write);
            self.request_bytes += bytes;
            self.due(State::Running { access: spec.access, touched, bytes });
            running.as_mut().push(start(Begun { number, index, consistency, arguments, since }));
        }
        progressed
    }

    /// The next command that needs the store; those before it that need none are answered on the way.
    fn parse(&mut self, progressed: &mut bool) -> Option<Parsed> {
        while self.reading != Reading::Closed && self.may_start() {
            self.parser.authenticated = self.session.user.is_some();
            self.parser.room_bytes = self.server.memory.room_for_request(self.counted_bytes);
            let (arguments, bytes) = match self.parser.next(&mut self.input) {
                Ok(None) => return None,
                Ok(Some(Request::Command { arguments, bytes })) => (arguments, bytes),
                Ok(Some(Request::Oversize(oversize))) => {
                    self.refuse(Reply::Error(oversize.to_string()));
                    continue;
                }
                Err(error) => {
                    self.refuse(Reply::Error(error.to_string()));
                    self.reading = Reading::Closed;
                    return None;
                }
            };
            *progressed = true;
            let Some((index, spec)) = Spec::find(&arguments[0]) else {
                self.refuse(CommandError::not_served(&arguments).into());
                continue;
            };
            if !spec.accepts(arguments.len()) || (spec.id == Id::Mset && arguments.len().is_multiple_of(2)) {
                self.reject(index, CommandError::Arity(spec.name.to_owned()));
                continue;
            }
            if let Err(error) = self.permitted(index, spec, &arguments) {
                self.reject(index, error);
                continue;
            }
            self.client.last_command.store(index, Relaxed);
            if !connection::answers(spec, &arguments) {
                let touched = self.keys.touched(spec, &arguments);
                let consistency = self.session.consistency;
                let bytes = bytes + arguments.len() * ARGUMENT_BYTES;
                return Some(Parsed { index, spec, arguments, bytes, touched, consistency });
            }
            self.answer_at_once(index, spec, &arguments);
        }
        None
    }

    fn permitted(&self, index: usize, spec: &Spec, arguments: &[Bytes]) -> Result<(), CommandError> {
        if spec.needs_no_user() {
            return Ok(());
        }
        let user = self.session.user.as_ref().ok_or(CommandError::NotAuthenticated)?;
        user.permits(index, spec, arguments)
    }

    fn answer_at_once(&mut self, index: usize, spec: &'static Spec, arguments: &[Bytes]) {
        let since = Instant::now();
        let reply = connection::answer(self.server, self.client, &mut self.session, spec, arguments);
        let reply = reply.unwrap_or_else(Reply::from);
        account(self.server, self.client, index, arguments, since, reply.is_error());
        if self.session.quit {
            self.reading = Reading::Closed;
        }
        self.held_bytes += reply.bytes();
        self.due(State::Ready(reply));
    }

    /// Refuses a command that is known.
    fn reject(&mut self, index: usize, error: CommandError) {
        if let Some(counters) = self.server.metrics.resp(index) {
            counters.reject();
        }
        self.refuse(error.into());
    }

    fn refuse(&mut self, reply: Reply) {
        self.server.metrics.refused.fetch_add(1, Relaxed);
        self.held_bytes += reply.bytes();
        self.due(State::Ready(reply));
    }

    fn due(&mut self, state: State) {
        if let State::Ready(reply) = &state {
            self.server.note_error(reply);
        }
        let silent = self.session.take_silence();
        self.replies.push_back(Due { protocol: self.session.protocol, silent, state });
    }

    fn complete(&mut self, number: u64, reply: Reply) {
        let place = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        let Some(due) = self.replies.get_mut(place) else { return };
        let reply_bytes = reply.bytes();
        self.server.note_error(&reply);
        let State::Running { access, touched, bytes } = std::mem::replace(&mut due.state, State::Ready(reply))
        else {
            return;
        };
        self.keys.end(&touched, access);
        self.commands -= 1;
        self.reads -= usize::from(access != Access::Write);
        self.request_bytes -= bytes;
        self.hold(reply_bytes, access);
    }

    /// Holds the reply of a command that reads or writes, and learns from what is read what others may bring.
    fn hold(&mut self, reply_bytes: usize, access: Access) {
        self.held_bytes += reply_bytes;
        if access == Access::Write {
            return;
        }
        self.typical_bytes = reply_bytes.max(self.typical_bytes - self.typical_bytes / 64);
        self.has_replied = true;
        self.server.memory.replied(reply_bytes);
    }

    /// Moves the replies whose turn has come to the output.
    fn encode_ready(&mut self) {
        while let Some(Due { state: State::Ready(_), .. }) = self.replies.front() {
            let Some(Due { protocol, silent, state: State::Ready(reply) }) = self.replies.pop_front() else {
                return;
            };
            self.first += 1;
            self.held_bytes -= reply.bytes();
            if !silent {
                reply.encode(protocol, &mut self.output);
            }
        }
    }

    /// Whether one more command may begin, by what is under way and by what the client has not taken.
    fn may_start(&self) -> bool {
        let limits = self.server.store.limits();
        let untaken = self.untaken();
        self.replies.len() < COMMANDS_MAX
            && self.request_bytes <= limits.connection_request_bytes_max
            && untaken <= limits.connection_reply_bytes_max
            && self.server.memory.has_room(untaken + self.request_bytes)
    }

    /// Bytes of replies that the client has not taken, and of those to be expected.
    fn untaken(&self) -> usize {
        self.output.bytes() + self.held_bytes + self.reads * self.expected_bytes() * COPIES
    }

    /// What a command is expected to bring.
    fn expected_bytes(&self) -> usize {
        match self.has_replied {
            true => self.typical_bytes,
            false => self.server.memory.expected_bytes(),
        }
    }

    /// Whether what a command will probably bring may be held besides what is held already.
    fn has_room_for_reply(&self, parsed: &Parsed) -> bool {
        if parsed.spec.access == Access::Write {
            return true;
        }
        let expected = self.expected_bytes() * COPIES;
        match self.holds_nothing() {
            true => self.server.memory.has_room_for_one(expected),
            false => self.server.memory.has_room(self.untaken() + self.request_bytes + expected),
        }
    }

    fn holds_nothing(&self) -> bool {
        self.commands == 0 && self.replies.is_empty() && self.output.bytes() == 0
    }

    /// Tells the server what this connection holds.
    fn count(&mut self) {
        let input = self.input.capacity().max(self.parser.held_bytes());
        let holds = self.untaken() + self.request_bytes + input;
        self.server.memory.change(self.counted_bytes, holds);
        self.counted_bytes = holds;
        let told = &self.client.holds;
        told.input_bytes.store(self.input.len(), Relaxed);
        told.input_room_bytes.store(self.input.capacity(), Relaxed);
        told.request_bytes.store(self.request_bytes, Relaxed);
        told.output_bytes.store(self.output.bytes() + self.held_bytes, Relaxed);
        told.received_bytes.store(self.received, Relaxed);
        told.sent_bytes.store(self.sent, Relaxed);
        told.commands.store(self.first + self.replies.len() as u64, Relaxed);
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

//! One connection: requests in, replies out in the same order, and as much as possible side by side in between.
//!
//! Everything happens in one `poll`: parse what was read, start what may start, collect what is done, write, read on. A
//! client that does not take its replies, or sends more than can be carried out, is not read from until it does.

mod room;

use super::clients::Client;
use super::command_table::{Access, COMMANDS, Id, Spec};
use super::connection::{self, Session};
use super::dispatch;
use super::error::CommandError;
use super::in_flight::{KeysInFlight, Touched, Turn};
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

impl Parsed {
    /// Its state while it is under way, and what it is carried out with.
    fn begins(self, number: u64, since: Instant) -> (State, Begun) {
        let Self { index, spec, arguments, bytes, touched, consistency } = self;
        let running = Running { access: spec.access, touched, bytes };
        (State::Running(running), Begun { number, index, consistency, arguments, since })
    }
}

/// A reply that is due.
struct Due {
    protocol: Protocol,
    silent: bool,
    state: State,
}

enum State {
    Ready(Reply),
    Running(Running),
    /// Waits for commands before it that touch its keys.
    Waiting(Box<Parsed>),
}

/// What there is to know of a command under way when it ends.
struct Running {
    access: Access,
    touched: Touched,
    bytes: usize,
}

/// What a browser says that a page made send commands (cross-protocol scripting); as Redis, nothing after it is carried
/// out.
fn is_http(command: &[u8]) -> bool {
    command.eq_ignore_ascii_case(b"post") || command.eq_ignore_ascii_case(b"host:")
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
            if !self.keys.has_place(&parsed.touched) {
                self.waiting = Some(parsed);
                break;
            }
            self.count();
            progressed = true;
            let since = *now.get_or_insert_with(Instant::now);
            self.begin(parsed, since, running.as_mut(), start);
        }
        progressed
    }

    /// Gives a command its place among the replies, and carries it out unless it has to wait for its keys.
    fn begin<F, S>(&mut self, parsed: Parsed, since: Instant, running: Pin<&mut UnderWay<F>>, start: &S)
    where
        F: Future<Output = (u64, Reply)>,
        S: Fn(Begun) -> F,
    {
        let number = self.first + self.replies.len() as u64;
        let access = parsed.spec.access;
        let turn = self.keys.begin(number, &parsed.touched, access);
        if turn == Turn::Now
            && let Some(reply) =
                dispatch::execute_now(self.server, parsed.consistency, parsed.spec, &parsed.arguments)
        {
            // Nobody can have queued behind it.
            self.keys.end(&parsed.touched, access);
            account(self.server, self.client, parsed.index, &parsed.arguments, since, reply.is_error());
            self.hold(reply.bytes(), access);
            self.due(State::Ready(reply));
            return;
        }
        self.commands += 1;
        self.reads += usize::from(access != Access::Write);
        self.request_bytes += parsed.bytes;
        if turn == Turn::Later {
            self.due(State::Waiting(Box::new(parsed)));
            return;
        }
        let (state, begun) = parsed.begins(number, since);
        self.due(state);
        running.push(start(begun));
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
                if is_http(&arguments[0]) {
                    tracing::warn!(address = %self.client.address(), "HTTP was sent to the port of Redis clients");
                    self.reading = Reading::Closed;
                    return None;
                }
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

    /// Puts a reply in its place, and begins what waited for its command alone.
    fn complete<F, S>(&mut self, number: u64, reply: Reply, mut running: Pin<&mut UnderWay<F>>, start: &S)
    where
        F: Future<Output = (u64, Reply)>,
        S: Fn(Begun) -> F,
    {
        self.server.note_error(&reply);
        let reply_bytes = reply.bytes();
        let Some(state) = self.state_of(number) else { return };
        let State::Running(ended) = std::mem::replace(state, State::Ready(reply)) else { return };
        let released = self.keys.end(&ended.touched, ended.access);
        self.commands -= 1;
        self.reads -= usize::from(ended.access != Access::Write);
        self.request_bytes -= ended.bytes;
        self.hold(reply_bytes, ended.access);
        for number in released {
            let Some(state) = self.state_of(number) else { continue };
            // What it is for a moment is never seen.
            let State::Waiting(parsed) = std::mem::replace(state, State::Ready(Reply::Null)) else { continue };
            let (begins, begun) = parsed.begins(number, Instant::now());
            *state = begins;
            running.as_mut().push(start(begun));
        }
    }

    fn state_of(&mut self, number: u64) -> Option<&mut State> {
        let place = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        self.replies.get_mut(place).map(|due| &mut due.state)
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

//! Requests: parsed, checked and begun.

use super::replies::{Running, State};
use super::{CLIENTS_FULL, Connection, Reading};
use crate::coordinator::{KeyValue, RequestError};
use crate::server::resp::command_table::{Access, Id, Spec};
use crate::server::resp::connection;
use crate::server::resp::dispatch;
use crate::server::resp::error::CommandError;
use crate::server::resp::in_flight::{Touched, Turn};
use crate::server::resp::parse::{ARGUMENT_BYTES, Request};
use crate::server::resp::reply::Reply;
use crate::server::resp::store::Consistency;
use crate::server::resp::under_way::UnderWay;
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// A command that has been parsed and checked.
pub(super) struct Parsed {
    pub(super) index: usize,
    pub(super) spec: &'static Spec,
    pub(super) arguments: Vec<Bytes>,
    pub(super) bytes: usize,
    pub(super) touched: Touched,
    /// What the connection had chosen when the command came.
    pub(super) consistency: Consistency,
}

/// A command that begins.
pub(super) struct Begun {
    pub(super) number: u64,
    /// Its place in the table.
    pub(super) index: usize,
    pub(super) consistency: Consistency,
    pub(super) arguments: Vec<Bytes>,
    pub(super) since: Instant,
}

impl Parsed {
    /// Its state while it is under way, and what it is carried out with.
    pub(super) fn begins(self, number: u64, since: Instant) -> (State, Begun) {
        let Self { index, spec, arguments, bytes, touched, consistency } = self;
        let running = Running { access: spec.access, touched, bytes };
        (State::Running(running), Begun { number, index, consistency, arguments, since })
    }
}

/// What a browser says that a page made send commands (cross-protocol scripting); as Redis, nothing after it is carried
/// out.
fn is_http(command: &[u8]) -> bool {
    command.eq_ignore_ascii_case(b"post") || command.eq_ignore_ascii_case(b"host:")
}

impl<K: KeyValue, IO: AsyncRead + AsyncWrite + Send + Unpin> Connection<'_, K, IO> {
    /// Parses and starts until there is nothing to parse or something has to wait. Whether anything was begun.
    pub(super) fn take_requests<F, S>(&mut self, mut running: Pin<&mut UnderWay<F>>, start: &S) -> bool
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
            super::account(self.server, self.client, parsed.index, &parsed.arguments, since, reply.is_error());
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
        super::account(self.server, self.client, index, arguments, since, reply.is_error());
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
}

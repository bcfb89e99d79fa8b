//! Replies, in the order of their requests.

use super::Connection;
use super::requests::{Begun, Parsed};
use crate::coordinator::KeyValue;
use crate::server::resp::command_table::Access;
use crate::server::resp::in_flight::Touched;
use crate::server::resp::reply::{Protocol, Reply};
use crate::server::resp::under_way::UnderWay;
use std::future::Future;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// A reply that is due.
pub(super) struct Due {
    pub(super) protocol: Protocol,
    pub(super) silent: bool,
    pub(super) state: State,
}

pub(super) enum State {
    Ready(Reply),
    Running(Running),
    /// Waits for commands before it that touch its keys.
    Waiting(Box<Parsed>),
}

/// What there is to know of a command under way when it ends.
pub(super) struct Running {
    pub(super) access: Access,
    pub(super) touched: Touched,
    pub(super) bytes: usize,
}

impl<K: KeyValue, IO: AsyncRead + AsyncWrite + Send + Unpin> Connection<'_, K, IO> {
    pub(super) fn due(&mut self, state: State) {
        if let State::Ready(reply) = &state {
            self.server.note_error(reply);
        }
        let silent = self.session.take_silence();
        self.replies.push_back(Due { protocol: self.session.protocol, silent, state });
    }

    /// Puts a reply in its place, and begins what waited for its command alone.
    pub(super) fn complete<F, S>(
        &mut self,
        number: u64,
        reply: Reply,
        mut running: Pin<&mut UnderWay<F>>,
        start: &S,
    ) where
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
    pub(super) fn hold(&mut self, reply_bytes: usize, access: Access) {
        self.held_bytes += reply_bytes;
        if access == Access::Write {
            return;
        }
        self.typical_bytes = reply_bytes.max(self.typical_bytes - self.typical_bytes / 64);
        self.has_replied = true;
        self.server.memory.replied(reply_bytes);
    }

    /// Moves the replies whose turn has come to the output.
    pub(super) fn encode_ready(&mut self) {
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
}

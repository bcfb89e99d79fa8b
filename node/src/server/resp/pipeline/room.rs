//! What a connection holds, and whether it may begin more.

use super::requests::Parsed;
use super::{COMMANDS_MAX, Connection};
use crate::coordinator::KeyValue;
use crate::server::resp::command_table::Access;
use std::sync::atomic::Ordering::Relaxed;

/// While a command is under way its reply may be here as often as this: its own replica's and another's.
const COPIES: usize = 2;

impl<K: KeyValue, IO> Connection<'_, K, IO> {
    /// Whether one more command may begin, by what is under way and by what the client has not taken.
    pub(super) fn may_start(&self) -> bool {
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
    pub(super) fn has_room_for_reply(&self, parsed: &Parsed) -> bool {
        if parsed.spec.access == Access::Write {
            return true;
        }
        let expected = self.expected_bytes() * COPIES;
        match self.holds_nothing() {
            true => self.server.memory.has_room_for_one(expected),
            false => self.server.memory.has_room(self.untaken() + self.request_bytes + expected),
        }
    }

    pub(super) fn holds_nothing(&self) -> bool {
        self.commands == 0 && self.replies.is_empty() && self.output.bytes() == 0
    }

    /// Tells the server what this connection holds.
    pub(super) fn count(&mut self) {
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
}

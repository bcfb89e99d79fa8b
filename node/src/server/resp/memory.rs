//! Memory for clients: one bound for all connections, shared by those that need it.
//!
//! Each connection may hold a part of what is *free*. So the bound is never reached however many clients pipeline
//! without reading their replies: of N of them each gets about a (N+64)th part, and whoever comes later still gets its
//! share. (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998.) The part is
//! small because those who hoard give nothing back: what the first of them took is not there for the last, each of
//! whom is owed one reply, however large.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A connection may hold this part of what is free.
const PART: usize = 64;
/// What every connection may hold whatever the others do, in bytes.
const LEAST_BYTES: usize = 16 << 10;
/// What a reply is expected to take before there was any, in bytes.
const UNKNOWN_BYTES: usize = 1 << 20;

/// What all connections hold together.
#[derive(Debug)]
pub(super) struct Memory {
    held_bytes: AtomicUsize,
    bytes_max: usize,
    /// What a command under way is expected to bring when its own connection cannot tell yet: a large recent reply.
    typical_bytes: AtomicUsize,
}

impl Memory {
    /// Nothing held yet of so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { held_bytes: AtomicUsize::new(0), bytes_max, typical_bytes: AtomicUsize::new(0) }
    }

    /// A connection that held `before` bytes holds `after` now.
    pub(super) fn change(&self, before: usize, after: usize) {
        if after > before {
            self.held_bytes.fetch_add(after - before, Relaxed);
        } else if after < before {
            self.held_bytes.fetch_sub(before - after, Relaxed);
        }
    }

    /// What one connection may hold at present, in bytes.
    fn room_bytes(&self) -> usize {
        let free = self.bytes_max.saturating_sub(self.held_bytes.load(Relaxed));
        LEAST_BYTES.max(free / PART)
    }

    /// Whether a connection that holds so much may take on more.
    pub(super) fn has_room(&self, held_bytes: usize) -> bool {
        held_bytes <= self.room_bytes()
    }

    /// Whether a connection that holds nothing may take on this much. However large it is, it may where little is held.
    pub(super) fn has_room_for_one(&self, bytes: usize) -> bool {
        let held = self.held_bytes.load(Relaxed);
        bytes <= LEAST_BYTES || held + bytes <= self.bytes_max || held <= self.bytes_max / 2
    }

    /// What the request of a connection may take that holds so much already. However large, where little is held; and
    /// requests alone leave a quarter of all memory to those that ask for less.
    pub(super) fn room_for_request(&self, own_bytes: usize) -> usize {
        let others = self.held_bytes.load(Relaxed).saturating_sub(own_bytes);
        if others <= self.bytes_max / 4 {
            return usize::MAX;
        }
        self.room_bytes().max((self.bytes_max / 4 * 3).saturating_sub(others))
    }

    /// Takes the size of a reply into account.
    pub(super) fn replied(&self, bytes: usize) {
        let typical = self.typical_bytes.load(Relaxed);
        let next = bytes.max(typical - typical / 256);
        if next != typical {
            self.typical_bytes.store(next, Relaxed);
        }
    }

    /// What the first reply of a connection may well take: about which nothing is known, it may be much.
    pub(super) fn expected_bytes(&self) -> usize {
        match self.typical_bytes.load(Relaxed) {
            0 => UNKNOWN_BYTES,
            typical => typical,
        }
    }

    /// Bytes held by all connections.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_hoard_there_is_room_for_one_more_and_never_more_than_all() {
        let memory = Memory::new(512 << 20);
        let mut held = vec![0usize; 1000];
        // Everyone takes in steps of 64 KiB for as long as there is room, and nobody gives anything back.
        while held.iter().any(|&bytes| memory.has_room(bytes)) {
            for bytes in &mut held {
                if memory.has_room(*bytes) {
                    memory.change(*bytes, *bytes + (64 << 10));
                    *bytes += 64 << 10;
                }
            }
        }
        assert!(memory.held_bytes() <= 512 << 20, "{}", memory.held_bytes());
        assert!(memory.has_room(0), "a newcomer is served");
        assert!(memory.has_room_for_one(100) && !memory.has_room_for_one(64 << 20));
        assert!(held.iter().max().unwrap() - held.iter().min().unwrap() <= 128 << 10, "all the same");
        assert!(memory.room_for_request(0) <= 1 << 20, "nor for a large request");
        assert!(memory.room_for_request(memory.held_bytes()) > 1 << 30, "unless it is all its own");
        held.into_iter().for_each(|bytes| memory.change(bytes, 0));
        assert_eq!(memory.held_bytes(), 0);
        assert!(memory.has_room_for_one(1 << 30), "one may have what is never more than it asks for");
    }

    /// As many as the test of a whole node has, at their worst: nobody takes anything, and each has come only when those
    /// before it have all that they get.
    #[test]
    fn those_who_come_first_leave_a_reply_for_each_of_the_others_and_one_more() {
        const REPLY_BYTES: usize = 1 << 20;
        let memory = Memory::new(512 << 20);
        for hoarder in 0..200 {
            let mut held = 0;
            loop {
                let begins = match held {
                    0 => memory.has_room_for_one(2 * REPLY_BYTES),
                    held => memory.has_room(held + 2 * REPLY_BYTES),
                };
                if !begins {
                    break;
                }
                memory.change(held, held + REPLY_BYTES);
                held += REPLY_BYTES;
            }
            assert!(held > 0, "hoarder {hoarder} gets nothing");
        }
        assert!(memory.has_room_for_one(2 * REPLY_BYTES), "{} bytes are held", memory.held_bytes());
    }
}

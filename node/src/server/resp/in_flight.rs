//! Which keys the commands under way on one connection touch.
//!
//! Commands of one connection run side by side, yet must take effect as if one after the other. They do if a command
//! waits for those before it that write one of its keys, and a write also for those that read one. So each key has a
//! queue, and a command begins once it is at the head of those of all its keys; others go on meanwhile.

use bytes::Bytes;
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use super::command_table::{Access, Spec};

/// Keys of the commands under way and of those that wait for them.
#[derive(Debug, Default)]
pub(super) struct KeysInFlight {
    state: RandomState,
    keys: HashMap<u64, Users, BuildHasherDefault<AsItIs>>,
    /// How many keys a command waits for, by its number.
    waiting: HashMap<u64, usize, BuildHasherDefault<AsItIs>>,
    commands: usize,
    all: bool,
}

/// Keys of one command, by hash: two keys of the same hash only wait for each other needlessly.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// One key, as most commands.
    One(u64),
    /// Several, each once.
    Many(Vec<u64>),
    /// Whatever there is.
    All,
}

/// When a command begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// At once.
    Now,
    /// When [`KeysInFlight::end`] names it.
    Later,
}

#[derive(Debug, Default)]
struct Users {
    readers: usize,
    writer: bool,
    /// Numbers of those who wait, in their order.
    queue: VecDeque<(u64, Access)>,
}

impl Users {
    /// Takes the key for one more command, if those that have it allow.
    fn take(&mut self, access: Access) -> bool {
        let writes = access == Access::Write;
        if self.writer || (writes && self.readers > 0) {
            return false;
        }
        self.writer = writes;
        self.readers += usize::from(!writes);
        true
    }
}

impl KeysInFlight {
    /// Which keys a command touches.
    pub(super) fn touched(&self, spec: &Spec, arguments: &[Bytes]) -> Touched {
        let mut keys = spec.keys_of(arguments).map(|key| self.state.hash_one(key));
        match (spec.access, keys.next(), keys.next()) {
            (Access::Read | Access::Write, Some(key), None) => Touched::One(key),
            (Access::Read | Access::Write, Some(first), Some(second)) => {
                let mut hashes: Vec<u64> = [first, second].into_iter().chain(keys).collect();
                hashes.sort_unstable();
                hashes.dedup();
                Touched::Many(hashes)
            }
            _ => Touched::All,
        }
    }

    /// Whether a command may take its place: what touches all keys, only while nothing else is here, and nothing else
    /// while that is.
    pub(super) fn has_place(&self, touched: &Touched) -> bool {
        match touched {
            Touched::All => self.commands == 0,
            _ => !self.all,
        }
    }

    /// Counts a command that [has a place](Self::has_place), and queues it for the keys that it has to wait for.
    pub(super) fn begin(&mut self, number: u64, touched: &Touched, access: Access) -> Turn {
        self.commands += 1;
        self.all |= *touched == Touched::All;
        let mut waits_for = 0;
        for hash in touched.hashes() {
            let users = self.keys.entry(*hash).or_default();
            if !users.queue.is_empty() || !users.take(access) {
                users.queue.push_back((number, access));
                waits_for += 1;
            }
        }
        if waits_for == 0 {
            return Turn::Now;
        }
        self.waiting.insert(number, waits_for);
        Turn::Later
    }

    /// Counts it as done. Returns the numbers of those that waited for it and nothing else, which begin now.
    pub(super) fn end(&mut self, touched: &Touched, access: Access) -> Vec<u64> {
        let mut begin = Vec::new();
        self.commands -= 1;
        self.all = false;
        for hash in touched.hashes() {
            let Some(users) = self.keys.get_mut(hash) else { continue };
            match access {
                Access::Write => users.writer = false,
                _ => users.readers -= 1,
            }
            while let Some(&(number, access)) = users.queue.front() {
                if !users.take(access) {
                    break;
                }
                users.queue.pop_front();
                let left = self.waiting.get_mut(&number).map_or(0, |waits_for| {
                    *waits_for -= 1;
                    *waits_for
                });
                if left == 0 {
                    self.waiting.remove(&number);
                    begin.push(number);
                }
            }
            if users.readers == 0 && !users.writer {
                self.keys.remove(hash);
            }
        }
        begin
    }
}

impl Touched {
    fn hashes(&self) -> &[u64] {
        match self {
            Self::One(hash) => std::slice::from_ref(hash),
            Self::Many(hashes) => hashes,
            Self::All => &[],
        }
    }
}

/// Hashes are hashed already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Turn::{Later, Now};

    #[derive(Default)]
    struct Connection {
        keys: KeysInFlight,
        commands: Vec<(Touched, Access)>,
    }

    impl Connection {
        /// `None`: it has no place. Commands that have one are numbered from 0.
        fn begin(&mut self, line: &str) -> Option<Turn> {
            let arguments: Vec<Bytes> = line.split(' ').map(|word| Bytes::from(word.to_owned())).collect();
            let (_, spec) = Spec::find(&arguments[0]).unwrap();
            let touched = self.keys.touched(spec, &arguments);
            if !self.keys.has_place(&touched) {
                return None;
            }
            let turn = self.keys.begin(self.commands.len() as u64, &touched, spec.access);
            self.commands.push((touched, spec.access));
            Some(turn)
        }

        /// Numbers of those that begin now that this one has ended.
        fn end(&mut self, number: usize) -> Vec<u64> {
            let (touched, access) = &self.commands[number];
            self.keys.end(touched, *access)
        }
    }

    #[test]
    fn a_command_waits_for_those_before_it_on_its_keys_and_for_no_others() {
        let mut connection = Connection::default();
        assert_eq!(connection.begin("get a"), Some(Now));
        assert_eq!(connection.begin("mget a b a"), Some(Now), "reads do not wait for reads");
        assert_eq!(connection.begin("set a 1"), Some(Later), "a write waits for reads before it");
        assert_eq!(connection.begin("set c 1"), Some(Now), "other keys do not wait");
        assert_eq!(connection.begin("get a"), Some(Later), "nobody overtakes who waits");
        assert_eq!(connection.begin("mget a c"), Some(Later));
        assert_eq!(connection.begin("mset a 1 b 2 c 3"), Some(Later));
        assert_eq!(connection.begin("dbsize"), None, "a look at all keys waits for everything");
        assert!(connection.end(0).is_empty());
        assert_eq!(connection.end(1), [2], "the last of the reads has ended");
        assert_eq!(connection.end(2), [4], "the other read waits for c, too");
        assert_eq!(connection.end(3), [5]);
        assert!(connection.end(4).is_empty());
        assert_eq!(connection.end(5), [6]);
        assert!(connection.end(6).is_empty());
        assert!(connection.keys.keys.is_empty() && connection.keys.waiting.is_empty(), "nothing is left behind");
        assert_eq!(connection.begin("scan 0"), Some(Now));
        assert_eq!(connection.begin("get a"), None);
        assert!(connection.end(7).is_empty());
        assert_eq!(connection.begin("get a"), Some(Now));
    }
}

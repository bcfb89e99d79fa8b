//! Which keys the commands under way on one connection touch.
//!
//! Commands of one connection run side by side, yet must take effect as if one after the other. They do if a command
//! waits for those before it that write one of its keys, and a write also for those that read one.

use bytes::Bytes;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use super::command_table::{Access, Spec};

/// Keys of the commands under way.
#[derive(Debug, Default)]
pub(super) struct KeysInFlight {
    state: RandomState,
    keys: HashMap<u64, Users, BuildHasherDefault<AsItIs>>,
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

#[derive(Debug, Default)]
struct Users {
    readers: usize,
    writer: bool,
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

    /// Counts the command as under way unless it has to wait. `false`: it has to.
    pub(super) fn begin(&mut self, touched: &Touched, access: Access) -> bool {
        let free = match touched {
            Touched::All => self.commands == 0,
            keys => !self.all && keys.hashes().iter().all(|hash| self.is_free(*hash, access)),
        };
        if !free {
            return false;
        }
        self.commands += 1;
        self.all |= *touched == Touched::All;
        for hash in touched.hashes() {
            let users = self.keys.entry(*hash).or_default();
            match access {
                Access::Write => users.writer = true,
                _ => users.readers += 1,
            }
        }
        true
    }

    /// Counts it as done.
    pub(super) fn end(&mut self, touched: &Touched, access: Access) {
        self.commands -= 1;
        self.all = false;
        for hash in touched.hashes() {
            let Some(users) = self.keys.get_mut(hash) else { continue };
            match access {
                Access::Write => users.writer = false,
                _ => users.readers -= 1,
            }
            if users.readers == 0 && !users.writer {
                self.keys.remove(hash);
            }
        }
    }

    fn is_free(&self, hash: u64, access: Access) -> bool {
        self.keys.get(&hash).is_none_or(|users| !users.writer && (access != Access::Write || users.readers == 0))
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

    fn begin(keys: &mut KeysInFlight, line: &str) -> Option<(Touched, Access)> {
        let arguments: Vec<Bytes> = line.split(' ').map(|word| Bytes::from(word.to_owned())).collect();
        let (_, spec) = Spec::find(&arguments[0]).unwrap();
        let touched = keys.touched(spec, &arguments);
        keys.begin(&touched, spec.access).then_some((touched, spec.access))
    }

    #[test]
    fn what_waits_for_what() {
        let mut keys = KeysInFlight::default();
        let get = begin(&mut keys, "get a").unwrap();
        let again = begin(&mut keys, "mget a b a").expect("reads do not wait for reads");
        assert_eq!(begin(&mut keys, "set a 1"), None, "a write waits for reads before it");
        assert_eq!(begin(&mut keys, "dbsize"), None, "a look at all keys waits for everything");
        let other = begin(&mut keys, "set c 1").expect("other keys do not wait");
        keys.end(&get.0, get.1);
        assert_eq!(begin(&mut keys, "set a 1"), None, "there is still the second read");
        keys.end(&again.0, again.1);
        let set = begin(&mut keys, "mset a 1 a 2").unwrap();
        assert_eq!(begin(&mut keys, "get a"), None, "a read waits for writes before it");
        keys.end(&set.0, set.1);
        keys.end(&other.0, other.1);
        let all = begin(&mut keys, "scan 0").unwrap();
        assert_eq!(begin(&mut keys, "get a"), None);
        keys.end(&all.0, all.1);
        assert!(begin(&mut keys, "get a").is_some());
        assert_eq!(keys.keys.len(), 1, "nothing is left behind");
    }
}

//! SLOWLOG: commands that took long, on this node.

use super::clients::Client;
use super::command_table::{Id, Spec};
use super::error::CommandError;
use super::help;
use super::parse::integer;
use super::reply::Reply;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// What takes at least so long is noted until told otherwise, as in Redis. In microseconds.
const SLOW_AFTER_MICROS: i64 = 10_000;
/// Entries kept until told otherwise, as in Redis.
const ENTRIES: usize = 128;
/// Most entries that may be kept.
const ENTRIES_MAX: i64 = 10_000;

/// Most arguments kept of a command and most bytes of one of them, as in Redis.
const ARGUMENTS_MAX: usize = 32;
const ARGUMENT_BYTES_MAX: usize = 128;

/// The slowest commands of late.
#[derive(Debug)]
pub(super) struct SlowLog {
    /// Negative: nothing is noted.
    slow_after_micros: AtomicI64,
    entries_max: AtomicUsize,
    inner: Mutex<(i64, VecDeque<Entry>)>,
}

impl Default for SlowLog {
    fn default() -> Self {
        Self {
            slow_after_micros: AtomicI64::new(SLOW_AFTER_MICROS),
            entries_max: AtomicUsize::new(ENTRIES),
            inner: Mutex::default(),
        }
    }
}

#[derive(Clone, Debug)]
struct Entry {
    id: i64,
    at_ms: u64,
    took: Duration,
    command: Vec<Bytes>,
    address: String,
    client: String,
}

/// The command as it is kept: the first of its arguments, the first bytes of each, and nothing that is secret.
fn shortened(spec: &Spec, arguments: &[Bytes]) -> Vec<Bytes> {
    if matches!(spec.id, Id::Auth | Id::Hello) {
        let hidden = arguments.iter().skip(1).take(ARGUMENTS_MAX).map(|_| Bytes::from_static(b"(redacted)"));
        return std::iter::once(Bytes::copy_from_slice(&arguments[0])).chain(hidden).collect();
    }
    let part = |argument: &Bytes| match argument.len().checked_sub(ARGUMENT_BYTES_MAX) {
        // A slice would keep all of the request.
        None | Some(0) => Bytes::copy_from_slice(argument),
        Some(more) => {
            Bytes::from([&argument[..ARGUMENT_BYTES_MAX], format!("... ({more} more bytes)").as_bytes()].concat())
        }
    };
    if arguments.len() <= ARGUMENTS_MAX {
        return arguments.iter().map(part).collect();
    }
    let more = arguments.len() - ARGUMENTS_MAX + 1;
    let told = Bytes::from(format!("... ({more} more arguments)"));
    arguments.iter().take(ARGUMENTS_MAX - 1).map(part).chain([told]).collect()
}

impl SlowLog {
    /// Notes a command, if it was slow.
    pub(super) fn note(
        &self,
        spec: &Spec,
        arguments: &[Bytes],
        took: Duration,
        now_ms: impl FnOnce() -> u64,
        client: &Client,
    ) {
        let slow_after = u64::try_from(self.slow_after_micros.load(Relaxed)).map(Duration::from_micros);
        if slow_after.is_ok_and(|slow_after| took >= slow_after) {
            let entries_max = self.entries_max.load(Relaxed);
            let mut inner = self.inner.lock();
            let id = inner.0;
            inner.0 += 1;
            let (address, client) = (client.address(), client.names.lock().name.clone());
            let command = shortened(spec, arguments);
            inner.1.push_front(Entry { id, at_ms: now_ms(), took, command, address, client });
            inner.1.truncate(entries_max);
        }
    }

    /// What counts as slow, in microseconds.
    pub(super) fn slow_after_micros(&self) -> i64 {
        self.slow_after_micros.load(Relaxed)
    }

    /// How many are kept.
    pub(super) fn entries_max(&self) -> usize {
        self.entries_max.load(Relaxed)
    }

    /// Sets what counts as slow; below zero: nothing.
    pub(super) fn set_slow_after_micros(&self, micros: i64) {
        self.slow_after_micros.store(micros, Relaxed);
    }

    /// Whether so many may be kept.
    pub(super) fn may_keep(entries: i64) -> bool {
        (0..=ENTRIES_MAX).contains(&entries)
    }

    /// Sets how many are kept.
    pub(super) fn keep(&self, entries: usize) {
        self.entries_max.store(entries, Relaxed);
        self.inner.lock().1.truncate(entries);
    }

    /// `SLOWLOG GET [count] | LEN | RESET`
    pub(super) fn answer(&self, arguments: &[Bytes]) -> Result<Reply, CommandError> {
        let subcommand = arguments[1].to_ascii_lowercase();
        match (subcommand.as_slice(), &arguments[2..]) {
            (b"len", []) => Ok(Reply::count(self.inner.lock().1.len())),
            (b"reset", []) => {
                self.inner.lock().1.clear();
                Ok(Reply::OK)
            }
            (b"get", []) => Ok(self.entries(10)),
            (b"get", [count]) => match integer(count).filter(|&count| count >= -1) {
                Some(count) => Ok(self.entries(usize::try_from(count).unwrap_or(usize::MAX))),
                None => Err(CommandError::Fixed("ERR count should be greater than or equal to -1")),
            },
            (b"len" | b"reset" | b"get", _) => Err(CommandError::subcommand_arity("slowlog", &subcommand)),
            _ => help::or_unknown("SLOWLOG", arguments),
        }
    }

    fn entries(&self, count: usize) -> Reply {
        let inner = self.inner.lock();
        let integer = |number: u128| Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        let entries = inner.1.iter().take(count).map(|entry| {
            Reply::Array(vec![
                Reply::Integer(entry.id),
                integer(u128::from(entry.at_ms / 1000)),
                integer(entry.took.as_micros()),
                Reply::Array(entry.command.iter().cloned().map(Reply::Bulk).collect()),
                Reply::Text(entry.address.clone()),
                Reply::Text(entry.client.clone()),
            ])
        });
        Reply::Array(entries.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(line: &str) -> String {
        let arguments: Vec<Bytes> = line.split(' ').map(|word| Bytes::from(word.to_owned())).collect();
        let (_, spec) = Spec::find(&arguments[0]).unwrap();
        let kept: Vec<_> =
            shortened(spec, &arguments).iter().map(|word| word.escape_ascii().to_string()).collect();
        kept.join(" ")
    }

    #[test]
    fn much_is_shortened_and_passwords_are_not_kept() {
        assert_eq!(kept("SET a b"), "SET a b");
        assert_eq!(kept("AUTH someone secret"), "AUTH (redacted) (redacted)");
        let (bytes, more) = ("x".repeat(128), "x".repeat(130));
        assert_eq!(kept(&format!("SET {bytes} {more}")), format!("SET {bytes} {bytes}... (2 more bytes)"));
        let many: Vec<String> = (1..=40).map(|number| number.to_string()).collect();
        assert!(kept(&format!("DEL {}", many.join(" "))).ends_with(" 29 30 ... (10 more arguments)"));
    }
}

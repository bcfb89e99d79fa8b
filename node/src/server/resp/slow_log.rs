//! SLOWLOG: commands that took long, on this node.

use super::error::CommandError;
use super::help;
use super::parse::integer;
use super::reply::Reply;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;

/// What takes at least so long is noted, as in Redis.
pub(super) const SLOW_AFTER: Duration = Duration::from_millis(10);
/// Most entries kept, as in Redis.
pub(super) const ENTRIES_MAX: usize = 128;

/// The slowest commands of late.
#[derive(Debug, Default)]
pub(super) struct SlowLog {
    inner: Mutex<(i64, VecDeque<Entry>)>,
}

#[derive(Clone, Debug)]
struct Entry {
    id: i64,
    at_ms: u64,
    took: Duration,
    command: &'static str,
    client: String,
}

impl SlowLog {
    /// Notes a command, if it was slow. Its arguments are not kept: they may be large, or secret.
    pub(super) fn note(
        &self,
        command: &'static str,
        took: Duration,
        now_ms: impl FnOnce() -> u64,
        client: impl FnOnce() -> String,
    ) {
        if took < SLOW_AFTER {
            return;
        }
        let mut inner = self.inner.lock();
        let id = inner.0;
        inner.0 += 1;
        if inner.1.len() >= ENTRIES_MAX {
            inner.1.pop_back();
        }
        inner.1.push_front(Entry { id, at_ms: now_ms(), took, command, client: client() });
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
                Some(count) => Ok(self.entries(usize::try_from(count).unwrap_or(ENTRIES_MAX))),
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
                Reply::Array(vec![Reply::Word(entry.command)]),
                Reply::Word(""),
                Reply::Text(entry.client.clone()),
            ])
        });
        Reply::Array(entries.collect())
    }
}

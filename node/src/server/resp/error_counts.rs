//! Errors answered, by their first word, as `INFO errorstats` tells them.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Most kinds told apart. Texts of errors begin with one of a few words, so more are never seen.
const KINDS_MAX: usize = 128;

/// How many errors of each kind were answered.
#[derive(Debug, Default)]
pub(super) struct ErrorCounts(Mutex<BTreeMap<String, u64>>);

impl ErrorCounts {
    /// Counts one by its text.
    pub(super) fn note(&self, text: &str) {
        let kind = text.split(' ').next().unwrap_or_default();
        let mut counts = self.0.lock();
        if let Some(count) = counts.get_mut(kind) {
            *count += 1;
        } else if counts.len() < KINDS_MAX {
            counts.insert(kind.to_owned(), 1);
        }
    }

    /// All of them.
    pub(super) fn total(&self) -> u64 {
        self.0.lock().values().sum()
    }

    /// Begins anew.
    pub(super) fn reset(&self) {
        self.0.lock().clear();
    }

    /// One line for each kind.
    pub(super) fn lines(&self) -> String {
        let mut text = String::new();
        for (kind, count) in &*self.0.lock() {
            // Writing to a string cannot fail.
            let _ = write!(text, "errorstat_{kind}:count={count}\r\n");
        }
        text
    }
}

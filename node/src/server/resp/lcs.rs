//! LCS: the longest sequence of bytes that two strings have in common.

use super::error::CommandError;
use super::parse::integer;
use super::reply::Reply;
use super::store::Store;
use crate::coordinator::KeyValue;
use bytes::Bytes;

/// Most pairs of bytes that are compared: they take four bytes each.
const PAIRS_MAX: usize = 4 << 20;
const TOO_LONG: CommandError = CommandError::Fixed(
    "ERR the strings are too long to be compared: the product of their lengths is limited to 4194304",
);
const NO_STRING: CommandError = CommandError::Fixed("ERR The specified keys must contain string values");

#[derive(Debug, Default)]
struct Options {
    length_only: bool,
    places: bool,
    lengths: bool,
    length_min: usize,
}

/// A run of bytes that is the same in both strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: usize,
    second: usize,
    length: usize,
}

/// `LCS key1 key2 [LEN] [IDX] [MINMATCHLEN length] [WITHMATCHLEN]`, each key read for itself.
pub(super) async fn lcs<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let (first, second) = futures::try_join!(store.read(&arguments[1]), store.read(&arguments[2]))?;
    let first = first.string().map_err(|_| NO_STRING)?.unwrap_or_default();
    let second = second.string().map_err(|_| NO_STRING)?.unwrap_or_default();
    let options = parse(&arguments[3..])?;
    if first.len().saturating_add(1).saturating_mul(second.len() + 1) > PAIRS_MAX {
        return Err(TOO_LONG);
    }
    let table = Table::of(&first, &second);
    let length = table.at(first.len(), second.len());
    if options.length_only {
        return Ok(Reply::Integer(i64::from(length)));
    }
    let runs = table.runs(&first, &second);
    if !options.places {
        let bytes: Vec<u8> =
            runs.iter().rev().flat_map(|run| &first[run.first..run.first + run.length]).copied().collect();
        return Ok(Reply::Bulk(Bytes::from(bytes)));
    }
    let matches = runs.iter().filter(|run| run.length >= options.length_min).map(|run| {
        let places = |start: usize| Reply::Array(vec![Reply::count(start), Reply::count(start + run.length - 1)]);
        let mut told = vec![places(run.first), places(run.second)];
        told.extend(options.lengths.then(|| Reply::count(run.length)));
        Reply::Array(told)
    });
    Ok(Reply::Map(vec![
        (Reply::Word("matches"), Reply::Array(matches.collect())),
        (Reply::Word("len"), Reply::Integer(i64::from(length))),
    ]))
}

fn parse(mut words: &[Bytes]) -> Result<Options, CommandError> {
    let mut options = Options::default();
    while let [word, rest @ ..] = words {
        words = match (word.to_ascii_lowercase().as_slice(), rest) {
            (b"len", rest) => {
                options.length_only = true;
                rest
            }
            (b"idx", rest) => {
                options.places = true;
                rest
            }
            (b"withmatchlen", rest) => {
                options.lengths = true;
                rest
            }
            (b"minmatchlen", [length, rest @ ..]) => {
                let length = integer(length).ok_or(CommandError::NotInteger)?;
                options.length_min = usize::try_from(length).unwrap_or(0);
                rest
            }
            _ => return Err(CommandError::Syntax),
        };
    }
    if options.length_only && options.places {
        return Err(CommandError::Fixed("ERR If you want both the length and indexes, please just use IDX."));
    }
    Ok(options)
}

/// Lengths of what the beginnings of two strings have in common.
struct Table {
    width: usize,
    lengths: Vec<u32>,
}

impl Table {
    fn of(first: &[u8], second: &[u8]) -> Self {
        let width = second.len() + 1;
        let mut table = Self { width, lengths: vec![0; (first.len() + 1) * width] };
        for (row, a) in (1..).zip(first) {
            for (column, b) in (1..).zip(second) {
                table.lengths[row * width + column] = if a == b {
                    table.at(row - 1, column - 1) + 1
                } else {
                    table.at(row - 1, column).max(table.at(row, column - 1))
                };
            }
        }
        table
    }

    fn at(&self, row: usize, column: usize) -> u32 {
        self.lengths[row * self.width + column]
    }

    /// The runs from the last to the first, by the way back that Redis takes where there are several.
    fn runs(&self, first: &[u8], second: &[u8]) -> Vec<Run> {
        let (mut row, mut column) = (first.len(), second.len());
        let mut runs: Vec<Run> = Vec::new();
        let mut adjoins = false;
        while row > 0 && column > 0 {
            if first[row - 1] == second[column - 1] {
                (row, column) = (row - 1, column - 1);
                let length = match runs.pop_if(|_| adjoins) {
                    Some(run) => run.length + 1,
                    None => 1,
                };
                runs.push(Run { first: row, second: column, length });
                adjoins = true;
            } else {
                adjoins = false;
                if self.at(row - 1, column) > self.at(row, column - 1) {
                    row -= 1;
                } else {
                    column -= 1;
                }
            }
        }
        runs
    }
}

//! LATENCY: how long commands took on this node. Events are not monitored, as in Redis unless it is told otherwise.

use super::error::{CommandError, shown};
use super::help;
use super::reply::Reply;
use super::server::Server;
use crate::coordinator::KeyValue;
use crate::server::metrics::BUCKET_MICROS;
use crate::server::statistics::Sample;
use bytes::Bytes;

/// `LATENCY HISTOGRAM [command …] | LATEST | HISTORY event | RESET [event …]`
pub(super) fn answer<K: KeyValue>(server: &Server<K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let subcommand = arguments[1].to_ascii_lowercase();
    match (subcommand.as_slice(), &arguments[2..]) {
        (b"histogram", names) => {
            let wanted = |sample: &Sample| {
                names.is_empty() || names.iter().any(|name| name.eq_ignore_ascii_case(sample.name.as_bytes()))
            };
            let mut samples = server.metrics.samples();
            samples.retain(|sample| sample.calls() > 0 && wanted(sample));
            Ok(Reply::Map(samples.iter().map(|sample| (Reply::Word(sample.name), histogram(sample))).collect()))
        }
        (b"latest", []) | (b"history", [_]) => Ok(Reply::Array(Vec::new())),
        (b"reset", _) => Ok(Reply::Integer(0)),
        (b"latest" | b"history", _) => Err(CommandError::subcommand_arity("latency", &subcommand)),
        (b"doctor" | b"graph", _) => Err(CommandError::Unsupported {
            what: format!("latency {}", shown(arguments.get(1)).to_ascii_lowercase()),
            reason: "is not offered: /metrics has histograms of every command",
        }),
        _ => help::or_unknown("LATENCY", arguments),
    }
}

/// How many took at most so many microseconds; of the last, which has no bound, all.
fn histogram(sample: &Sample) -> Reply {
    let bounds = BUCKET_MICROS.iter().map(|&bound| i64::try_from(bound).unwrap_or(i64::MAX)).chain([i64::MAX]);
    let (mut pairs, mut so_far) = (Vec::new(), 0);
    for (bound, count) in bounds.zip(sample.buckets) {
        so_far += count;
        if count > 0 {
            pairs.push((Reply::Integer(bound), integer(so_far)));
        }
    }
    Reply::Map(vec![
        (Reply::Word("calls"), integer(sample.calls())),
        (Reply::Word("histogram_usec"), Reply::Map(pairs)),
    ])
}

fn integer(number: u64) -> Reply {
    Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

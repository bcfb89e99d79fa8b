//! Replies, and how they look in RESP2 and in RESP3.

use super::output::Output;
use bytes::Bytes;
use std::io::Write as _;

/// Which version of the protocol a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Protocol {
    /// What every connection starts with.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// One reply.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    /// `+OK` and the like.
    Status(&'static str),
    /// `-ERR …`, without the dash.
    Error(String),
    /// A number.
    Integer(i64),
    /// A value.
    Bulk(Bytes),
    /// Text that is made for the reply.
    Text(String),
    /// Text that is always the same.
    Word(&'static str),
    /// Nothing there.
    Null,
    /// Several replies.
    Array(Vec<Self>),
    /// Pairs; in RESP2 a flat array.
    Map(Vec<(Self, Self)>),
    /// Pairs in an order, perhaps with repetition; in RESP2 a flat array, in RESP3 an array of arrays.
    Pairs(Vec<(Self, Self)>),
    /// Several replies in no order; in RESP2 an array.
    Set(Vec<Self>),
    /// Text for people; in RESP2 a plain bulk string.
    Verbatim(String),
    /// A reply that has been encoded before, for both versions alike.
    Encoded(Bytes),
}

impl Reply {
    /// `+OK`.
    pub(super) const OK: Self = Self::Status("OK");

    /// Whether it reports a failure.
    pub(super) fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// A number of things.
    pub(super) fn count(count: usize) -> Self {
        Self::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// Bytes that waiting for its turn costs, roughly.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Bulk(bytes) | Self::Encoded(bytes) => bytes.len(),
            Self::Text(text) | Self::Verbatim(text) | Self::Error(text) => text.len(),
            Self::Array(items) | Self::Set(items) => items.iter().map(Self::bytes).sum::<usize>() + 16,
            Self::Map(pairs) | Self::Pairs(pairs) => {
                pairs.iter().map(|(key, value)| key.bytes() + value.bytes()).sum::<usize>() + 16
            }
            Self::Status(_) | Self::Integer(_) | Self::Word(_) | Self::Null => 16,
        }
    }

    /// Appends the reply as the protocol writes it.
    pub(super) fn encode(self, protocol: Protocol, output: &mut Output) {
        let resp3 = protocol == Protocol::Resp3;
        match self {
            Self::Status(text) => line(output, b'+', text.as_bytes()),
            Self::Error(text) => line(output, b'-', one_line(&text).as_bytes()),
            Self::Integer(number) => header(output, b':', number),
            Self::Bulk(value) => bulk(output, value),
            Self::Text(text) => bulk(output, Bytes::from(text)),
            Self::Word(text) => bulk(output, Bytes::from_static(text.as_bytes())),
            Self::Null => output.push(if resp3 { b"_\r\n" } else { b"$-1\r\n" }),
            Self::Array(items) => aggregate(output, b'*', items, protocol),
            Self::Set(items) => aggregate(output, if resp3 { b'~' } else { b'*' }, items, protocol),
            Self::Map(pairs) => {
                let factor = if resp3 { 1 } else { 2 };
                header(output, if resp3 { b'%' } else { b'*' }, signed(pairs.len() * factor));
                for (key, value) in pairs {
                    key.encode(protocol, output);
                    value.encode(protocol, output);
                }
            }
            Self::Pairs(pairs) => {
                header(output, b'*', signed(pairs.len() * if resp3 { 1 } else { 2 }));
                for (key, value) in pairs {
                    if resp3 {
                        header(output, b'*', 2);
                    }
                    key.encode(protocol, output);
                    value.encode(protocol, output);
                }
            }
            Self::Verbatim(text) if resp3 => {
                header(output, b'=', signed(text.len() + 4));
                output.push(b"txt:");
                output.push_value(Bytes::from(text));
                output.push(b"\r\n");
            }
            Self::Verbatim(text) => bulk(output, Bytes::from(text)),
            Self::Encoded(bytes) => output.push_value(bytes),
        }
    }
}

fn line(output: &mut Output, kind: u8, text: &[u8]) {
    output.push(&[kind]);
    output.push(text);
    output.push(b"\r\n");
}

fn header(output: &mut Output, kind: u8, number: i64) {
    let mut text = [0; 24];
    let mut rest = &mut text[..];
    // Cannot fail: the longest number has 20 characters.
    let _ = write!(rest, "{}{number}\r\n", char::from(kind));
    let length = 24 - rest.len();
    output.push(&text[..length]);
}

fn bulk(output: &mut Output, value: Bytes) {
    header(output, b'$', signed(value.len()));
    output.push_value(value);
    output.push(b"\r\n");
}

fn aggregate(output: &mut Output, kind: u8, items: Vec<Reply>, protocol: Protocol) {
    header(output, kind, signed(items.len()));
    for item in items {
        item.encode(protocol, output);
    }
}

/// An error is one line on the wire, whatever arguments it quotes.
fn one_line(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], " ").into() } else { text.into() }
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    async fn text(reply: Reply, protocol: Protocol) -> String {
        let mut output = Output::default();
        reply.encode(protocol, &mut output);
        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        std::future::poll_fn(|cx| output.poll_write(&mut near, cx)).await.unwrap();
        drop(near);
        let mut received = String::new();
        far.read_to_string(&mut received).await.unwrap();
        received
    }

    #[tokio::test]
    async fn both_versions() {
        let map =
            || Reply::Map(vec![(Reply::Word("a"), Reply::Integer(-1)), (Reply::Text("b".into()), Reply::Null)]);
        let cases = [
            (Reply::OK, "+OK\r\n", "+OK\r\n"),
            (Reply::Error("ERR a\r\nb".into()), "-ERR a  b\r\n", "-ERR a  b\r\n"),
            (Reply::Integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
            (Reply::Bulk(Bytes::from_static(b"\0\r\n")), "$3\r\n\0\r\n\r\n", "$3\r\n\0\r\n\r\n"),
            (Reply::Null, "$-1\r\n", "_\r\n"),
            (map(), "*4\r\n$1\r\na\r\n:-1\r\n$1\r\nb\r\n$-1\r\n", "%2\r\n$1\r\na\r\n:-1\r\n$1\r\nb\r\n_\r\n"),
            (Reply::Set(vec![Reply::Word("x")]), "*1\r\n$1\r\nx\r\n", "~1\r\n$1\r\nx\r\n"),
            (Reply::Array(vec![]), "*0\r\n", "*0\r\n"),
            (Reply::Verbatim("hi".into()), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
        ];
        for (reply, resp2, resp3) in cases {
            assert_eq!(text(reply.clone(), Protocol::Resp2).await, resp2);
            assert_eq!(text(reply, Protocol::Resp3).await, resp3);
        }
    }
}

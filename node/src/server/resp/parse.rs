//! Requests out of a byte stream: arrays of bulk strings, and inline commands.
//!
//! The parser owns no bytes. It walks the connection's read buffer, remembers how far it has come, and when a request
//! is complete cuts it off the front of the buffer: every argument is a slice of what was read, never a copy.

use super::inline;
use crate::config::Limits;
use bytes::{Buf, Bytes, BytesMut};
use std::ops::Range;

/// Longest inline command and longest header line, in bytes, as in Redis.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Longest argument that is skipped with an error; a longer one ends the connection. In bytes, as in Redis.
const SKIP_BYTES_MAX: i64 = 512 << 20;

/// Besides its bytes an argument takes this: its place while it is read, then the slice. In bytes.
pub(super) const ARGUMENT_BYTES: usize = size_of::<Range<usize>>() + size_of::<Bytes>();

/// What is taken of a client that has not said who it is, as in Redis.
const UNAUTHENTICATED_ARGUMENTS_MAX: i64 = 10;
const UNAUTHENTICATED_ARGUMENT_BYTES_MAX: usize = 16 << 10;

/// What came next on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// A command with its arguments, the name first; never empty.
    Command {
        /// Slices of the read buffer.
        arguments: Vec<Bytes>,
        /// Bytes that the request took on the wire.
        bytes: usize,
    },
    /// A request over a limit, which was read to its end and dropped.
    Oversize(Oversize),
}

/// Which limit a request exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Oversize {
    /// One argument is longer than any key or value may be.
    #[error("ERR value too large ({bytes} bytes, limit {bytes_max})")]
    Argument {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// All that clients may hold together is held by others.
    #[error("OVERLOADED other clients hold so much that there is no memory for a request of {bytes} bytes")]
    NoRoom {
        /// What it would take.
        bytes: usize,
    },
    /// All arguments together.
    #[error("ERR command too large (over {bytes_max} bytes, the most a connection may have unanswered)")]
    Request {
        /// The limit.
        bytes_max: usize,
    },
}

/// Bytes that are not the Redis protocol; the connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtocolError {
    /// The number of arguments is no number or over the limit.
    #[error("ERR Protocol error: invalid multibulk length")]
    ArgumentCount,
    /// The length of an argument is no number or over what can be skipped.
    #[error("ERR Protocol error: invalid bulk length")]
    BulkLength,
    /// An argument does not start with `$`.
    #[error("ERR Protocol error: expected '$', got '{0}'")]
    NoBulk(char),
    /// The number of arguments has no end.
    #[error("ERR Protocol error: too big mbulk count string")]
    LongArgumentCount,
    /// The length of an argument has no end.
    #[error("ERR Protocol error: too big bulk count string")]
    LongBulkLength,
    /// More arguments than someone may send who has not said who they are.
    #[error("ERR Protocol error: unauthenticated multibulk length")]
    UnauthenticatedArgumentCount,
    /// A longer argument than that.
    #[error("ERR Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// An inline command has no end.
    #[error("ERR Protocol error: too big inline request")]
    LongInline,
    /// The quotes of an inline command do not balance.
    #[error("ERR Protocol error: unbalanced quotes in request")]
    Quotes,
}

/// Parser of one connection's requests.
#[derive(Debug)]
pub(super) struct RequestParser {
    bounds: Bounds,
    /// Everything in the buffer before this is understood.
    position: usize,
    /// Between `position` and this there is no line end.
    searched: usize,
    /// Arguments of the request under way that are still to come.
    arguments_left: usize,
    /// Length of the argument whose bytes come next.
    bulk: Option<usize>,
    arguments: Vec<Range<usize>>,
    /// Set once the request under way is known to be over a limit: it is dropped as it comes in.
    oversize: Option<Oversize>,
    /// Bytes still to be dropped.
    skip: usize,
    /// What the request under way may take; what takes more is dropped as it comes in.
    pub(super) room_bytes: usize,
    /// Whether the client has said who it is; as long as it has not, little is taken from it.
    pub(super) authenticated: bool,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    arguments_max: usize,
    argument_bytes_max: usize,
    request_bytes_max: usize,
}

impl RequestParser {
    /// A parser under these limits.
    pub(super) fn new(limits: &Limits) -> Self {
        let bounds = Bounds {
            arguments_max: limits.command_arguments_max,
            argument_bytes_max: limits.value_bytes_max.max(limits.key_bytes_max),
            request_bytes_max: limits.connection_request_bytes_max,
        };
        Self {
            bounds,
            position: 0,
            searched: 0,
            arguments_left: 0,
            bulk: None,
            arguments: Vec::new(),
            oversize: None,
            skip: 0,
            room_bytes: usize::MAX,
            authenticated: true,
        }
    }

    /// The next request, cut off the front of `input`; `None`: more bytes are needed.
    ///
    /// # Errors
    /// The bytes are not the protocol. Nothing that follows them can be understood.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        loop {
            if self.arguments_left == 0 {
                match input.first() {
                    None => return Ok(None),
                    Some(b'*') => {
                        if !self.begin(input)? {
                            return Ok(None);
                        }
                        continue;
                    }
                    Some(_) => match self.inline(input)? {
                        Inline::Incomplete => return Ok(None),
                        Inline::Blank => continue,
                        Inline::Command(request) => return Ok(Some(request)),
                    },
                }
            }
            if !self.argument(input)? {
                return Ok(None);
            }
            if self.arguments_left == 0 {
                return Ok(Some(self.finish(input)));
            }
        }
    }

    /// How many bytes more the argument under way needs, beyond those in the buffer.
    pub(super) fn bytes_wanted(&self, input: &BytesMut) -> usize {
        self.bulk.map_or(0, |length| (self.position + length + 2).saturating_sub(input.len()))
    }

    /// Bytes that the request under way takes or has announced, with the places of its arguments.
    pub(super) fn held_bytes(&self) -> usize {
        self.position + self.bulk.unwrap_or(0) + self.arguments.len() * ARGUMENT_BYTES
    }

    /// Whether a request has begun and not ended.
    pub(super) fn is_within_request(&self) -> bool {
        self.arguments_left > 0
    }

    /// Reads `*N`. `false`: more bytes are needed.
    fn begin(&mut self, input: &mut BytesMut) -> Result<bool, ProtocolError> {
        let Some(line) = self.line(input, ProtocolError::LongArgumentCount)? else { return Ok(false) };
        let count = integer(&input[line][1..]).ok_or(ProtocolError::ArgumentCount)?;
        let count_max = i64::try_from(self.bounds.arguments_max).unwrap_or(i64::MAX);
        if count > count_max {
            return Err(ProtocolError::ArgumentCount);
        }
        if !self.authenticated && count > UNAUTHENTICATED_ARGUMENTS_MAX {
            return Err(ProtocolError::UnauthenticatedArgumentCount);
        }
        self.arguments_left = usize::try_from(count).unwrap_or(0);
        if self.arguments_left == 0 {
            self.drop_parsed(input);
        }
        Ok(true)
    }

    /// Reads one `$N` and its bytes. `false`: more bytes are needed.
    fn argument(&mut self, input: &mut BytesMut) -> Result<bool, ProtocolError> {
        if self.bulk.is_none() && self.skip == 0 && !self.bulk_header(input)? {
            return Ok(false);
        }
        if self.skip > 0 {
            let dropped = self.skip.min(input.len());
            input.advance(dropped);
            self.skip -= dropped;
            if self.skip > 0 {
                return Ok(false);
            }
        } else if let Some(length) = self.bulk {
            let end = self.position + length;
            if input.len() < end + 2 {
                return Ok(false);
            }
            self.arguments.push(self.position..end);
            self.position = end + 2;
            self.searched = self.position;
            self.bulk = None;
        }
        self.arguments_left -= 1;
        Ok(true)
    }

    fn bulk_header(&mut self, input: &mut BytesMut) -> Result<bool, ProtocolError> {
        if let Some(&first) = input.get(self.position)
            && first != b'$'
        {
            return Err(ProtocolError::NoBulk(char::from(first)));
        }
        let Some(line) = self.line(input, ProtocolError::LongBulkLength)? else { return Ok(false) };
        let length = integer(&input[line][1..]).filter(|length| (0..=SKIP_BYTES_MAX).contains(length));
        let length = length.and_then(|length| usize::try_from(length).ok()).ok_or(ProtocolError::BulkLength)?;
        if !self.authenticated && length > UNAUTHENTICATED_ARGUMENT_BYTES_MAX {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        self.bulk = Some(length);
        let Bounds { argument_bytes_max, request_bytes_max, .. } = self.bounds;
        if length > argument_bytes_max {
            self.oversize = Some(Oversize::Argument { bytes: length, bytes_max: argument_bytes_max });
        } else if self.oversize.is_none() && self.position + length > request_bytes_max {
            self.oversize = Some(Oversize::Request { bytes_max: request_bytes_max });
        } else if self.oversize.is_none() && self.held_bytes() > self.room_bytes {
            self.oversize = Some(Oversize::NoRoom { bytes: self.held_bytes() });
        }
        if self.oversize.is_some() {
            self.bulk = None;
            self.drop_parsed(input);
            self.skip = length + 2;
        }
        Ok(true)
    }

    fn inline(&mut self, input: &mut BytesMut) -> Result<Inline, ProtocolError> {
        let Some(line) = self.line(input, ProtocolError::LongInline)? else { return Ok(Inline::Incomplete) };
        let arguments = inline::split_words(&input[line]).ok_or(ProtocolError::Quotes)?;
        let bytes = self.position;
        self.drop_parsed(input);
        if arguments.is_empty() {
            return Ok(Inline::Blank);
        }
        Ok(Inline::Command(Request::Command { arguments, bytes }))
    }

    fn finish(&mut self, input: &mut BytesMut) -> Request {
        if let Some(oversize) = self.oversize.take() {
            return Request::Oversize(oversize);
        }
        let bytes = self.position;
        let frame = input.split_to(bytes).freeze();
        let arguments = self.arguments.drain(..).map(|range| frame.slice(range)).collect();
        (self.position, self.searched) = (0, 0);
        Request::Command { arguments, bytes }
    }

    /// The next line without its end, as a range of the buffer; `None`: its end has not come yet.
    fn line(&mut self, input: &[u8], endless: ProtocolError) -> Result<Option<Range<usize>>, ProtocolError> {
        let start = self.position;
        let from = self.searched.max(start);
        let Some(at) = input[from..].iter().position(|&byte| byte == b'\n') else {
            self.searched = input.len();
            return if input.len() - start > LINE_BYTES_MAX { Err(endless) } else { Ok(None) };
        };
        let end = from + at;
        if end - start > LINE_BYTES_MAX {
            return Err(endless);
        }
        self.position = end + 1;
        self.searched = self.position;
        let carriage_return = end > start && input[end - 1] == b'\r';
        Ok(Some(start..end - usize::from(carriage_return)))
    }

    fn drop_parsed(&mut self, input: &mut BytesMut) {
        input.advance(self.position);
        (self.position, self.searched) = (0, 0);
        self.arguments.clear();
    }
}

enum Inline {
    Incomplete,
    Blank,
    Command(Request),
}

/// A decimal number as Redis writes it: no sign but `-`, no leading zeros, no spaces.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [b'0'] if digits.len() == text.len() => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value: i64 = 0;
    for digit in digits {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        // Negative all along, since the least number has no positive counterpart.
        value = value.checked_mul(10)?.checked_sub(i64::from(digit))?;
    }
    if digits.len() == text.len() { value.checked_neg() } else { Some(value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> Limits {
        Limits {
            key_bytes_max: 10,
            value_bytes_max: 20,
            connection_request_bytes_max: 200,
            command_arguments_max: 8,
            ..Limits::default()
        }
    }

    /// Feeds the chunks one by one and returns everything that was understood.
    fn feed<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Request>, Option<ProtocolError>) {
        let (mut parser, mut input) = (RequestParser::new(&limits()), BytesMut::new());
        let mut requests = Vec::new();
        for chunk in chunks {
            input.extend_from_slice(chunk);
            loop {
                match parser.next(&mut input) {
                    Ok(Some(request)) => requests.push(request),
                    Ok(None) => break,
                    Err(error) => return (requests, Some(error)),
                }
            }
            let room = 2 * LINE_BYTES_MAX + limits().connection_request_bytes_max;
            assert!(input.len() < room, "the buffer stays bounded: {}", input.len());
        }
        (requests, None)
    }

    fn whole(bytes: &[u8]) -> (Vec<Request>, Option<ProtocolError>) {
        feed([bytes])
    }

    fn encoded(arguments: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments {
            bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            bytes.extend_from_slice(argument);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    }

    fn arguments(request: &Request) -> Vec<Vec<u8>> {
        match request {
            Request::Command { arguments, .. } => arguments.iter().map(|argument| argument.to_vec()).collect(),
            Request::Oversize(oversize) => panic!("{oversize}"),
        }
    }

    proptest! {
        #[test]
        fn chunking_does_not_matter(
            commands in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..8), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let bytes: Vec<u8> = commands.iter().flat_map(|command| encoded(command)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let (requests, error) = feed(cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]));
            prop_assert_eq!(error, None);
            prop_assert_eq!(requests.iter().map(arguments).collect::<Vec<_>>(), commands);
        }

        #[test]
        fn hostile_bytes_never_panic(
            bytes in prop::collection::vec(prop_oneof![
                4 => prop::sample::select(b"*$\r\n0123456789-\"' x".to_vec()),
                1 => any::<u8>(),
            ], 0..400),
            chunk in 1usize..40,
        ) {
            let at_once = whole(&bytes);
            let in_chunks = feed(bytes.chunks(chunk));
            prop_assert_eq!(at_once, in_chunks);
        }

        #[test]
        fn integers_read_as_they_are_written(value: i64) {
            prop_assert_eq!(integer(value.to_string().as_bytes()), Some(value));
        }
    }

    #[test]
    fn integers_that_are_none() {
        for text in ["", "-", "+1", "01", "-0", " 1", "1 ", "1.0", "9223372036854775808", "99999999999999999999"] {
            assert_eq!(integer(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_value_over_the_limit_is_skipped_and_the_connection_goes_on() {
        let mut bytes = encoded(&[b"SET".to_vec(), b"a".to_vec(), vec![b'x'; 100], b"EX".to_vec()]);
        bytes.extend(encoded(&[b"PING".to_vec()]));
        for chunk in [1, 7, 1000] {
            let (requests, error) = feed(bytes.chunks(chunk));
            assert_eq!(error, None);
            assert_eq!(requests[0], Request::Oversize(Oversize::Argument { bytes: 100, bytes_max: 20 }));
            assert_eq!(arguments(&requests[1]), [b"PING".to_vec()]);
        }
    }

    #[test]
    fn a_request_over_the_limit_is_skipped() {
        let mut bytes = b"*8\r\n".to_vec();
        for _ in 0..8 {
            bytes.extend(b"$20\r\n01234567890123456789\r\n");
        }
        bytes.extend(b"PING\r\n");
        let (requests, error) = feed(bytes.chunks(3));
        assert_eq!(error, None);
        assert_eq!(requests[0], Request::Oversize(Oversize::Request { bytes_max: 200 }));
        assert_eq!(arguments(&requests[1]), [b"PING".to_vec()]);
    }

    #[test]
    fn protocol_errors() {
        let error = |bytes: &[u8]| whole(bytes).1.map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(error(b"*9\r\n"), "ERR Protocol error: invalid multibulk length");
        assert_eq!(error(b"*x\r\n"), "ERR Protocol error: invalid multibulk length");
        assert_eq!(error(b"*1\r\n:1\r\n"), "ERR Protocol error: expected '$', got ':'");
        assert_eq!(error(b"*1\r\n$-1\r\n"), "ERR Protocol error: invalid bulk length");
        assert_eq!(error(b"*1\r\n$536870913\r\n"), "ERR Protocol error: invalid bulk length");
        assert_eq!(error(b"GET \"a\r\n"), "ERR Protocol error: unbalanced quotes in request");
        assert_eq!(error(&[b'x'; LINE_BYTES_MAX + 1]), "ERR Protocol error: too big inline request");
        assert_eq!(error(&[b'*'; LINE_BYTES_MAX + 1]), "ERR Protocol error: too big mbulk count string");
    }

    #[test]
    fn nothing_is_a_request_too() {
        let (requests, error) = whole(b"\r\n*0\r\n*-1\r\n  \r\nPING\r\n");
        assert_eq!(error, None);
        assert_eq!(requests.len(), 1);
        let (mut parser, mut input) = (RequestParser::new(&limits()), BytesMut::from(&b"*1\r\n$15\r\nabc"[..]));
        assert_eq!(parser.next(&mut input), Ok(None));
        assert!(parser.is_within_request());
        assert_eq!(parser.bytes_wanted(&input), 14);
    }
}

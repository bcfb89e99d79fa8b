//! Bytes from anyone to everything that reads what clients send, and to the file of users.

use super::acl;
use super::glob;
use super::parse::{ProtocolError, Request, RequestParser, integer};
use super::sets::PartScan;
use crate::config::Limits;
use annulus_fuzz::{Noise, damaged, damaged_text, fuzz, within};
use bytes::{Bytes, BytesMut};

fn limits() -> Limits {
    Limits {
        key_bytes_max: 100,
        value_bytes_max: 2000,
        connection_request_bytes_max: 8000,
        command_arguments_max: 200,
        ..Limits::default()
    }
}

/// Longest line that has no end yet.
const LINE_BYTES_MAX: usize = 64 << 10;

/// What a parser makes of a stream that comes in these reads, in a bounded room.
fn parse(reads: &[&[u8]], authenticated: bool) -> (Vec<Request>, Option<ProtocolError>) {
    let mut parser = RequestParser::new(&limits());
    parser.authenticated = authenticated;
    let mut input = BytesMut::new();
    let mut requests = Vec::new();
    for read in reads {
        input.extend_from_slice(read);
        loop {
            // Places of arguments, and the words of one line.
            let room = 64 * input.len() + 4096;
            match within(room, || parser.next(&mut input)) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(error) => return (requests, Some(error)),
            }
        }
        let held_max = limits().connection_request_bytes_max + limits().value_bytes_max + LINE_BYTES_MAX + 64;
        assert!(input.len() <= held_max, "{} bytes held of a request that has not ended", input.len());
        let wanted = parser.bytes_wanted(&input);
        assert!(wanted <= limits().value_bytes_max + 2, "{wanted} bytes asked for at once");
    }
    (requests, None)
}

fn command(noise: &mut Noise) -> Vec<u8> {
    let words = 1 + noise.below(6);
    if noise.one_in(5) {
        let mut line = Vec::new();
        for _ in 0..words {
            let word: &[u8] =
                noise.pick::<&[u8]>(&[b"SET", b"\"a b\"", b"'it\\'s'", b"\"\\x41\\n\"", b"k", b"  "]);
            line.extend_from_slice(word);
            line.push(b' ');
        }
        line.extend_from_slice(noise.pick::<&[u8]>(&[b"\r\n", b"\n"]));
        return line;
    }
    let mut bytes = format!("*{words}\r\n").into_bytes();
    for _ in 0..words {
        let length = *noise.pick(&[0, 1, 3, 30, 1999, 2000, 2001, 5000]);
        bytes.extend_from_slice(format!("${length}\r\n").as_bytes());
        bytes.extend(noise.bytes(length));
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Small requests that ask for much.
const BOMBS: [&[u8]; 12] = [
    b"*1048576\r\n",
    b"*200\r\n$0\r\n\r\n$0\r\n",
    b"*201\r\n",
    b"*2147483647\r\n$2147483647\r\n",
    b"*-2147483648\r\n",
    b"*3\r\n$536870912\r\n",
    b"*3\r\n$536870913\r\n",
    b"*9223372036854775807\r\n",
    b"*1\r\n$9223372036854775807\r\n",
    b"*1\r\n$-1\r\n",
    b"*0\r\n*0\r\n*-1\r\n",
    b"\r\n\r\n\n\n \n",
];

#[test]
fn any_split_of_any_stream_is_understood_alike_and_in_little_room() {
    fuzz("requests", |noise| {
        let good: Vec<u8> = (0..1 + noise.below(5)).flat_map(|_| command(noise)).collect();
        let mut bytes = match noise.below(4) {
            0 => good,
            _ => {
                let bomb = *noise.pick(&BOMBS);
                damaged(noise, &good, bomb)
            }
        };
        if noise.one_in(6) {
            let at = noise.below(bytes.len());
            let bomb = noise.pick(&BOMBS).repeat(1 + noise.below(3));
            drop(bytes.splice(at..at, bomb));
        }
        if noise.one_in(200) {
            bytes.extend(std::iter::repeat_n(*noise.pick(b"*$1a\" "), LINE_BYTES_MAX + noise.below(9)));
        }
        let authenticated = !noise.one_in(4);
        let whole = parse(&[&bytes], authenticated);
        let mut reads = Vec::new();
        let mut rest = &bytes[..];
        let longest = *noise.pick(&[1, 3, 40, 3000]);
        while !rest.is_empty() {
            let (read, after) = rest.split_at((1 + noise.below(longest)).min(rest.len()));
            reads.push(read);
            rest = after;
        }
        assert_eq!(parse(&reads, authenticated), whole, "{:?}", Bytes::from(bytes));
    });
}

/// The same by trying everything. Exponential: for short patterns only.
fn naive(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => naive(rest, text) || (!text.is_empty() && naive(pattern, &text[1..])),
        ([b'?', pattern @ ..], [_, text @ ..]) => naive(pattern, text),
        ([literal, pattern @ ..], [byte, text @ ..]) => literal == byte && naive(pattern, text),
        _ => false,
    }
}

#[test]
fn arguments_survive_anything() {
    fuzz("patterns, numbers, cursors", |noise| {
        let some = |noise: &mut Noise, from: &[u8]| -> Vec<u8> {
            (0..noise.below(12)).map(|_| *noise.pick(from)).collect()
        };
        let (pattern, text) = (some(noise, b"ab*?"), some(noise, b"ab"));
        assert_eq!(glob::matches(&pattern, &text), naive(&pattern, &text), "{pattern:?} {text:?}");
        let pattern = some(noise, b"a*?[]^-\\b\xff");
        let _ = within(0, || glob::matches(&pattern, &text));

        let number = noise.number().cast_signed().to_string();
        let number = damaged(noise, number.as_bytes(), b"-0");
        if let Some(value) = within(0, || integer(&number)) {
            assert_eq!(value.to_string().as_bytes(), number);
        }
        let words: [&[u8]; 7] = [b"MATCH", b"count", b"NOVALUES", b"*", b"10", b"0", b""];
        let mut words: Vec<Bytes> =
            (0..1 + noise.below(5)).map(|_| Bytes::from_static(noise.pick::<&[u8]>(&words))).collect();
        words[0] = Bytes::from(number);
        if let Ok(scan) = PartScan::parse(&words, noise.one_in(2)) {
            let _ = scan.wants(&text);
        }
    });
}

#[test]
fn files_of_users_survive_anything() {
    let good = "user default off\nuser app on >secret ~app:* +@all -@dangerous\n# about\n\
                user reader on #9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 allkeys +@read +get\n";
    fuzz("files of users", |noise| {
        let text = damaged_text(noise, good, "user x on nopass ~* &* -@ é +é");
        let room = 256 * text.len() + 16_384;
        let Ok(users) = within(room, || acl::parse(&text)) else { return };
        let lines: Vec<String> = users.values().map(|user| user.line()).collect();
        assert_eq!(acl::parse(&lines.join("\n")).unwrap(), users, "what is listed can be read");
    });
}

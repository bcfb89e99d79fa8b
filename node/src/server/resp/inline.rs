//! Inline commands: one line of words, as typed into telnet.

use bytes::Bytes;

/// Splits a line into words with the quoting rules of Redis: `"…"` with `\n`, `\xHH` and the like, `'…'` with `\'`.
/// `None`: the quotes do not balance.
pub(super) fn split_words(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let start = rest.iter().position(|byte| !byte.is_ascii_whitespace());
        let Some(start) = start else { return Some(words) };
        let (word, after) = take_word(&rest[start..])?;
        words.push(Bytes::from(word));
        rest = after;
    }
}

fn take_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    loop {
        match rest {
            [] => return Some((word, rest)),
            [byte, ..] if byte.is_ascii_whitespace() => return Some((word, rest)),
            [quote @ (b'"' | b'\''), after @ ..] => {
                rest = take_quoted(*quote, after, &mut word)?;
                // A closing quote ends the word; what follows without a space is an error, not a longer word.
                return rest.first().is_none_or(u8::is_ascii_whitespace).then_some((word, rest));
            }
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
        }
    }
}

fn take_quoted<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [byte, after @ ..] if *byte == quote => return Some(after),
            [b'\\', b'\'', after @ ..] if quote == b'\'' => {
                word.push(b'\'');
                after
            }
            [b'\\', b'x', high, low, after @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex_digit(*high) << 4 | hex_digit(*low));
                after
            }
            [b'\\', escaped, after @ ..] if quote == b'"' => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
        };
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests {
    use super::split_words;

    fn words(line: &str) -> Option<Vec<String>> {
        let words = split_words(line.as_bytes())?;
        Some(words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect())
    }

    #[test]
    fn words_quotes_and_escapes() {
        assert_eq!(words("  SET  a b "), Some(vec!["SET".into(), "a".into(), "b".into()]));
        assert_eq!(
            words(r#"SET "a b\n\x41\"" 'it\'s' "#),
            Some(vec!["SET".into(), "a b\nA\"".into(), "it's".into()])
        );
        assert_eq!(words(r#"GET """#), Some(vec!["GET".into(), String::new()]));
        assert_eq!(words(r#"GET "a"b"#), None, "a quote is followed by a space");
        assert_eq!(words(r#"GET "a"#), None, "a quote is closed");
        assert_eq!(words(r#"GET "a\"#), None, "an escape does not close a quote");
    }
}

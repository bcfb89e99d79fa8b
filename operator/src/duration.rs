//! Lengths of time as Kubernetes writes them: `90s`, `10m`, `1h30m`.

use std::time::Duration;

/// A text that is no length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time such as 10m or 1h30m")]
pub struct DurationError(pub String);

/// Parses whole hours, minutes and seconds, in any order and each any number of times, as Go does.
///
/// # Errors
/// [`DurationError`] when the text is anything else, or beyond what seconds in 64 bits can count.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    seconds(text).map(Duration::from_secs).ok_or_else(|| DurationError(text.to_owned()))
}

fn seconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = rest.split_at(end);
        let factor = match unit.as_bytes().first()? {
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = &unit[1..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn hours_minutes_and_seconds_add_up() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("1h30m", 5400), ("0s", 0), ("1m1m", 120)] {
            assert_eq!(parse(text).map(|duration| duration.as_secs()), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "10", "m", "-1m", "1.5h", "10ms", "1d", "99999999999999999999s", "9999999999999999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

//! INCR and its forms.

use super::error::CommandError;
use super::parse::integer;
use super::reply::Reply;
use super::store::{ATTEMPTS_MAX, Store};
use crate::coordinator::KeyValue;
use bytes::Bytes;
use dynamo::object::{Change, Condition, Expiry, Outcome};

/// Digits behind the point, as in Redis.
const FRACTION_DIGITS: u32 = 17;

/// `INCR key`, `DECR key`
pub(super) async fn step<K: KeyValue>(store: &Store<'_, K>, key: &Bytes, by: i64) -> Result<Reply, CommandError> {
    Ok(Reply::Integer(store.number(key, Change::Increment { by }).await?))
}

/// `INCRBY key number`
pub(super) async fn incrby<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    step(store, &arguments[1], integer(&arguments[2]).ok_or(CommandError::NotInteger)?).await
}

/// `DECRBY key number`
pub(super) async fn decrby<K: KeyValue>(store: &Store<'_, K>, arguments: &[Bytes]) -> Result<Reply, CommandError> {
    let by = integer(&arguments[2]).ok_or(CommandError::NotInteger)?;
    let by = by.checked_neg().ok_or(CommandError::Fixed("ERR decrement would overflow"))?;
    step(store, &arguments[1], by).await
}

/// `INCRBYFLOAT key number`: read, add, and write if nothing else was written meanwhile.
pub(super) async fn incrbyfloat<K: KeyValue>(
    store: &Store<'_, K>,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let key = &arguments[1];
    for _ in 0..ATTEMPTS_MAX {
        let before = store.string(key).await?;
        let sum = add(before.as_ref().map_or(b"0", |before| &before[..]), &arguments[2], NOT_FLOAT)?;
        if replace(store, key, before, sum.clone()).await? {
            return Ok(Reply::Bulk(sum));
        }
    }
    Err(CommandError::Contended)
}

/// Writes a string if it is still what it was. Whether it was.
pub(super) async fn replace<K: KeyValue>(
    store: &Store<'_, K>,
    key: &Bytes,
    before: Option<Bytes>,
    after: Bytes,
) -> Result<bool, CommandError> {
    let only = before.map_or(Condition::Absent, Condition::Equal);
    let change = Change::Replace { bytes: Some(after), expiry: Expiry::Keep, only, read: false };
    match store.change(key, change).await? {
        Outcome::Replaced { done, .. } => Ok(done),
        _ => Ok(false),
    }
}

/// `HINCRBY key field number`
pub(super) async fn hincrby<K: KeyValue>(
    store: &Store<'_, K>,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let by = integer(&arguments[3]).ok_or(CommandError::NotInteger)?;
    let change = Change::IncrementField { field: arguments[2].clone(), by };
    Ok(Reply::Integer(store.number(&arguments[1], change).await?))
}

/// `HINCRBYFLOAT key field number`
pub(super) async fn hincrbyfloat<K: KeyValue>(
    store: &Store<'_, K>,
    arguments: &[Bytes],
) -> Result<Reply, CommandError> {
    let (key, field) = (&arguments[1], &arguments[2]);
    if !number(&arguments[3]).ok_or(CommandError::Fixed(NOT_FLOAT))?.is_finite() {
        return Err(CommandError::Fixed("ERR value is NaN or Infinity"));
    }
    for _ in 0..ATTEMPTS_MAX {
        let found = store.read(key).await?;
        let expected = found.of_kind(dynamo::object::Kind::Hash)?.and_then(|hash| hash.field(field));
        let before = expected.as_ref().map_or(&b"0"[..], |before| &before[..]);
        let sum = add(before, &arguments[3], "ERR hash value is not a float")?;
        let change = Change::ReplaceField { field: field.clone(), expected, value: sum.clone() };
        if store.number(key, change).await? == 1 {
            return Ok(Reply::Bulk(sum));
        }
    }
    Err(CommandError::Contended)
}

const NOT_FLOAT: &str = "ERR value is not a valid float";

/// The sum as Redis writes it. Redis adds in extended precision and writes 17 digits behind the point; adding in
/// decimals of as many digits comes to the same.
fn add(before: &[u8], by: &[u8], not_float: &'static str) -> Result<Bytes, CommandError> {
    let exact = decimals(before).zip(decimals(by)).and_then(|(before, by)| before.checked_add(by));
    if let Some(sum) = exact {
        return Ok(Bytes::from(written(sum)));
    }
    let before = number(before).ok_or(CommandError::Fixed(not_float))?;
    let by = number(by).ok_or(CommandError::Fixed(NOT_FLOAT))?;
    let sum = before + by;
    if !sum.is_finite() {
        return Err(CommandError::Fixed("ERR increment would produce NaN or Infinity"));
    }
    let text = format!("{sum:.17}");
    Ok(Bytes::from(trimmed(&text).to_owned()))
}

fn number(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: f64 = text.parse().ok()?;
    (!number.is_nan()).then_some(number)
}

/// A plain decimal number in units of its smallest digit.
fn decimals(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (text, exponent) = match text.split_once(['e', 'E']) {
        Some((text, exponent)) => (text, exponent.parse::<i32>().ok().filter(|exponent| exponent.abs() <= 18)?),
        None => (text, 0),
    };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let fraction_digits = u32::try_from(fraction.len()).ok().filter(|&length| length <= FRACTION_DIGITS)?;
    if !plain(whole) || !plain(fraction) || (whole.is_empty() && fraction.is_empty()) || whole.len() > 20 {
        return None;
    }
    let parse = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i128>().ok() };
    let whole = parse(whole)?.checked_mul(10i128.pow(FRACTION_DIGITS))?;
    let fraction = parse(fraction)?.checked_mul(10i128.pow(FRACTION_DIGITS - fraction_digits))?;
    let power = 10i128.pow(exponent.unsigned_abs());
    let number = whole.checked_add(fraction)?;
    let number = if exponent < 0 { number / power } else { number.checked_mul(power)? };
    Some(if negative { -number } else { number })
}

fn written(number: i128) -> String {
    let unit = 10u128.pow(FRACTION_DIGITS);
    let magnitude = number.unsigned_abs();
    let sign = if number < 0 { "-" } else { "" };
    let text = format!("{sign}{}.{:017}", magnitude / unit, magnitude % unit);
    trimmed(&text).to_owned()
}

fn trimmed(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::add;

    #[test]
    fn sums_as_redis_writes_them() {
        for (before, by, sum) in [
            ("10.50", "0.1", "10.6"),
            ("0.1", "0.2", "0.3"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "-3", "0"),
            ("-1.5", "0.25", "-1.25"),
            ("0", "-0.5", "-0.5"),
            ("17179869184", "1.5", "17179869185.5"),
        ] {
            assert_eq!(add(before.as_bytes(), by.as_bytes(), "").unwrap(), sum, "{before} {by}");
        }
        assert!(add(b"abc", b"1", "").is_err() && add(b"1", b"", "").is_err() && add(b" 1", b"1", "").is_err());
    }
}

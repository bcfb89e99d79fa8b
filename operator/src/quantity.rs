//! Sizes as Kubernetes writes them: `10Gi`, `1.5G`, `1e9`, `500m`.

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size such as 10Gi")]
pub struct QuantityError(pub String);

/// The size in bytes, rounded up as Kubernetes does.
///
/// # Errors
/// [`QuantityError`] when the text is no quantity, is negative, or is beyond what Kubernetes can count.
pub fn bytes(text: &str) -> Result<u128, QuantityError> {
    parse(text).ok_or_else(|| QuantityError(text.to_owned()))
}

fn parse(text: &str) -> Option<u128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 24 {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (numerator, denominator) = scale(suffix)?;
    let denominator = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(denominator)?;
    digits.checked_mul(numerator).map(|product| product.div_ceil(denominator))
}

/// What a suffix multiplies by, as a fraction.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    const SMALL: [&str; 3] = ["m", "u", "n"];
    let at = |names: &[&str]| names.iter().position(|name| *name == suffix).and_then(|at| u32::try_from(at).ok());
    if suffix.is_empty() {
        return Some((1, 1));
    }
    if let Some(at) = at(&BINARY) {
        return Some((1024u128.pow(at + 1), 1));
    }
    if let Some(at) = at(&DECIMAL) {
        return Some((1000u128.pow(at + 1), 1));
    }
    if let Some(at) = at(&SMALL) {
        return Some((1, 1000u128.pow(at + 1)));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = 10u128.checked_pow(exponent.unsigned_abs().min(30))?;
    Some(if exponent < 0 { (1, power) } else { (power, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_kubernetes_reads_them() {
        let cases = [
            ("10Gi", 10 << 30),
            ("1G", 1_000_000_000),
            ("1.5Gi", 3 << 29),
            ("1024", 1024),
            ("1e3", 1000),
            ("12E0", 12),
            ("1E", 1_000_000_000_000_000_000),
            ("500m", 1),
            ("0.1k", 100),
            ("+5Mi", 5 << 20),
            (".5Ki", 512),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "Gi", "-1Gi", "1 Gi", "1.2.3", "ten", "1GiB", "1e", ".", "1e99999999999"] {
            assert!(bytes(text).is_err(), "{text:?}");
        }
    }
}

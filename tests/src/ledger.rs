//! What a workload wrote, what was acknowledged, and whether what is read agrees. Pure: told of events, asked for a
//! verdict.

use std::collections::BTreeMap;

/// Versions of the values of one key. A value names its key and version, so that any value read says where it is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Versions {
    /// Highest version that was sent.
    attempted: u64,
    /// Highest version that was acknowledged; zero: none.
    acknowledged: u64,
}

/// Keys of one writer. Each key is written by one writer, one version after the other.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    keys: BTreeMap<String, Versions>,
}

/// What a read says about the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The newest acknowledged version, or a newer one that was sent.
    Good,
    /// Nothing, or an older version than was acknowledged.
    Lost,
    /// A value that was never sent for this key.
    Wrong,
}

/// Counts over all keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Keys with an acknowledged version.
    pub acknowledged: u64,
    /// Keys whose acknowledged version is gone.
    pub lost: u64,
    /// Keys that read a value never sent.
    pub wrong: u64,
}

impl Ledger {
    /// The version to send next for a key; counts as attempted from now on.
    pub fn attempt(&mut self, key: &str) -> u64 {
        let versions = self.keys.entry(key.to_owned()).or_default();
        versions.attempted += 1;
        versions.attempted
    }

    /// The version was acknowledged.
    pub fn acknowledge(&mut self, key: &str, version: u64) {
        let versions = self.keys.entry(key.to_owned()).or_default();
        versions.acknowledged = versions.acknowledged.max(version);
    }

    /// Keys with an acknowledged version.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter(|(_, versions)| versions.acknowledged > 0).map(|(key, _)| key.as_str())
    }

    /// Judges a value read after everything acknowledged so far was acknowledged.
    #[must_use]
    pub fn judge(&self, key: &str, read: Option<&[u8]>) -> Verdict {
        let versions = self.keys.get(key).copied().unwrap_or_default();
        let Some(value) = read else {
            return if versions.acknowledged == 0 { Verdict::Good } else { Verdict::Lost };
        };
        match version_of(key, value) {
            Some(version) if version > versions.attempted || version == 0 => Verdict::Wrong,
            Some(version) if version < versions.acknowledged => Verdict::Lost,
            Some(_) => Verdict::Good,
            None => Verdict::Wrong,
        }
    }

    /// Takes over another ledger's keys.
    pub fn absorb(&mut self, other: Self) {
        self.keys.extend(other.keys);
    }
}

/// A value of `length` bytes for a key and version; every byte depends on both.
#[must_use]
pub fn value(key: &str, version: u64, length: usize) -> Vec<u8> {
    let mut value = format!("{key}#{version}#").into_bytes();
    let mut state = version.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ key.len() as u64;
    for byte in key.bytes() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    while value.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        value.push((state >> 56) as u8);
    }
    value
}

/// The version that a value says it is, if it is exactly what was made for that key and version.
fn version_of(key: &str, read: &[u8]) -> Option<u64> {
    let rest = read.strip_prefix(key.as_bytes())?.strip_prefix(b"#")?;
    let end = rest.iter().position(|&byte| byte == b'#')?;
    let version = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    (value(key, version, read.len()) == read).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_versions_must_be_read_back() {
        let mut ledger = Ledger::default();
        let first = ledger.attempt("k");
        ledger.acknowledge("k", first);
        let second = ledger.attempt("k");
        assert_eq!(ledger.judge("k", Some(&value("k", first, 100))), Verdict::Good);
        assert_eq!(ledger.judge("k", Some(&value("k", second, 100))), Verdict::Good, "sent, not acknowledged");
        ledger.acknowledge("k", second);
        assert_eq!(ledger.judge("k", Some(&value("k", first, 100))), Verdict::Lost);
        assert_eq!(ledger.judge("k", None), Verdict::Lost);
        assert_eq!(ledger.judge("k", Some(&value("k", 3, 100))), Verdict::Wrong, "never sent");
        assert_eq!(ledger.judge("k", Some(&value("j", second, 100))), Verdict::Wrong);
        let mut torn = value("k", second, 100);
        torn[99] ^= 1;
        assert_eq!(ledger.judge("k", Some(&torn)), Verdict::Wrong);
    }
}

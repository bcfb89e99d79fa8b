//! Bugs put in on purpose, so that the simulation can be tested: a checker that has never caught anything proves little.
//!
//! Without the feature `planted`, which nothing that is shipped has, [`is`] is `false` at compile time and leaves no
//! trace in the code.

#[cfg(feature = "planted")]
static BUG: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Puts in the bug of this name, for the rest of the process. Only the first call counts.
#[cfg(feature = "planted")]
pub fn plant(bug: &str) {
    let _ = BUG.set(bug.to_owned());
}

/// Whether the bug of this name was put in.
#[cfg(feature = "planted")]
#[must_use]
pub fn is(bug: &str) -> bool {
    BUG.get().is_some_and(|planted| planted == bug)
}

/// Whether the bug of this name was put in: never.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn is(_bug: &str) -> bool {
    false
}

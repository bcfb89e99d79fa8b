//! The claim against its promises: balance, movement, spacing, and that nothing but the input decides.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed, as it should")]

mod changes;
mod cluster;
mod oracle;
mod rules;
mod walks;

//! The claim against its promises: balance, movement, spacing, and that nothing but the input decides.

mod changes;
mod cluster;
mod oracle;
mod rules;
mod walks;

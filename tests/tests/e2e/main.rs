//! End-to-end tests on a real Kubernetes with the operator installed. `make e2e` brings both up and runs these with
//! `--ignored`; a plain `cargo test` passes them over, since there is nothing to run them on.

mod admission;
mod faults;
mod harness;
mod hosts;
mod lifecycle;
mod operations;
mod replacement;
mod scaling;
mod users;

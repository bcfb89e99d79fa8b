//! The moves as a whole: a cluster of pretended nodes that report in any order, and wishes that change at any moment.
#![allow(clippy::unwrap_used, reason = "tests may panic, in functions that tests share too")]

mod any_change;
mod beside_clients;
mod nodes;
mod splits;
mod stories;

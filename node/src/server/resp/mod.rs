//! The RESP front end: any Redis client, and any Redis Cluster client.
//!
//! One task serves one connection (`pipeline`): it parses requests out of what was read (`parse`), answers what
//! needs no store at once, runs the others side by side as far as their keys allow (`in_flight`), and writes the
//! replies in order. Each family of commands is a file.

mod acl;
mod acl_command;
mod annulus;
mod bitfield;
mod bits;
mod client;
mod client_filter;
mod clients;
mod cluster;
mod command;
mod command_table;
mod config;
mod connection;
mod digest;
mod dispatch;
mod error;
mod error_counts;
#[cfg(test)]
mod fuzz;
mod glob;
mod hashes;
mod help;
mod in_flight;
mod info;
mod inline;
mod key_access;
mod keys;
mod latency;
mod lcs;
mod memory;
mod numbers;
mod object;
mod output;
mod parse;
mod patience;
mod pipeline;
mod reply;
mod scan;
mod server;
mod set;
mod sets;
mod several;
mod slot_keys;
mod slow_log;
mod store;
mod strings;
mod subcommands;
mod ttl;
mod under_way;
mod unsupported;

pub use acl::{AclError, check as check_acl_file};
pub use server::serve;

/// Names of all served commands, in the order of the command table.
pub(super) fn command_names() -> impl Iterator<Item = &'static str> {
    command_table::COMMANDS.iter().map(|spec| spec.name)
}

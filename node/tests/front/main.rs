//! The front ends over a store in memory: what clients send on a socket, and what they get.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bombs;
mod differential;
mod grpc;
mod http;
mod lately;
mod memory;
mod ordering;
mod raw;
mod stock_client;

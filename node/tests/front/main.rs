//! The front ends over a store in memory: what clients send on a socket, and what they get.

mod grpc;
mod http;
mod memory;
mod ordering;
mod raw;
mod stock_client;

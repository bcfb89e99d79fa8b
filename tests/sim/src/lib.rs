//! Deterministic simulation of whole Annulus rings.
//!
//! A seed decides everything: the cluster, the clients' requests, the network's delays and losses, crashes, power
//! losses, clocks, ring changes. The nodes are the real ones, over simulated sockets and disks, in one thread. A run
//! with the same seed is the same run, bit for bit. See `README.md` beside this crate.

pub mod changes;
pub mod check;
pub mod client;
pub mod disk;
pub mod history;
pub mod holdings;
pub mod host;
pub mod links;
pub mod nemesis;
pub mod operator;
pub mod oracle;
pub mod planted;
pub mod resp;
pub mod scenario;
pub mod shared;
pub mod trace;
pub mod wire;
pub mod world;

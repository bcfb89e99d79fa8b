//! A node of an Annulus ring.
//!
//! Requests come in at [`server`], are carried out by the [`coordinator`] on this node's [`replica`] store and, over
//! [`peers`], on those of other members, and end in [`storage`]. [`handoff`] gets data to where the ring of
//! [`ring_state`] says it belongs, and [`repair`] makes replicas equal. [`node::run`] puts it all together.
#![forbid(unsafe_code)]

pub mod beat;
pub mod config;
pub mod control;
pub mod coordinator;
pub mod handoff;
pub mod net;
pub mod node;
pub mod peers;
pub mod planted;
pub mod repair;
pub mod replica;
pub mod ring_state;
pub mod server;
pub mod storage;

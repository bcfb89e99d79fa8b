//! A node of an Annulus ring.
//!
//! Requests come in at [`server`], are carried out by the [`coordinator`] on this node's replica store and on those of its peers,
//! and end in [`storage`].
#![forbid(unsafe_code)]

pub mod config;
pub mod coordinator;
pub mod server;
pub mod storage;

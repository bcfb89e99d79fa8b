//! Carrying out reads and writes on the replicas of a key.

mod api;

pub use api::{
    Causality, KeyValue, Overview, ReadOptions, RequestError, ScanPage, Write, WriteOptions, Written,
};

//! The algorithms of Annulus, pure.
//!
//! A ring of partitions in the manner of Dynamo (`DeCandia` et al., SOSP 2007): tokens and partitions, the
//! preference list of a key, the claim that assigns partitions to members with least movement, the moves that
//! carry a ring from one placement to another, quorum counting, and objects whose concurrent values are kept
//! as siblings. Nothing here does I/O, reads a clock or an environment, or draws a random number: time and
//! randomness are arguments, changes are return values.
#![forbid(unsafe_code)]

pub mod claim;
pub mod collect;
pub mod detector;
pub mod digest;
pub mod hedge;
pub mod hlc;
pub mod moves;
pub mod object;
pub mod preference;
pub mod quorum;
pub mod reconcile;
pub mod ring;
pub mod tail;
pub mod throttle;
pub mod token;

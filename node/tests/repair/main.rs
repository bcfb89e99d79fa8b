//! Anti-entropy among whole nodes over loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]

mod ahead;
mod bulk;
mod cluster;
mod collect;
mod converge;
mod hinted;
mod leaving;
mod quorum;
mod sender;
mod stall;
mod streams;

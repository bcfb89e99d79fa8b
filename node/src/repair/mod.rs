//! Anti-entropy, always on: members that hold the same partitions compare what they have, for a few bytes while they
//! are equal, and merge what differs both ways (Dynamo §4.7). The algorithm is [`dynamo::reconcile`]'s.
//!
//! Of each pair the member with the lower index begins. A round takes one small call while everything is equal. Nothing
//! is remembered between rounds, so one that is cut off is simply tried again, and what it has merged stays.
//!
//! What is dead, deleted or expired, is collected by [`Collector`]: `dynamo::collect` tells how, and why nothing comes
//! back.

mod collect;
mod collect_serve;
mod range;
mod round;
mod serve;
mod session;

pub use collect::{Collector, CollectorView};
pub use collect_serve::collect;
pub use round::{Repair, RepairView};
pub use serve::{items, roots};
pub use session::Found;

//! Getting data to where the ring says it belongs: partitions pulled by new holders, hints delivered, leftovers dropped.

mod compare;
mod fetch;
mod foreground;
mod give_way;
mod hand_over;
mod handed_over;
mod hinted;
mod leftover;
mod pace;
mod packed;
mod pull;
mod record;
mod serve;
mod spool;

pub use fetch::{FetchError, FetchedPage, fetch_digest, fetch_page};
pub use foreground::Foreground;
pub use hinted::Delivery;
pub use leftover::Leftovers;
pub(crate) use leftover::left;
pub use pull::{Pulls, PullsView};
pub use record::MoveRecord;
pub use serve::{digest, page};
pub use spool::{Memory, Spool};

/// Items that are merged or dropped before requests get their turn.
const ITEMS_AT_ONCE: usize = 16;

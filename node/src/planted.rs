//! Bugs put in on purpose, so that the simulation can be tested: a checker that has never caught anything proves little.
//!
//! Without the feature `planted`, which nothing that is shipped has, [`is`] is `false` at compile time and leaves no
//! trace in the code.

use dynamo::object::{Change, Object};

#[cfg(feature = "planted")]
static BUG: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Puts in the bug of this name, for the rest of the process. Only the first call counts.
#[cfg(feature = "planted")]
pub fn plant(bug: &str) {
    let _ = BUG.set(bug.to_owned());
}

/// Whether the bug of this name was put in.
#[cfg(feature = "planted")]
#[must_use]
pub fn is(bug: &str) -> bool {
    BUG.get().is_some_and(|planted| planted == bug)
}

/// Whether the bug of this name was put in: never.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn is(_bug: &str) -> bool {
    false
}

/// What a merge that goes wrong does to what it has merged.
#[cfg(feature = "planted")]
#[must_use]
pub fn after_merge(merged: &Object, mine: &Object, theirs: &Object) -> Option<Change> {
    let number = |object: &Object| {
        let counter = object.visible(0).filter(|_| object.siblings().next().is_none())?;
        std::str::from_utf8(&counter.string()).ok()?.parse::<i64>().ok()
    };
    if is("increments-added-up") {
        // As if all of the other's number were new.
        let (before, by) = (number(mine)?, number(theirs)?);
        return (before != by).then_some(Change::Increment { by });
    }
    if is("removal-wins-by-clock") {
        // What the side that has heard of something later does not have counts as removed there.
        let later = if mine.max_timestamp() > theirs.max_timestamp() { mine } else { theirs };
        let (left, merged) = (later.visible(0)?, merged.visible(0)?);
        let gone: Vec<_> = merged.members().filter(|member| !left.has_member(member)).cloned().collect();
        return (!gone.is_empty()).then_some(Change::RemoveMembers(gone));
    }
    None
}

/// What a merge that goes wrong does to what it has merged: nothing, since none does.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn after_merge(_merged: &Object, _mine: &Object, _theirs: &Object) -> Option<Change> {
    None
}

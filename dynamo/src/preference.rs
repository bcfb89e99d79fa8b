//! Preference lists.
use serde::{Deserialize, Serialize};

/// Index of a member in its ring document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberIndex(pub u16);

impl std::fmt::Display for MemberIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Zone of a member.
pub type Zone = Option<u16>;

/// The walk.
#[must_use]
pub fn preference_list(owners: &[MemberIndex], p: u32, n: usize, _zone_of: &dyn Fn(MemberIndex) -> Zone) -> Vec<MemberIndex> {
    let mut list = Vec::new();
    for step in 0..owners.len() {
        let owner = owners[(p as usize + step) % owners.len()];
        if list.len() < n && !list.contains(&owner) {
            list.push(owner);
        }
    }
    list
}

/// The walk beyond the list.
pub fn fallbacks(owners: &[MemberIndex], p: u32, preference: &[MemberIndex]) -> impl Iterator<Item = MemberIndex> {
    preference_list(owners, p, usize::MAX, &|_| None).into_iter().filter(|index| !preference.contains(index)).collect::<Vec<_>>().into_iter()
}

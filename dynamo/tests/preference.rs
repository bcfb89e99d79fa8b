//! Preference lists and fallbacks against their definition, written out naively.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed, as it should")]

use dynamo::preference::{MemberIndex, Zone, fallbacks, preference_list, preference_lists};
use proptest::prelude::*;

fn members(indices: &[u16]) -> Vec<MemberIndex> {
    indices.iter().copied().map(MemberIndex).collect()
}

fn no_zones(_: MemberIndex) -> Zone {
    None
}

/// One member after the other: of the zones with the fewest members in the list, the nearest new member.
fn naive(owners: &[MemberIndex], p: usize, n: usize, zone_of: &dyn Fn(MemberIndex) -> Zone) -> Vec<MemberIndex> {
    let mut walk: Vec<MemberIndex> = Vec::new();
    for step in 0..owners.len() {
        let owner = owners[(p + step) % owners.len()];
        if !walk.contains(&owner) {
            walk.push(owner);
        }
    }
    let mut list: Vec<MemberIndex> = Vec::new();
    while list.len() < n && list.len() < walk.len() {
        let met = |member: &MemberIndex| {
            list.iter().filter(|other| zone_of(**other).is_some() && zone_of(**other) == zone_of(*member)).count()
        };
        let left: Vec<MemberIndex> = walk.iter().copied().filter(|member| !list.contains(member)).collect();
        let fewest = left.iter().map(met).min().unwrap();
        list.push(left.into_iter().find(|member| met(member) == fewest).unwrap());
    }
    walk.retain(|member| list.contains(member));
    walk
}

#[test]
fn the_ring_of_the_dynamo_paper() {
    // Nodes A…E clockwise. Key K lies between A and B, L between B and C: with n = 3, K is at B, C, D and L at C, D, E.
    let owners = members(&[0, 1, 2, 3, 4]);
    let [between_a_and_b, between_b_and_c] = [1, 2];
    assert_eq!(preference_list(&owners, between_a_and_b, 3, &no_zones), members(&[1, 2, 3]));
    assert_eq!(preference_list(&owners, between_b_and_c, 3, &no_zones), members(&[2, 3, 4]));
    // When B does not answer, the next on K's walk stands in, then the one after it.
    assert!(fallbacks(&owners, 1, &members(&[1, 2, 3])).eq(members(&[4, 0])));
}

#[test]
fn virtual_nodes_of_a_member_already_met_are_skipped() {
    let owners = members(&[0, 0, 1, 0, 1, 2]);
    assert_eq!(preference_list(&owners, 0, 3, &no_zones), members(&[0, 1, 2]));
    assert_eq!(preference_list(&owners, 5, 3, &no_zones), members(&[2, 0, 1]));
}

#[test]
fn zones_are_met_once_before_any_is_met_twice() {
    let owners = members(&[0, 1, 2, 3, 4, 5]);
    let pairs = |member: MemberIndex| Some(member.0 / 2);
    assert_eq!(preference_list(&owners, 0, 3, &pairs), members(&[0, 2, 4]));
    assert_eq!(preference_list(&owners, 1, 3, &pairs), members(&[1, 2, 4]));
    assert_eq!(preference_list(&owners, 0, 4, &pairs), members(&[0, 1, 2, 4]), "three zones, then the nearest");
    let halves = |member: MemberIndex| Some(member.0 / 3);
    assert_eq!(preference_list(&owners, 0, 3, &halves), members(&[0, 1, 3]));
    assert_eq!(preference_list(&owners, 0, 5, &halves), members(&[0, 1, 2, 3, 4]));
}

#[test]
fn a_zone_that_is_exhausted_asks_no_more() {
    let owners = members(&[0, 1, 2, 3]);
    let lone = |member: MemberIndex| Some(u16::from(member.0 == 3));
    assert_eq!(preference_list(&owners, 0, 3, &lone), members(&[0, 1, 3]));
    assert_eq!(preference_list(&owners, 0, 4, &lone), members(&[0, 1, 2, 3]));
}

#[test]
fn nothing_comes_of_nothing() {
    assert!(preference_list(&[], 0, 3, &no_zones).is_empty());
    assert!(preference_lists(&[], 3, &no_zones).is_empty());
    assert!(preference_list(&members(&[0, 1]), 0, 0, &no_zones).is_empty());
    assert_eq!(fallbacks(&[], 7, &[]).count(), 0);
}

prop_compose! {
    /// Owners of up to 64 partitions and a zone, or none, for each of twelve members.
    fn rings()(
        owners in proptest::collection::vec(0_u16..12, 1..64),
        zones in proptest::collection::vec(proptest::option::weighted(0.8, 0_u16..5), 12),
    ) -> (Vec<MemberIndex>, Vec<Zone>) {
        (members(&owners), zones)
    }
}

proptest! {
    #[test]
    fn a_list_is_what_the_definition_says((owners, zones) in rings(), n in 0_usize..9) {
        let zone_of = |member: MemberIndex| zones[usize::from(member.0)];
        let all = preference_lists(&owners, n, &zone_of);
        for (p, list) in all.iter().enumerate() {
            prop_assert_eq!(list, &naive(&owners, p, n, &zone_of));
            prop_assert_eq!(list, &preference_list(&owners, p as u32, n, &zone_of));
            prop_assert_eq!(list, &preference_list(&owners, (p + owners.len()) as u32, n, &zone_of));
            prop_assert!(n == 0 || list[0] == owners[p], "the owner is the head");
        }
    }

    #[test]
    fn a_longer_list_keeps_all_of_a_shorter_one((owners, zones) in rings(), n in 1_usize..8) {
        let zone_of = |member: MemberIndex| zones[usize::from(member.0)];
        let (shorter, longer) =
            (preference_lists(&owners, n, &zone_of), preference_lists(&owners, n + 1, &zone_of));
        for (shorter, longer) in shorter.iter().zip(&longer) {
            prop_assert!(shorter.iter().all(|member| longer.contains(member)));
        }
    }

    #[test]
    fn fallbacks_are_all_the_others_in_the_order_of_the_walk((owners, zones) in rings(), n in 1_usize..5) {
        let zone_of = |member: MemberIndex| zones[usize::from(member.0)];
        for p in 0..owners.len() as u32 {
            let list = preference_list(&owners, p, n, &zone_of);
            let fallbacks: Vec<MemberIndex> = fallbacks(&owners, p, &list).collect();
            let mut everyone = naive(&owners, p as usize, usize::MAX, &no_zones);
            everyone.retain(|member| !list.contains(member));
            prop_assert_eq!(fallbacks, everyone);
        }
    }
}

//! Reconciliation, against sets compared item by item.

#![allow(clippy::unwrap_used, reason = "tests may panic, in functions that tests share too")]

use dynamo::object::{Actor, Context};
use dynamo::preference::MemberIndex;
use dynamo::reconcile::{self, Exchange, LEAVES, exchange, item_hash, leaf, leaf_tokens, short, unmatched};
use dynamo::ring::{Also, Phase, Placement};
use dynamo::token::Token;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

proptest! {
    /// However items come and go, the sums tell whether two sets are the same, leaf by leaf.
    #[test]
    fn sums_differ_exactly_where_sets_do(
        changes in prop::collection::vec((0u64..40, prop::option::of(0u8..3), any::<bool>()), 0..80)
    ) {
        let mut sets = [BTreeMap::new(), BTreeMap::new()];
        let mut sums = [vec![0u64; 8], vec![0u64; 8]];
        for (key, object, second) in changes {
            let at = usize::from(second);
            let token = (key % 8) << 48 | key;
            let storage_key = token.to_be_bytes();
            let hash = |object: Option<u8>| object.map_or(0, |object| item_hash(&storage_key, &[object]));
            let before = match object {
                Some(object) => sets[at].insert(token, object),
                None => sets[at].remove(&token),
            };
            let sum = &mut sums[at][leaf(Token(token))];
            *sum = sum.wrapping_add(hash(object)).wrapping_sub(hash(before));
        }
        for (leaf, sum) in sums[0].iter().enumerate() {
            let (first, last) = leaf_tokens(leaf);
            let of = |set: &BTreeMap<u64, u8>| set.range(first..=last).map(|(k, v)| (*k, *v)).collect::<Vec<_>>();
            prop_assert_eq!(of(&sets[0]) == of(&sets[1]), *sum == sums[1][leaf]);
        }
        let roots = sums.map(reconcile::root);
        prop_assert_eq!(roots[0] == roots[1], sets[0] == sets[1]);
    }

    #[test]
    fn unmatched_items_are_the_difference_of_the_sets(
        first in prop::collection::vec(0u16..50, 0..60), second in prop::collection::vec(0u16..50, 0..60)
    ) {
        let found = unmatched(&first, &second);
        let values = |list: &[u16], at: &[usize]| at.iter().map(|&at| list[at]).collect::<BTreeSet<_>>();
        let set = |list: &[u16]| list.iter().copied().collect::<BTreeSet<_>>();
        prop_assert_eq!(values(&first, &found.first), &set(&first) - &set(&second));
        prop_assert_eq!(values(&second, &found.second), &set(&second) - &set(&first));
    }

    #[test]
    fn who_sends_follows_from_who_has_seen_more(
        ours in prop::collection::btree_map(0u64..3, 0u64..3, 0..4),
        theirs in prop::collection::btree_map(0u64..3, 0u64..3, 0..4),
    ) {
        let context = |seen: &BTreeMap<u64, u64>| -> Context {
            seen.iter().map(|(&incarnation, &counter)| (Actor { incarnation, birth: 1 }, counter)).collect()
        };
        let events = |seen: &BTreeMap<u64, u64>| -> BTreeSet<(u64, u64)> {
            seen.iter().flat_map(|(&actor, &counter)| (1..=counter).map(move |event| (actor, event))).collect()
        };
        let (we, they) = (events(&ours), events(&theirs));
        let wanted = match (we.is_superset(&they), they.is_superset(&we)) {
            (true, false) => Exchange::Send,
            (false, true) => Exchange::Fetch,
            _ => Exchange::Both,
        };
        prop_assert_eq!(exchange(&context(&ours), &context(&theirs)), wanted);
    }
}

#[test]
fn leaves_cover_all_tokens_once() {
    let mut next = Some(0u64);
    for at in 0..LEAVES {
        let (first, last) = leaf_tokens(at);
        assert_eq!(Some(first), next);
        assert_eq!((leaf(Token(first)), leaf(Token(last))), (at, at));
        next = last.checked_add(1);
    }
    assert_eq!(next, None);
}

#[test]
fn what_looks_alike_with_one_salt_does_not_with_the_next() {
    // Two hashes that are alike in short with one salt, found by trying.
    let mut seen = BTreeMap::new();
    let hashes = (0u64..).map(|number| item_hash(&number.to_be_bytes(), b"object"));
    let (one, other) =
        hashes.filter_map(|hash| seen.insert(short(hash, 1), hash).map(|before| (before, hash))).next().unwrap();
    assert_eq!(short(one, 1), short(other, 1));
    let alike = (2..66).filter(|&salt| short(one, salt * 0x9e37) == short(other, salt * 0x9e37)).count();
    assert!(alike < 2, "{alike} of 64 salts do not tell them apart");
}

#[test]
fn a_newcomer_that_is_being_filled_is_not_compared() {
    let list = |members: [u16; 3]| members.map(MemberIndex).to_vec();
    let placement = |phase| Placement {
        preference: list([0, 1, 2]),
        also: Some(Also { list: list([3, 1, 2]), phase }),
        since: 4,
    };
    assert_eq!(reconcile::holders(&placement(Phase::Filling)), list([0, 1, 2]));
    assert_eq!(reconcile::holders(&placement(Phase::Retiring)).len(), 4);
}

/// Bytes to locate differences in a partition of a thousand items: leaves and items' hashes, against what a rateless
/// sketch takes at best (1.35 symbols for each difference, of 8 bytes of sum, 8 of checksum and 1 of count). The
/// sketch wins where little differs, and then there is little to win; and it reads the whole partition.
#[test]
fn leaves_cost_about_what_a_sketch_costs_and_read_less() {
    const ITEMS: usize = 1000;
    const LEAVES_OF_PARTITION: usize = 64;
    for differences in [1usize, 10, 100] {
        let touched: BTreeSet<usize> = (0..differences).map(|item| item * 7919 % LEAVES_OF_PARTITION).collect();
        let items_read = touched.len() * ITEMS / LEAVES_OF_PARTITION;
        let leaves_bytes = LEAVES_OF_PARTITION * 2 + items_read * 2;
        let sketch_bytes = (differences as f64 * 1.35).ceil() as usize * 17;
        println!(
            "{differences} of {ITEMS}: leaves {leaves_bytes} bytes, {items_read} items read; sketch {sketch_bytes} bytes, {ITEMS} items read"
        );
        assert!(leaves_bytes <= 2 * LEAVES_OF_PARTITION + 2 * ITEMS && items_read <= ITEMS);
    }
}

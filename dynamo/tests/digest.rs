//! Range digests and buckets, against keeping all items.

use dynamo::digest::{Buckets, RangeDigest, differing};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Items = BTreeMap<(u64, Vec<u8>), u64>;

fn digest_of<'a>(items: impl Iterator<Item = (&'a (u64, Vec<u8>), &'a u64)>) -> RangeDigest {
    let mut digest = RangeDigest::default();
    for ((token, key), object) in items {
        digest.add(*token, key, *object);
    }
    digest
}

fn digests_of(buckets: &Buckets, items: &Items) -> Vec<RangeDigest> {
    let mut digests = vec![RangeDigest::default(); buckets.fanout()];
    for ((token, key), object) in items {
        digests[buckets.bucket_of(*token)].add(*token, key, *object);
    }
    digests
}

/// Few tokens, keys and objects, so that replicas share items and differ in some.
fn items() -> impl Strategy<Value = Items> {
    let key = prop::collection::vec(0u8..3, 0..3);
    prop::collection::btree_map((100u64..164, key), 0u64..3, 0..20)
}

proptest! {
    #[test]
    fn equal_items_and_only_they_have_equal_digests(a in items(), b in items()) {
        prop_assert_eq!(a == b, digest_of(a.iter()) == digest_of(b.iter()));
        let reversed = digest_of(a.iter().rev());
        prop_assert_eq!(digest_of(a.iter()), reversed);
    }

    #[test]
    fn digests_kept_up_to_date_are_those_of_a_scan(a in items(), b in items()) {
        let mut kept = digest_of(a.iter());
        for ((token, key), object) in &b {
            if let Some(before) = a.get(&(*token, key.clone())) {
                kept.remove(*token, key, *before);
            }
            kept.add(*token, key, *object);
        }
        let both: Items = a.iter().chain(&b).map(|(key, object)| (key.clone(), *object)).collect();
        prop_assert_eq!(kept, digest_of(both.iter()));
        let (low, high): (Items, Items) = both.clone().into_iter().partition(|((token, _), _)| *token < 130);
        prop_assert_eq!(digest_of(low.iter()).combine(digest_of(high.iter())), kept);
    }

    /// Exactly the buckets with a difference are named, and each contains it.
    #[test]
    fn differing_buckets_are_those_with_differing_items(a in items(), b in items(), bits in 0u32..6) {
        let buckets = Buckets::new(100, 163, 1 << bits).unwrap();
        let found = differing(&digests_of(&buckets, &a), &digests_of(&buckets, &b));
        let within = |items: &Items, bucket| -> Items {
            let (first, last) = buckets.bucket_range(bucket);
            let items = items.iter().filter(|((token, _), _)| (first..=last).contains(token));
            items.map(|(key, object)| (key.clone(), *object)).collect()
        };
        let expected: Vec<usize> =
            (0..buckets.fanout()).filter(|&bucket| within(&a, bucket) != within(&b, bucket)).collect();
        prop_assert_eq!(found, expected);
    }

    /// Any range splits into non-empty buckets of almost equal width, without gap or overlap.
    #[test]
    fn buckets_tile_their_range(ends in (any::<u64>(), any::<u64>()), small in any::<bool>(), bits in 0u32..11) {
        let first = ends.0;
        let last = if small { first.saturating_add(ends.1 % 5000) } else { ends.1 };
        let fanout = 1usize << bits;
        let tokens = u128::from(last) + 1;
        let splits = first <= last && tokens - u128::from(first) >= fanout as u128;
        let buckets = Buckets::new(first, last, fanout);
        prop_assert_eq!(buckets.is_some(), splits);
        let Some(buckets) = buckets else { return Ok(()) };
        let ranges: Vec<_> = (0..fanout).map(|bucket| buckets.bucket_range(bucket)).collect();
        prop_assert_eq!((ranges[0].0, ranges[fanout - 1].1), (first, last));
        for pair in ranges.windows(2) {
            prop_assert_eq!(u128::from(pair[0].1) + 1, u128::from(pair[1].0));
        }
        let widths = || ranges.iter().map(|(first, last)| last - first);
        prop_assert!(widths().max().unwrap() - widths().min().unwrap() <= 1);
        for (bucket, (first, last)) in ranges.into_iter().enumerate() {
            prop_assert!(first <= last);
            prop_assert_eq!((buckets.bucket_of(first), buckets.bucket_of(last)), (bucket, bucket));
        }
    }
}

#[test]
fn the_whole_ring_splits_by_the_top_bits() {
    let buckets = Buckets::new(0, u64::MAX, 16).unwrap();
    assert_eq!(buckets.bucket_of(0xafff_ffff_ffff_ffff), 0xa);
    assert_eq!(buckets.bucket_range(0xa), (0xa << 60, 0xafff_ffff_ffff_ffff));
}

#[test]
fn what_cannot_be_split_is_refused_and_what_is_outside_goes_to_the_ends() {
    assert_eq!(Buckets::new(5, 4, 1), None);
    assert_eq!(Buckets::new(0, 99, 3), None);
    assert_eq!(Buckets::new(0, 99, 0), None);
    assert_eq!(Buckets::new(0, 14, 16), None);
    let buckets = Buckets::new(16, 31, 16).unwrap();
    assert_eq!((buckets.bucket_of(0), buckets.bucket_of(20), buckets.bucket_of(99)), (0, 4, 15));
    assert_eq!(buckets.bucket_range(usize::MAX), (31, 31));
}

#[test]
fn a_replica_that_reports_fewer_buckets_lacks_the_rest() {
    let mut item = RangeDigest::default();
    item.add(1, b"key", 2);
    assert_eq!(differing(&[item, RangeDigest::default(), item], &[item]), [2]);
    assert_eq!(differing(&[], &[item]), [0]);
}

/// Digests are compared between nodes of different releases.
#[test]
fn the_digest_is_this() {
    let mut digest = RangeDigest::default();
    digest.add(0x0102_0304_0506_0708, b"key", 0x1112_1314_1516_1718);
    assert_eq!(digest, RangeDigest { count: 1, sum: 131_175_948_039_763_424_230_155_050_359_161_140_772 });
}

//! Tokens against published vectors and against the definitions, written out naively.

use dynamo::token::{
    HashKey, PartitionCount, PartitionCountError, SLOTS, Token, first_token, last_token, partition, slot,
};
use proptest::prelude::*;

/// Outputs of SipHash-1-3 for the messages "", 00, 00 01, 00 01 02 … under the reference key, as in the tests of the
/// Rust standard library, whose hasher this is.
const SIPHASH_1_3: [u64; 64] = [
    0xabac_0158_050f_c4dc,
    0xc9f4_9bf3_7d57_ca93,
    0x82cb_9b02_4dc7_d44d,
    0x8bf8_0ab8_e7dd_f7fb,
    0xcf75_5760_88d3_8328,
    0xdef9_d52f_4953_3b67,
    0xc50d_2b50_c59f_22a7,
    0xd392_7d98_9bb1_1140,
    0x3690_9511_8d29_9a8e,
    0x25a4_8eb3_6c06_3de4,
    0x79de_85ee_92ff_097f,
    0x70c1_18c1_f94d_c352,
    0x78a3_84b1_57b4_d9a2,
    0x306f_760c_1229_ffa7,
    0x605a_a111_c0f9_5d34,
    0xd320_d86d_2a51_9956,
    0xcc4f_dd1a_7d90_8b66,
    0x9cf2_6890_63db_d80c,
    0x8ffc_389c_b473_e63e,
    0xf21f_9de5_8d29_7d1c,
    0xc0dc_2f46_a6cc_e040,
    0xb992_abfe_2b45_f844,
    0x7ffe_7b9b_a320_872e,
    0x525a_0e7f_dae6_c123,
    0xf464_aeb2_6734_9c8c,
    0x45cd_5928_705b_0979,
    0x3a3e_35e3_ca99_13a5,
    0xa91d_c74e_4ade_3b35,
    0xfb0b_ed02_ef6c_d00d,
    0x88d9_3cb4_4ab1_e1f4,
    0x540f_11d6_43c5_e663,
    0x2370_dd1f_8c21_d1bc,
    0x8115_7b6c_16a7_b60d,
    0x4d54_b9e5_7a8f_f9bf,
    0x759f_1278_1f2a_753e,
    0xcea1_a3be_bf18_6b91,
    0x2cf5_08d3_ada2_6206,
    0xb610_1c2d_a3c3_3057,
    0xb3f4_7496_ae3a_36a1,
    0x626b_5754_7b10_8392,
    0xc1d2_3632_99e4_1531,
    0x667c_c192_3f1a_d944,
    0x6570_4ffe_c813_8825,
    0x24f2_80d1_c289_49a6,
    0xc2ca_1ced_faf8_876b,
    0xc216_4bfc_9f04_2196,
    0xa16e_9c93_68b1_d623,
    0x49fb_169c_8b51_14fd,
    0x9f31_43f8_df07_4c46,
    0xc6fd_af24_12cc_86b3,
    0x7eaf_49d1_0a52_098f,
    0x1cf3_1355_9d29_2f9a,
    0xc44a_30dd_a2f4_1f12,
    0x36fa_e989_43a7_1ed0,
    0x318f_b34c_73f0_bce6,
    0xa27a_bf36_70a7_e980,
    0xb4bc_c0db_243c_6d75,
    0x23f8_d852_fdb7_1513,
    0x8f03_5f4d_a67d_8a08,
    0xd89c_d0e5_b7e8_f148,
    0xf6f4_e6bc_f7a6_44ee,
    0xaec5_9ad8_0f18_37f2,
    0xc3b2_f615_4b66_94e0,
    0x9d19_9062_b7bb_b3a8,
];

/// CRC16/XMODEM, bit by bit.
fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0_u16;
    for &byte in bytes {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        }
    }
    crc
}

/// The key of the reference vectors of `SipHash`: bytes 0 to 15.
fn reference_key() -> HashKey {
    HashKey(std::array::from_fn(|at| at as u8))
}

#[test]
fn slots_are_those_that_redis_publishes() {
    // The check value of the Redis Cluster specification, and slots that its CLUSTER KEYSLOT examples show.
    assert_eq!(slot(b"123456789"), 0x31C3);
    assert_eq!(slot(b"foo"), 12182);
    assert_eq!(slot(b"somekey"), 11058);
    assert_eq!(slot(b"foo{hash_tag}"), 2515);
    assert_eq!(slot(b"bar{hash_tag}"), 2515);
    assert_eq!(slot(b""), 0);
}

#[test]
fn hash_tags_are_those_of_the_redis_specification() {
    assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
    assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
    assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS, "an empty tag does not count");
    assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"), "the tag ends at the first closing brace");
    assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"), "only the first tag counts");
    assert_eq!(slot(b"foo{bar"), crc16(b"foo{bar") % SLOTS, "an open brace alone is no tag");
    assert_eq!(slot(b"foo}bar{"), crc16(b"foo}bar{") % SLOTS);
    assert_eq!(slot(b"a}{b}"), slot(b"b"), "a closing brace before the tag does not matter");
}

#[test]
fn the_low_bits_of_a_token_are_siphash_1_3() {
    let low = (1_u64 << 50) - 1;
    for (length, output) in SIPHASH_1_3.into_iter().enumerate() {
        let message: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
        let token = Token::of(&reference_key(), &message);
        assert_eq!(token.0 & low, output & low, "of {length} bytes");
        assert_eq!(token.slot(), slot(&message));
    }
}

#[test]
fn keys_with_one_tag_share_a_slot_and_are_spread_in_it() {
    let [a, b] = [b"{user}.a", b"{user}.b"].map(|key| Token::of(&reference_key(), key));
    assert_eq!(a.slot(), b.slot());
    assert_ne!(a, b);
}

#[test]
fn a_partition_count_is_a_power_of_two_in_bounds() {
    for count in [16, 32, 1024, 16384] {
        assert_eq!(PartitionCount::new(count).map(PartitionCount::get), Ok(count));
    }
    for count in [0, 1, 8, 15, 17, 1000, 32768, u32::MAX] {
        assert_eq!(PartitionCount::new(count), Err(PartitionCountError(count)));
    }
}

#[test]
fn a_hash_key_is_written_as_hexadecimal_digits() {
    let text = "\"000102030405060708090a0b0c0d0e0f\"";
    assert_eq!(serde_json::to_string(&reference_key()).unwrap(), text);
    assert_eq!(serde_json::from_str::<HashKey>(text).unwrap(), reference_key());
    assert_eq!(serde_json::from_str::<HashKey>(&text.to_uppercase()).unwrap(), reference_key());
    for wrong in ["", "00", "000102030405060708090a0b0c0d0e0g", "000102030405060708090a0b0c0d0e0f00"] {
        assert!(wrong.parse::<HashKey>().is_err(), "{wrong:?}");
    }
    assert_eq!(format!("{:?}", reference_key()), "HashKey(..)", "logs do not show it");
}

proptest! {
    #[test]
    fn a_slot_is_the_checksum_of_the_tag_or_the_key(key in proptest::collection::vec(any::<u8>(), 0..40)) {
        let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
            let length = key[open + 1..].iter().position(|&byte| byte == b'}')?;
            (length > 0).then(|| key[open + 1..open + 1 + length].to_vec())
        });
        prop_assert_eq!(slot(&key), crc16(&tag.unwrap_or(key)) % SLOTS);
    }

    #[test]
    fn a_tag_decides_alone(
        before in "[a-z]{0,8}", tag in "[a-z{]{1,8}", after in "[a-z{}]{0,8}"
    ) {
        prop_assert_eq!(slot(format!("{before}{{{tag}}}{after}").as_bytes()), slot(tag.as_bytes()));
    }

    #[test]
    fn partitions_are_equal_arcs_without_gaps(token in any::<u64>(), bits in 4_u32..=14) {
        let count = PartitionCount::new(1 << bits).unwrap();
        let p = partition(Token(token), count);
        prop_assert!(p < count.get());
        prop_assert!((first_token(p, count)..=last_token(p, count)).contains(&Token(token)));
        prop_assert_eq!(last_token(p, count).0 - first_token(p, count).0, u64::MAX >> bits);
        let next = (p + 1) % count.get();
        prop_assert_eq!(last_token(p, count).0.wrapping_add(1), first_token(next, count).0);
    }

    #[test]
    fn a_slot_lies_in_one_partition(key in any::<Vec<u8>>(), bits in 4_u32..=14) {
        let count = PartitionCount::new(1 << bits).unwrap();
        let token = Token::of(&reference_key(), &key);
        prop_assert_eq!(partition(token, count), u32::from(slot(&key)) >> (14 - bits));
    }
}

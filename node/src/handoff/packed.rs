//! Items of a page side by side in one buffer: a page of a mebibyte is one allocation and one checksum at each end, where
//! a message for each item would cost more than sending it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before the key of an item: the lengths of key and object.
const LENGTHS_BYTES: usize = 8;

/// Items on their way into a buffer.
pub(super) struct Packer {
    packed: BytesMut,
    items: usize,
}

impl Packer {
    /// `bytes`: about so many are to come.
    pub(super) fn new(bytes: usize) -> Self {
        Self { packed: BytesMut::with_capacity(bytes), items: 0 }
    }

    /// Adds an item. Neither part has 4 GiB.
    pub(super) fn push(&mut self, key: &[u8], object: &[u8]) {
        for part in [key, object] {
            self.packed.put_u32_le(u32::try_from(part.len()).unwrap_or(u32::MAX));
        }
        self.packed.put_slice(key);
        self.packed.put_slice(object);
        self.items += 1;
    }

    pub(super) fn items(&self) -> usize {
        self.items
    }

    /// Bytes of all keys and objects.
    pub(super) fn bytes(&self) -> usize {
        self.packed.len() - self.items * LENGTHS_BYTES
    }

    /// The buffer and its CRC-32.
    pub(super) fn finish(self) -> (Bytes, u32) {
        let checksum = crc32fast::hash(&self.packed);
        (self.packed.freeze(), checksum)
    }
}

/// Takes items apart, as slices of the buffer; `None`: it is not made of whole items, or has another checksum.
pub(super) fn unpack(mut packed: Bytes, checksum: u32) -> Option<Vec<(Bytes, Bytes)>> {
    if crc32fast::hash(&packed) != checksum {
        return None;
    }
    let mut items = Vec::new();
    while !packed.is_empty() {
        let (key, object) = (packed.try_get_u32_le().ok()? as usize, packed.try_get_u32_le().ok()? as usize);
        if key.checked_add(object)? > packed.len() {
            return None;
        }
        items.push((packed.split_to(key), packed.split_to(object)));
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use annulus_fuzz::{damaged, fuzz, within};
    use proptest::prelude::*;

    fn pack(items: &[(Vec<u8>, Vec<u8>)]) -> (Bytes, u32) {
        let mut packer = Packer::new(16);
        items.iter().for_each(|(key, object)| packer.push(key, object));
        assert_eq!(packer.items(), items.len());
        assert_eq!(packer.bytes(), items.iter().map(|(key, object)| key.len() + object.len()).sum::<usize>());
        packer.finish()
    }

    proptest! {
        #[test]
        fn items_come_out_as_they_went_in(items: Vec<(Vec<u8>, Vec<u8>)>) {
            let (packed, checksum) = pack(&items);
            let unpacked = unpack(packed, checksum).unwrap().into_iter();
            let unpacked: Vec<_> = unpacked.map(|(key, object)| (key.to_vec(), object.to_vec())).collect();
            prop_assert_eq!(unpacked, items);
        }

        #[test]
        fn what_was_cut_off_or_changed_is_not_taken(item: (Vec<u8>, Vec<u8>), at: prop::sample::Index, bit in 0..8u32) {
            let (packed, checksum) = pack(&[item]);
            let at = at.index(packed.len());
            let mut changed = packed.to_vec();
            changed[at] ^= 1u8 << bit;
            prop_assert!(unpack(changed.into(), checksum).is_none());
            let cut = packed.slice(..at);
            let checksum = crc32fast::hash(&cut);
            prop_assert!(at == 0 || unpack(cut, checksum).is_none(), "even if it has a checksum of its own");
        }
    }

    #[test]
    fn pages_survive_anything() {
        fuzz("pages of a partition", |noise| {
            let item = |noise: &mut annulus_fuzz::Noise| (noise.bytes(9), noise.bytes(100));
            let (good, _) = pack(&[item(noise), item(noise), item(noise)]);
            let bytes = Bytes::from(damaged(noise, &good, &good[..20]));
            let checksum = crc32fast::hash(&bytes);
            // An item without key and object has 8 bytes, and two handles.
            if let Some(items) = within(1024 + 32 * bytes.len(), || unpack(bytes.clone(), checksum)) {
                let items: Vec<_> =
                    items.into_iter().map(|(key, object)| (key.to_vec(), object.to_vec())).collect();
                assert_eq!(pack(&items).0, bytes);
            }
        });
    }
}

//! A page as it is written aside.

use crate::handoff::packed::unpack;
use crate::handoff::record::MoveRecord;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

const VERSION: u8 = 1;

/// Whose pages, and of which start of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub boot: Uuid,
    pub incarnation: Uuid,
}

/// A page that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::handoff) struct SpooledPage {
    /// The move that it is part of.
    pub record: MoveRecord,
    /// Low half of the incarnation that it was copied from.
    pub source: u64,
    /// Storage key of the last item before it.
    pub before: Bytes,
    /// Its items side by side, as they were sent.
    pub packed: Bytes,
    /// Their CRC-32.
    pub checksum: u32,
}

/// Keys and objects of a page.
pub(in crate::handoff) type Items = Vec<(Bytes, Bytes)>;

impl SpooledPage {
    /// What is written before the items; `None`: they are too many.
    pub(super) fn header(&self, mark: Mark) -> Option<Bytes> {
        let mut header = BytesMut::with_capacity(80 + self.before.len());
        header.put_u8(VERSION);
        header.put_slice(mark.boot.as_bytes());
        header.put_slice(mark.incarnation.as_bytes());
        header.put_u32_le(self.record.partition);
        header.put_u64_le(self.record.since);
        header.put_u64_le(self.source);
        header.put_u32_le(u32::try_from(self.before.len()).ok()?);
        header.put_slice(&self.before);
        header.put_u32_le(u32::try_from(self.packed.len()).ok()?);
        header.put_u32_le(self.checksum);
        header.put_u32_le(crc32fast::hash(&header));
        Some(header.freeze())
    }

    /// Reads a page and takes it apart; `None`: it is another's, or not whole. There may be anything behind it.
    pub(super) fn parse(mark: Mark, bytes: Bytes) -> Option<(Self, Items)> {
        let mut rest = bytes.clone();
        let uuid = |rest: &mut Bytes| rest.try_get_u128().ok().map(Uuid::from_u128);
        if rest.try_get_u8().ok()? != VERSION
            || (uuid(&mut rest)?, uuid(&mut rest)?) != (mark.boot, mark.incarnation)
        {
            return None;
        }
        let record = MoveRecord { partition: rest.try_get_u32_le().ok()?, since: rest.try_get_u64_le().ok()? };
        let source = rest.try_get_u64_le().ok()?;
        let before = split(&mut rest)?;
        let (packed_len, checksum) = (rest.try_get_u32_le().ok()? as usize, rest.try_get_u32_le().ok()?);
        let header = &bytes[..bytes.len() - rest.len()];
        if rest.try_get_u32_le().ok()? != crc32fast::hash(header) || rest.len() < packed_len {
            return None;
        }
        let packed = rest.split_to(packed_len);
        let items = unpack(packed.clone(), checksum)?;
        Some((Self { record, source, before, packed, checksum }, items))
    }
}

fn split(rest: &mut Bytes) -> Option<Bytes> {
    let len = rest.try_get_u32_le().ok()? as usize;
    (len <= rest.len()).then(|| rest.split_to(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::packed::Packer;
    use annulus_fuzz::{damaged, fuzz, within};

    #[test]
    fn pages_written_aside_survive_anything() {
        fuzz("pages written aside", |noise| {
            let mut packer = Packer::new(64);
            packer.push(&noise.bytes(9), &noise.bytes(100));
            let (packed, checksum) = packer.finish();
            let record = MoveRecord { partition: noise.number() as u32, since: noise.number() };
            let page =
                SpooledPage { record, source: noise.number(), before: noise.bytes(20).into(), packed, checksum };
            let mark = Mark { boot: Uuid::from_u128(1), incarnation: Uuid::from_u128(2) };
            let good = [&page.header(mark).unwrap()[..], &page.packed[..]].concat();
            let parse = |mark, bytes: Bytes| SpooledPage::parse(mark, bytes).map(|(page, _)| page);
            assert_eq!(parse(mark, good.clone().into()).as_ref(), Some(&page));
            assert!(parse(Mark { incarnation: Uuid::nil(), ..mark }, good.clone().into()).is_none());
            let bytes = Bytes::from(damaged(noise, &good, &good[..20]));
            let parsed = within(1024 + 32 * bytes.len(), || parse(mark, bytes.clone()));
            assert!(parsed.is_none_or(|parsed| parsed == page), "a checksum covers every byte");
        });
    }
}

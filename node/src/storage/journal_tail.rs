//! Opening after a power loss in the midst of a commit.
//!
//! The pages of an unfinished journal write reach the disk in any order, so the last batch may have its beginning and
//! its end but a hole within. fjall drops a batch without an end, but takes one whose checksum is wrong for damage and
//! refuses to open, for it cannot know that each batch is on disk before the next one is written, so that only the last
//! one can be unfinished. The committer's can: every commit ends with a flush. So the last batch is taken off and the
//! engine opened again; if that was not it, the batch is put back and the damage reported.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The last batch of a journal, taken off.
pub(super) struct LastBatch {
    journal: PathBuf,
    kept: PathBuf,
    start: u64,
    journal_bytes: u64,
}

impl LastBatch {
    /// Takes the last batch off the newest journal and keeps it in a file beside. `None`: there is no batch.
    pub(super) fn take_off(directory: &Path) -> io::Result<Option<Self>> {
        let Some(journal) = newest_journal(directory)? else { return Ok(None) };
        let Some((start, end)) = find_last_batch(&journal)? else { return Ok(None) };
        let mut file = OpenOptions::new().read(true).write(true).open(&journal)?;
        let journal_bytes = file.metadata()?.len();
        let kept = journal.with_extension("unfinished");
        file.seek(SeekFrom::Start(start))?;
        let mut copy = File::create(&kept)?;
        io::copy(&mut (&file).take(end - start), &mut copy)?;
        copy.sync_all()?;
        file.set_len(start)?;
        file.sync_all()?;
        Ok(Some(Self { journal, kept, start, journal_bytes }))
    }

    /// Bytes of the journal before it.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Puts it back: the journal is as it was.
    pub(super) fn put_back(self) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(&self.journal)?;
        file.seek(SeekFrom::Start(self.start))?;
        io::copy(&mut File::open(&self.kept)?, &mut file)?;
        file.set_len(self.journal_bytes)?;
        file.sync_all()?;
        fs::remove_file(&self.kept)
    }

    /// Forgets it.
    pub(super) fn discard(self) -> io::Result<()> {
        fs::remove_file(&self.kept)
    }
}

fn newest_journal(directory: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "jnl") {
            continue;
        }
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let Some(number) = number
            && newest.as_ref().is_none_or(|(other, _)| number > *other)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// Where the last batch lies, if it has both a beginning and an end and nothing has been written behind it: what was begun
/// after it says that it was flushed, so that a hole in it is damage. Reads the format of fjall 3's journal: entries of one
/// tag byte and fixed fields, little endian, items with their key and value behind.
fn find_last_batch(journal: &Path) -> io::Result<Option<(u64, u64)>> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(journal)?);
    let (mut at, mut start, mut last) = (0, None, None);
    loop {
        match (read_entry(&mut reader)?, start) {
            (Some(entry @ Entry::Start), _) => {
                start = Some(at);
                at += entry.len();
            }
            (Some(entry @ Entry::Content(_)), _) => at += entry.len(),
            (Some(entry @ Entry::End), Some(start)) => {
                at += entry.len();
                last = Some((start, at));
            }
            (Some(Entry::End), None) | (None, _) => break,
        }
    }
    let Some((_, end)) = last else { return Ok(None) };
    reader.seek(SeekFrom::Start(end))?;
    Ok(if only_zeros(&mut reader)? { last } else { None })
}

/// Whether there is nothing but room made in advance.
fn only_zeros(reader: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(true);
        }
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        let length = bytes.len();
        reader.consume(length);
    }
}

enum Entry {
    Start,
    /// An item or a marker, of so many bytes.
    Content(u64),
    End,
}

impl Entry {
    fn len(&self) -> u64 {
        match self {
            Self::Start => 1 + 4 + 8,
            Self::Content(bytes) => *bytes,
            Self::End => 1 + 8 + 4,
        }
    }
}

/// The next entry; `None` where there is none that makes sense, as behind the last batch.
fn read_entry(reader: &mut (impl Read + Seek)) -> io::Result<Option<Entry>> {
    let Some([tag]) = read_array::<1>(reader)? else { return Ok(None) };
    Ok(match tag {
        1 => read_array::<12>(reader)?.map(|_| Entry::Start),
        2 => {
            // Type, compression, keyspace, length of the key, of the value, and of the value as written.
            let Some(header) = read_array::<20>(reader)? else { return Ok(None) };
            let key_bytes = u64::from(u16::from_le_bytes([header[10], header[11]]));
            let value_bytes = u64::from(u32::from_le_bytes([header[16], header[17], header[18], header[19]]));
            io::copy(&mut reader.take(key_bytes + value_bytes), &mut io::sink())?;
            Some(Entry::Content(1 + 20 + key_bytes + value_bytes))
        }
        3 => read_array::<12>(reader)?.filter(|end| end[8..] == *b"FJL\x03").map(|_| Entry::End),
        4 => read_array::<8>(reader)?.map(|_| Entry::Content(1 + 8)),
        _ => None,
    })
}

fn read_array<const N: usize>(reader: &mut impl Read) -> io::Result<Option<[u8; N]>> {
    let mut array = [0; N];
    match reader.read_exact(&mut array) {
        Ok(()) => Ok(Some(array)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Change, Engine, EngineError, FjallEngine, FjallOptions, Space};
    use bytes::Bytes;

    /// Three commits of two values each, 10,000 bytes of their number.
    fn store(place: &Path) -> PathBuf {
        let engine = FjallEngine::open(place, &FjallOptions::default()).unwrap();
        for number in 1..=3 {
            let put = |space| Change::Put {
                space,
                key: Bytes::from(vec![number]),
                value: Bytes::from(vec![number; 10_000]),
            };
            engine.commit(&[put(Space::Data), put(Space::Hints)]).unwrap();
        }
        drop(engine);
        newest_journal(place).unwrap().unwrap()
    }

    /// Makes a hole of a page in the values of a commit, as if the page had not reached the disk.
    fn make_hole(journal: &Path, number: u8) {
        let mut bytes = fs::read(journal).unwrap();
        let value = bytes.windows(10_000).rposition(|window| window.iter().all(|&byte| byte == number)).unwrap();
        bytes[value + 3000..value + 7096].fill(0);
        fs::write(journal, bytes).unwrap();
    }

    fn stored(engine: &FjallEngine) -> Vec<(Space, u8)> {
        let numbers = (1..=3).flat_map(|number| [Space::Data, Space::Hints].map(|space| (space, number)));
        numbers
            .filter(|(space, number)| {
                let value = engine.get(*space, &[*number]).unwrap();
                value.is_some_and(|value| value == vec![*number; 10_000])
            })
            .collect()
    }

    #[test]
    fn a_last_commit_with_a_hole_is_dropped_whole_and_the_rest_is_there() {
        let place = tempfile::tempdir().unwrap();
        let journal = store(place.path());
        make_hole(&journal, 3);
        let engine = FjallEngine::open(place.path(), &FjallOptions::default()).unwrap();
        let kept = [(Space::Data, 1), (Space::Hints, 1), (Space::Data, 2), (Space::Hints, 2)];
        assert_eq!(stored(&engine), kept);
        assert_eq!(engine.get(Space::Data, &[3]).unwrap(), None);
        let put = Change::Put { space: Space::Data, key: Bytes::from_static(b"new"), value: Bytes::new() };
        engine.commit(&[put]).unwrap();
        drop(engine);
        let engine = FjallEngine::open(place.path(), &FjallOptions::default()).unwrap();
        assert_eq!(stored(&engine), kept);
        assert!(engine.get(Space::Data, b"new").unwrap().is_some());
    }

    #[test]
    fn a_last_commit_cut_off_anywhere_is_dropped_whole() {
        let place = tempfile::tempdir().unwrap();
        let journal = store(place.path());
        let (start, end) = find_last_batch(&journal).unwrap().unwrap();
        let whole = fs::read(&journal).unwrap();
        for length in [start + 1, start + 13, start + 20, start + 5000, end - 20, end - 1] {
            for zeros in [0, 100_000] {
                let mut torn = whole[..length as usize].to_vec();
                torn.resize(torn.len() + zeros, 0);
                fs::write(&journal, torn).unwrap();
                let engine = FjallEngine::open(place.path(), &FjallOptions::default()).unwrap();
                assert_eq!(stored(&engine).len(), 4, "cut off at {length}, {zeros} zeros behind");
            }
        }
    }

    #[test]
    fn damage_before_the_last_commit_is_reported_and_nothing_is_cut_off() {
        let place = tempfile::tempdir().unwrap();
        let journal = store(place.path());
        let sound = fs::read(&journal).unwrap();
        make_hole(&journal, 2);
        let damaged = fs::read(&journal).unwrap();
        let refused = FjallEngine::open(place.path(), &FjallOptions::default()).map(|_| ());
        assert!(matches!(refused, Err(EngineError::Open { .. })), "{refused:?}");
        assert!(fs::read(&journal).unwrap() == damaged, "the journal was changed");
        fs::write(&journal, sound).unwrap();
        let engine = FjallEngine::open(place.path(), &FjallOptions::default()).unwrap();
        assert_eq!(stored(&engine).len(), 6);
    }

    #[test]
    fn damage_in_a_commit_that_another_has_followed_is_reported_even_when_that_was_cut_off() {
        let place = tempfile::tempdir().unwrap();
        let journal = store(place.path());
        let (start, _) = find_last_batch(&journal).unwrap().unwrap();
        make_hole(&journal, 2);
        let mut bytes = fs::read(&journal).unwrap();
        bytes.truncate(usize::try_from(start).unwrap() + 5000);
        fs::write(&journal, &bytes).unwrap();
        let refused = FjallEngine::open(place.path(), &FjallOptions::default()).map(|_| ());
        assert!(matches!(refused, Err(EngineError::Open { .. })), "{refused:?}");
        assert!(fs::read(&journal).unwrap() == bytes, "the journal was changed");
    }

    /// Whatever a journal holds, the batch found lies within it, and taking it off and putting it back changes nothing.
    #[test]
    fn any_journal_is_searched_without_harm() {
        let place = tempfile::tempdir().unwrap();
        let journal = store(place.path());
        let sound = fs::read(&journal).unwrap();
        let (_, end) = find_last_batch(&journal).unwrap().unwrap();
        // Without the values, so that it is the headers that are damaged.
        let end = usize::try_from(end).unwrap();
        let lean: Vec<u8> = sound[..end].iter().copied().filter(|byte| ![1, 2, 3].contains(byte)).collect();
        annulus_fuzz::fuzz("journals", |noise| {
            let good = if noise.one_in(2) { &sound[..end] } else { &lean[..] };
            let bytes = annulus_fuzz::damaged(noise, good, &sound[end - 200..end]);
            fs::write(&journal, &bytes).unwrap();
            let found = annulus_fuzz::within(2 << 20, || find_last_batch(&journal)).unwrap();
            let length = bytes.len() as u64;
            assert!(found.is_none_or(|(start, end)| start < end && end <= length), "{found:?} of {length}");
            if let Some(batch) = LastBatch::take_off(place.path()).unwrap() {
                assert_eq!(fs::metadata(&journal).unwrap().len(), batch.start());
                batch.put_back().unwrap();
            }
            assert!(fs::read(&journal).unwrap() == bytes, "the journal was changed");
        });
    }
}

use super::*;
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::ops::Bound;
use std::path::{Path, PathBuf};
#[derive(Clone, Debug)]
pub struct FjallOptions {
    pub cache_bytes: u64,
}
impl Default for FjallOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20 }
    }
}
pub struct FjallEngine {
    db: Database,
    spaces: [Keyspace; 3],
    dir: PathBuf,
}
fn e(error: impl std::fmt::Display) -> EngineError {
    EngineError(error.to_string())
}
impl FjallEngine {
    pub fn open(dir: &Path, options: &FjallOptions) -> Result<Self, EngineError> {
        let db = Database::builder(dir).cache_size(options.cache_bytes).open().map_err(e)?;
        let open = |name: &str| db.keyspace(name, KeyspaceCreateOptions::default).map_err(e);
        let spaces = [open("data")?, open("hints")?, open("meta")?];
        Ok(Self { db, spaces, dir: dir.to_owned() })
    }
    fn space(&self, space: Space) -> &Keyspace {
        &self.spaces[space as usize]
    }
}
impl Engine for FjallEngine {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.space(space).get(key).map_err(e)?.map(|v| Bytes::copy_from_slice(&v)))
    }
    fn commit(&self, changes: &[Change]) -> Result<(), EngineError> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for change in changes {
            match change {
                Change::Put { space, key, value } => {
                    batch.insert(self.space(*space), key.as_ref(), value.as_ref())
                }
                Change::Remove { space, key } => batch.remove(self.space(*space), key.as_ref()),
            }
        }
        batch.commit().map_err(e)
    }
    fn scan(
        &self,
        space: Space,
        range: &ScanRange,
        items_max: usize,
        bytes_max: usize,
    ) -> Result<Page, EngineError> {
        let from: Bound<Vec<u8>> = match &range.after {
            Some(a) => Bound::Excluded(a.to_vec()),
            None => Bound::Included(range.first.to_vec()),
        };
        let to: Bound<Vec<u8>> = match &range.last {
            Some(l) => Bound::Excluded(l.to_vec()),
            None => Bound::Unbounded,
        };
        let mut page = Page::default();
        let mut bytes = 0;
        for guard in self.space(space).range((from, to)) {
            let (k, v) = guard.into_inner().map_err(e)?;
            if page.items.len() >= items_max || bytes >= bytes_max {
                page.more = true;
                break;
            }
            bytes += k.len() + v.len();
            page.items.push((Bytes::copy_from_slice(&k), Bytes::copy_from_slice(&v)));
        }
        Ok(page)
    }
    fn disk(&self) -> Result<DiskSpace, EngineError> {
        let s = nix::sys::statvfs::statvfs(&self.dir).map_err(e)?;
        Ok(DiskSpace {
            bytes_free: s.blocks_available() * s.fragment_size(),
            bytes_total: s.blocks() * s.fragment_size(),
        })
    }
}

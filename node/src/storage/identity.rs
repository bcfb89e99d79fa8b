use super::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;
pub struct Births {
    start: u64,
    next: AtomicU64,
}
impl Births {
    pub fn open(_e: Arc<dyn Engine>, random: u32) -> Result<Self, EngineError> {
        Ok(Self { start: u64::from(random), next: AtomicU64::new(u64::from(random) << 32) })
    }
    pub fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
    pub fn is_of_this_start(&self, b: u64) -> bool {
        b >> 32 == self.start
    }
}
pub struct DataDirectory {
    dir: PathBuf,
    incarnation: Uuid,
}
impl DataDirectory {
    pub fn open(dir: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let f = dir.join("incarnation");
        if !f.exists() {
            std::fs::write(&f, Uuid::new_v4().to_string())?;
        }
        let incarnation = Uuid::parse_str(std::fs::read_to_string(&f)?.trim()).map_err(std::io::Error::other)?;
        Ok(Self { dir: dir.to_owned(), incarnation })
    }
    pub fn bind_cluster(&self, _c: Uuid) -> std::io::Result<()> {
        Ok(())
    }
    pub fn incarnation(&self) -> Uuid {
        self.incarnation
    }
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }
}

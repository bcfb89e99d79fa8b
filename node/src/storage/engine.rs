use bytes::Bytes;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Data,
    Hints,
    Meta,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put { space: Space, key: Bytes, value: Bytes },
    Remove { space: Space, key: Bytes },
}
#[derive(Clone, Debug, Default)]
pub struct ScanRange {
    pub first: Bytes,
    pub last: Option<Bytes>,
    pub after: Option<Bytes>,
}
impl ScanRange {
    pub fn everything() -> Self {
        Self::default()
    }
    /// exclusive end for simplicity
    pub fn tokens(first: u64, last: u64) -> Self {
        Self {
            first: Bytes::copy_from_slice(&first.to_be_bytes()),
            last: last.checked_add(1).map(|e| Bytes::copy_from_slice(&e.to_be_bytes())),
            after: None,
        }
    }
}
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub items: Vec<(Bytes, Bytes)>,
    pub more: bool,
}
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskSpace {
    pub bytes_free: u64,
    pub bytes_total: u64,
}
#[derive(Debug, thiserror::Error, Clone)]
#[error("storage engine: {0}")]
pub struct EngineError(pub String);
pub trait Engine: Send + Sync + 'static {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError>;
    fn commit(&self, changes: &[Change]) -> Result<(), EngineError>;
    fn scan(
        &self,
        space: Space,
        range: &ScanRange,
        items_max: usize,
        bytes_max: usize,
    ) -> Result<Page, EngineError>;
    fn disk(&self) -> Result<DiskSpace, EngineError>;
}

//! Whose data a directory holds, and that one process alone uses it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use uuid::Uuid;

const FORMAT: &str = "annulus data 1";
/// Where data that was given up is until it is removed.
const GIVEN_UP: &str = "given-up";

/// A data directory that this process has for itself as long as the value lives.
///
/// It holds `lock`, `format`, `incarnation` (a UUID, which stands for what is in `data` and is another only once that was
/// given up), `cluster` (the UID of the cluster it belongs to, from the first start on), `data`, the storage engine's own, and
/// `spool`.
#[derive(Debug)]
pub struct DataDirectory {
    directory: PathBuf,
    incarnation: Uuid,
    /// The lock goes with it.
    _lock: File,
}

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A file cannot be read or written.
    #[error("{step} {path}: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// What came of it.
        source: std::io::Error,
    },
    /// Another process uses it.
    #[error("{0} is in use by another process; every node needs a data directory of its own")]
    InUse(PathBuf),
    /// It was written in another format.
    #[error("{path} says \"{found}\"; this version reads \"{FORMAT}\"")]
    Format {
        /// The file that says so.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A file is missing or unreadable without which the data must not be used.
    #[error(
        "{path} is missing or damaged, though there is data beside it; restore it, or start with an empty volume"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The data is another cluster's.
    #[error("{directory} holds data of cluster {theirs}, not of {ours}; start with an empty volume")]
    OtherCluster {
        /// The directory.
        directory: PathBuf,
        /// The cluster it belongs to.
        theirs: Uuid,
        /// The cluster asked for.
        ours: Uuid,
    },
}

impl DataDirectory {
    /// Opens a data directory, or makes one with a new incarnation.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn open(directory: &Path) -> Result<Self, DirectoryError> {
        fs::create_dir_all(directory).map_err(failed("creating", directory))?;
        let lock = lock(directory)?;
        let format = directory.join("format");
        match read(&format)? {
            Some(found) if found == FORMAT => {}
            Some(found) => return Err(DirectoryError::Format { path: format, found }),
            None if directory.join("data").exists() => return Err(DirectoryError::Damaged { path: format }),
            None => write_durably(&format, FORMAT)?,
        }
        let path = directory.join("incarnation");
        let incarnation = match read(&path)? {
            Some(text) => Uuid::parse_str(&text).map_err(|_| DirectoryError::Damaged { path })?,
            // Data without its incarnation must not come back under a new name: its dots would be another actor's.
            None if directory.join("data").exists() => return Err(DirectoryError::Damaged { path }),
            None => new_incarnation(&path)?,
        };
        remove(&directory.join(GIVEN_UP))?;
        Ok(Self { directory: directory.to_owned(), incarnation, _lock: lock })
    }

    /// Empties it and gives it another incarnation. For data that is not to be used any more, which nobody may have open.
    ///
    /// Ended half way, the data is there as it was and has to be emptied again, or is gone.
    ///
    /// # Errors
    /// [`DirectoryError`]; the new incarnation may have been kept already.
    pub fn renew(&mut self) -> Result<(), DirectoryError> {
        // First the name: data may be without a name that is known elsewhere, but no name may go on with less data.
        self.incarnation = new_incarnation(&self.directory.join("incarnation"))?;
        let (data, aside) = (self.data(), self.directory.join(GIVEN_UP));
        remove(&aside)?;
        match fs::rename(&data, &aside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("renaming", &data)(error)),
            _ => sync_directory(&self.directory)?,
        }
        remove(&aside)
    }

    /// Identity of the data in it.
    #[must_use]
    pub fn incarnation(&self) -> Uuid {
        self.incarnation
    }

    /// Where pages on their way are kept aside: of no use to another incarnation.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.directory.join("spool")
    }

    /// Where the storage engine keeps its files.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The cluster it belongs to; `None` before it is bound to one.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn cluster(&self) -> Result<Option<Uuid>, DirectoryError> {
        let path = self.directory.join("cluster");
        let Some(text) = read(&path)? else { return Ok(None) };
        Uuid::parse_str(&text).map(Some).map_err(|_| DirectoryError::Damaged { path })
    }

    /// Binds it to a cluster, forever. Binding it again to the same one changes nothing.
    ///
    /// # Errors
    /// [`DirectoryError::OtherCluster`] when it belongs to another one, and those of reading and writing.
    pub fn bind_cluster(&self, ours: Uuid) -> Result<(), DirectoryError> {
        match self.cluster()? {
            Some(theirs) if theirs == ours => Ok(()),
            Some(theirs) => Err(DirectoryError::OtherCluster { directory: self.directory.clone(), theirs, ours }),
            None => write_durably(&self.directory.join("cluster"), &ours.to_string()),
        }
    }
}

fn new_incarnation(path: &Path) -> Result<Uuid, DirectoryError> {
    let incarnation = Uuid::new_v4();
    write_durably(path, &incarnation.to_string())?;
    Ok(incarnation)
}

/// Removes a directory with all that is in it, if it is there.
fn remove(path: &Path) -> Result<(), DirectoryError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("removing", path)(error)),
        _ => Ok(()),
    }
}

fn lock(directory: &Path) -> Result<File, DirectoryError> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed("opening", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed("locking", &path)(source)),
    }
}

fn read(path: &Path) -> Result<Option<String>, DirectoryError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            Err(DirectoryError::Damaged { path: path.to_owned() })
        }
        Err(error) => Err(failed("reading", path)(error)),
    }
}

/// Writes a small file so that after a crash it is there with all of its text or not at all.
fn write_durably(path: &Path, text: &str) -> Result<(), DirectoryError> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary).map_err(failed("creating", &temporary))?;
    writeln!(file, "{text}").and_then(|()| file.sync_all()).map_err(failed("writing", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("renaming", &temporary))?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

fn sync_directory(path: &Path) -> Result<(), DirectoryError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("syncing", path))
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DirectoryError {
    move |source| DirectoryError::Io { step, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_incarnation_and_its_cluster() {
        let place = tempfile::tempdir().unwrap();
        let cluster = Uuid::new_v4();
        let incarnation = {
            let directory = DataDirectory::open(place.path()).unwrap();
            assert_eq!(directory.cluster().unwrap(), None);
            directory.bind_cluster(cluster).unwrap();
            directory.incarnation()
        };
        let directory = DataDirectory::open(place.path()).unwrap();
        assert_eq!(directory.incarnation(), incarnation);
        directory.bind_cluster(cluster).unwrap();
        let other = Uuid::new_v4();
        let refused = directory.bind_cluster(other).unwrap_err();
        assert!(
            matches!(refused, DirectoryError::OtherCluster { theirs, ours, .. } if theirs == cluster && ours == other)
        );
    }

    #[test]
    fn a_renewed_directory_is_empty_and_another_incarnation() {
        let place = tempfile::tempdir().unwrap();
        let cluster = Uuid::new_v4();
        let mut directory = DataDirectory::open(place.path()).unwrap();
        directory.bind_cluster(cluster).unwrap();
        let before = directory.incarnation();
        fs::create_dir(directory.data()).unwrap();
        fs::write(directory.data().join("values"), "old").unwrap();
        // What an earlier attempt may have left, which ended half way.
        fs::create_dir(place.path().join(GIVEN_UP)).unwrap();
        directory.renew().unwrap();
        let after = directory.incarnation();
        assert_ne!(after, before);
        assert!(!directory.data().exists() && !place.path().join(GIVEN_UP).exists());
        drop(directory);
        let directory = DataDirectory::open(place.path()).unwrap();
        assert_eq!((directory.incarnation(), directory.cluster().unwrap()), (after, Some(cluster)));
    }

    #[test]
    fn a_directory_is_opened_once_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(place.path()).unwrap();
        assert!(matches!(DataDirectory::open(place.path()), Err(DirectoryError::InUse(_))));
        drop(first);
        DataDirectory::open(place.path()).unwrap();
    }

    #[test]
    fn data_without_its_identity_is_refused() {
        for lost in ["incarnation", "format"] {
            let place = tempfile::tempdir().unwrap();
            fs::create_dir(DataDirectory::open(place.path()).unwrap().data()).unwrap();
            fs::remove_file(place.path().join(lost)).unwrap();
            let refused = DataDirectory::open(place.path()).unwrap_err();
            assert!(matches!(refused, DirectoryError::Damaged { path } if path.ends_with(lost)));
        }
    }

    #[test]
    fn a_later_format_is_refused() {
        let place = tempfile::tempdir().unwrap();
        drop(DataDirectory::open(place.path()).unwrap());
        fs::write(place.path().join("format"), "annulus data 2\n").unwrap();
        assert!(matches!(DataDirectory::open(place.path()), Err(DirectoryError::Format { .. })));
    }
}

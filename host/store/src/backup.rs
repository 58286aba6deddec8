//! Copies of a store: what a backup is, and what keeps one from being made.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use amends_engine::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use crate::error::{Cause, StoreError};

/// What a backup holds, and how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupSummary {
    /// The size of the backup.
    pub bytes: u64,
    /// The number of events. They are those with the positions 1 to this number.
    pub events: u64,
    /// The number of sagas.
    pub sagas: u64,
    /// When the copy was complete.
    pub at: Timestamp,
    /// How long the copy took.
    pub took: Duration,
}

/// A complete copy of a store at one moment.
///
/// The file has no name any more, so nothing of it is left when this is dropped, also when the
/// process ends first. The next backup of the store can begin after that.
#[derive(Debug)]
pub struct Backup {
    /// The copy, to be read from its beginning.
    pub file: File,
    /// What the copy holds.
    pub summary: BackupSummary,
    /// The only place for a backup of this store.
    _place: OwnedSemaphorePermit,
}

impl Backup {
    /// Makes a backup that keeps the place of its store.
    pub(crate) fn new(file: File, summary: BackupSummary, place: OwnedSemaphorePermit) -> Self {
        Self { file, summary, _place: place }
    }
}

/// The reason why a store could not be copied. The store itself is as before, and nothing of the
/// copy is left.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackupError {
    /// Another backup of the store is being made or read. Caller: wait for its end.
    #[error("another backup of this store is under way")]
    UnderWay,
    /// The copy would leave the disk of the store nearly full. Operator: free some space.
    #[error(
        "the disk of the store has {free_bytes} bytes free; the copy needs {needed_bytes}, and the \
         store needs the rest, see {}", .folder.display()
    )]
    NoRoom {
        /// The folder in which the copy is made.
        folder: PathBuf,
        /// The bytes that are free.
        free_bytes: u64,
        /// The bytes that the copy still needs.
        needed_bytes: u64,
    },
    /// The copy cannot be written. Operator: look at the disk and the rights.
    #[error("the copy {} cannot be written: {source}", .path.display())]
    Copy {
        /// The file of the copy.
        path: PathBuf,
        /// What is wrong.
        source: Cause,
    },
    /// The store is in a database that has tools of its own for copies. Operator: use those.
    #[error(
        "a store in PostgreSQL is backed up with PostgreSQL's own tools: `pg_dump` for a copy, or base \
         backups and the archive of its log for any moment"
    )]
    Elsewhere,
    /// The store cannot be read, or is closed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BackupError {
    /// Makes the error of a copy that cannot be written.
    pub(crate) fn copy(path: &Path, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Copy { path: path.to_owned(), source: Cause::from(source.into()) }
    }
}

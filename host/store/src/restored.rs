//! What checking a file and restoring a store come to.

use std::path::PathBuf;

use amends_engine::{SagaId, Timestamp};

use crate::backup::BackupError;
use crate::error::OpenError;

/// What a file holds, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileCheck {
    /// The size of the file.
    pub bytes: u64,
    /// The schema version of the file.
    pub schema: i64,
    /// The schema version of this build. The projections of a file of another one are not compared.
    pub known_schema: i64,
    /// The number of events. Damage may make it wrong.
    pub events: u64,
    /// The number of sagas. Damage may make it wrong.
    pub sagas: u64,
    /// When the backup was made; none when the file is no backup.
    pub backup_at: Option<Timestamp>,
    /// The files of the archive that the store has sagas in.
    pub segments: u64,
    /// How many sagas were not compared with the projections, because their events cannot be folded, and
    /// the first of them with its reason.
    pub not_folded: Option<(u64, (SagaId, String))>,
    /// What is damaged, each a sentence with the page, table or saga; empty when the file is sound.
    pub findings: Vec<String>,
    /// How many of the findings are only about what lists and searches read, so that a rebuild mends
    /// them.
    pub mendable: usize,
}

impl FileCheck {
    /// Returns true when something is damaged that no rebuild mends.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.findings.len() > self.mendable
    }
}

/// A store that was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The database.
    pub path: PathBuf,
    /// What it holds.
    pub check: FileCheck,
    /// Where the store is that was there before, if there was one.
    pub replaced: Option<PathBuf>,
}

/// The reason why a store was not restored. What was there before is still there.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup or the place of the store cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The backup is damaged, and a rebuild would not mend it.
    #[error("{} is damaged, nothing was restored: {}", .path.display(), .findings.join("; "))]
    Damaged {
        /// The backup.
        path: PathBuf,
        /// The first things that are damaged.
        findings: Vec<String>,
    },
    /// There is a store already, and it may not be replaced.
    #[error("there is a store already, {}", .0.display())]
    Exists(PathBuf),
    /// The backup cannot be copied to the place of the store.
    #[error(transparent)]
    Copy(#[from] BackupError),
}

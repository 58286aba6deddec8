//! The archive: sagas that have ended leave the database, and can still be read.
//!
//! A saga that leaves keeps a tombstone, so that its id, its version and its key stay taken. Its
//! content is in a file, a segment; or nowhere, when the store has no archive.

use std::time::Duration;

use amends_engine::{DefinitionName, SagaId, SagaStatus, SubjectKeyId, Timestamp, Version};
use futures::future::BoxFuture;

use crate::append::{NewEvent, StartKey};
use crate::archive_place::ArchivePlace;
use crate::error::{Cause, StoreError};
use crate::paging::PageBudget;
use crate::saga_query::SagaQuery;
use crate::saga_row::SagaRow;
use crate::stored_event::StoredEvent;

/// How long after its end a saga keeps its start key at least. The key then goes, when the saga has left
/// the store. A saga that comes back later has none.
pub const START_KEY_RETENTION: Duration = Duration::from_hours(90 * 24);

/// Moves ended sagas out of the database, and reads those that were moved.
///
/// A saga is found in one place at any moment. Whoever looks for one looks into
/// [`crate::SagaIndex`] and [`crate::EventLog`] first, and then here: a saga only moves in this
/// direction, until [`Self::bring_back`].
pub trait Archive: Send + Sync {
    /// Returns a page of sagas that ended before a time, by ascending id after `after`. The budget
    /// counts the sagas that are looked at.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: try again. [`StoreError::Damaged`] and [`StoreError::Closed`]:
    /// it fails again.
    fn ended(
        &self,
        before: Timestamp,
        after: Option<SagaId>,
        budget: PageBudget,
    ) -> BoxFuture<'_, Result<EndedPage, StoreError>>;

    /// Moves sagas out of the database. A saga that is changed meanwhile stays, and so does one
    /// whose [`ToArchive::after`] is still in the database. When the future is dropped or the
    /// process ends, each saga is in one place, and a later call goes on with the rest.
    ///
    /// # Errors
    /// See [`ArchiveError`]. Sagas that were moved before the error are moved.
    fn archive(&self, sagas: Vec<ToArchive>)
    -> BoxFuture<'_, Result<ArchiveSummary, ArchiveError>>;

    /// Returns the tombstone of a saga, if it was moved.
    ///
    /// # Errors
    /// As for [`Self::ended`].
    fn tombstone(&self, id: SagaId) -> BoxFuture<'_, Result<Option<Tombstone>, StoreError>>;

    /// Returns a saga that was moved. None when it was not.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    fn read(&self, id: SagaId) -> BoxFuture<'_, Result<Option<ArchivedSaga>, ArchiveError>>;

    /// Returns the tombstones that match, the newest saga first. The tag of the query is ignored:
    /// a tombstone has no tags.
    ///
    /// # Errors
    /// As for [`Self::ended`].
    fn list(&self, query: SagaQuery) -> BoxFuture<'_, Result<Vec<Tombstone>, StoreError>>;

    /// Moves a saga back into the database. Its tombstone goes. False when there is no tombstone.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    fn bring_back(&self, id: SagaId) -> BoxFuture<'_, Result<bool, ArchiveError>>;

    /// Puts a saga that has ended elsewhere into the archive. It was never in this database, and it never
    /// is: [`Self::bring_back`] refuses it, because the undo of a saga belongs to the host that ran it. No
    /// reader of the log gets its events, whose positions count within the saga. Its start key is taken
    /// unless another saga has it.
    ///
    /// Returns false, and writes nothing, when the database or the archive has a saga of this id. When
    /// the future is dropped or the process ends, the saga is in the archive or it is not.
    ///
    /// # Errors
    /// See [`ArchiveError`]. [`ArchiveError::NoArchive`] when there are no files.
    fn import(&self, saga: ImportedSaga) -> BoxFuture<'_, Result<bool, ArchiveError>>;

    /// Removes the start keys of archived sagas that ended before a time. Returns how many.
    ///
    /// # Errors
    /// As for [`Self::ended`].
    fn remove_keys(&self, before: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Returns when the oldest saga ended that has ended and is in the database.
    ///
    /// # Errors
    /// As for [`Self::ended`].
    fn oldest_ended(&self) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>>;

    /// Returns how many archived sagas have personal values that are sealed with the key of a subject.
    ///
    /// # Errors
    /// As for [`Self::ended`].
    fn count_of_subject_key(&self, key: SubjectKeyId) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Returns where the files are; none when sagas are deleted instead.
    fn place(&self) -> Option<&ArchivePlace>;
}

/// A saga that has ended elsewhere.
#[derive(Debug, Clone)]
pub struct ImportedSaga {
    /// Its row.
    pub row: SagaRow,
    /// Its events from the first on, and when each was decided.
    pub events: Vec<(Timestamp, NewEvent)>,
    /// Its start key, if it has one.
    pub start_key: Option<StartKey>,
}

/// A page of sagas that have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedPage {
    /// The sagas.
    pub sagas: Vec<EndedSaga>,
    /// The last saga that was looked at, after which the next page begins; none when there are no
    /// more.
    pub next: Option<SagaId>,
}

/// A saga that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedSaga {
    /// The id of the saga.
    pub id: SagaId,
    /// What there is of it; or the reason why that cannot be read, for the operator.
    pub content: Result<EndedContent, String>,
}

/// What decides whether a saga may be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedContent {
    /// Its row.
    pub row: SagaRow,
    /// Its first event.
    pub first: StoredEvent,
    /// Its last event, which may be a note that came after its end.
    pub last: StoredEvent,
}

/// A saga to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToArchive {
    /// The id of the saga.
    pub id: SagaId,
    /// The version for which this was decided. A saga that has another one stays.
    pub version: Version,
    /// The saga that has to be moved before, if there is one.
    pub after: Option<SagaId>,
    /// True when the saga should have been moved long ago. Then moving it gives way to appends no longer,
    /// so that a store that is always busy does not grow without end.
    pub is_late: bool,
}

/// What a call of [`Archive::archive`] came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveSummary {
    /// The sagas that were moved or deleted.
    pub sagas: u64,
    /// Their events.
    pub events: u64,
    /// The files that were written.
    pub segments: u64,
    /// The bytes of the files.
    pub bytes: u64,
    /// Sagas that stay because they were changed meanwhile, or because another one stays.
    pub changed: u64,
    /// Sagas that stay because they cannot be read or are too large, and why.
    pub unreadable: Vec<(SagaId, String)>,
}

/// What is left in the database of a saga that was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// The id of the saga.
    pub id: SagaId,
    /// The version of its last event.
    pub version: Version,
    /// The name of its definition.
    pub definition: DefinitionName,
    /// Its status, which is an end.
    pub status: SagaStatus,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// The idempotency key of the caller, as long as it is kept.
    pub key: Option<String>,
    /// The name of the file that has it; none when it was deleted.
    pub file: Option<String>,
}

/// A saga that was read from the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedSaga {
    /// Its row, as it was in the database.
    pub row: SagaRow,
    /// All its events, by ascending version.
    pub events: Vec<StoredEvent>,
    /// True when the saga ended on another host, so that it does not come back.
    pub is_imported: bool,
}

/// Why sagas are not moved, or an archived one is not read. Each variant says who can act.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ArchiveError {
    /// Other sagas are being moved. Caller: later.
    #[error("sagas of this store are being archived already")]
    UnderWay,
    /// There are no files: the config has `archive = "none"`, or no archive. Operator.
    #[error("the store has no archive, and what is imported goes there")]
    NoArchive,
    /// The saga ran on another host, and stays in the archive. Caller: on that host.
    #[error("saga {0} was imported: it ran on another host, and its undos belong there")]
    Imported(SagaId),
    /// The saga was deleted when its retention was over. Nobody can act.
    #[error(
        "saga {id} was deleted: it ended at {ended_at} as {status}, and the archive was \"none\""
    )]
    Deleted {
        /// The saga.
        id: SagaId,
        /// When it ended.
        ended_at: Timestamp,
        /// As what it ended.
        status: SagaStatus,
    },
    /// The saga is in a file, and the config names no archive. Operator.
    #[error("saga {id} is in {file}, and the config has archive = \"none\"")]
    NoFolder {
        /// The saga.
        id: SagaId,
        /// The name of the file.
        file: String,
    },
    /// A file of the archive cannot be read or written. Operator.
    #[error("the archive file {file} cannot be used: {source}")]
    File {
        /// The file or folder.
        file: String,
        /// What is wrong.
        source: Cause,
    },
    /// The object store of the archive does not answer, or refuses. The next try may succeed; what
    /// becomes of it is up to the operator.
    #[error("the archive cannot be reached at {file}: {what}")]
    Unreachable {
        /// The file, or the archive.
        file: String,
        /// What became of the request.
        what: String,
    },
    /// A file of the archive is damaged. Operator: restore a copy of the file.
    #[error("the archive file {file} is damaged: {what}")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong, with the frame where that is known.
        what: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

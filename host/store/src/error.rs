//! What can go wrong in a store, and who can act.

use std::path::PathBuf;
use std::time::Duration;

use amends_engine::Version;

use crate::stream::Stream;

/// The reason why the store rejected or failed a request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The URL names no store that this build has. Operator.
    #[error(
        "`{0}` is not a store of this version: use \"sqlite:FILE\", such as \"sqlite:data/amends.db\""
    )]
    Url(String),
    /// The URL names a PostgreSQL store. Operator.
    #[error(
        "this build has no PostgreSQL store yet: use \"sqlite:FILE\", such as \"sqlite:data/amends.db\""
    )]
    NoPostgres,
    /// The input breaks a rule of the store. Caller: it has a bug.
    #[error("it cannot be stored: {0}")]
    Invalid(&'static str),
    /// The stream has another version than the caller expected. Caller: read it again.
    #[error("{stream} is at version {}, not {}", .actual.0, .expected.0)]
    Conflict {
        /// The stream.
        stream: Stream,
        /// The version that the caller expected.
        expected: Version,
        /// The version that the stream has.
        actual: Version,
    },
    /// Another process has taken the store over. Operator: stop one of them.
    #[error("another process has taken the store over; this one must stop")]
    Fenced,
    /// Another process uses the store. Operator.
    #[error("{} is in use by another process; stop that one, or name another file", .0.display())]
    InUse(PathBuf),
    /// The store was written by a newer version. Operator.
    #[error(
        "{} has schema version {found}, this version of Amends knows {known}; use the newer \
         version, nothing was changed", .path.display()
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest schema version that this build knows.
        known: i64,
    },
    /// The file is not a database of Amends, or it is damaged. Operator: restore a copy.
    #[error(
        "{} cannot be used: {message}; restore a copy or name another file, nothing was changed",
        .path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The file or its folder cannot be created or opened. Operator.
    #[error("{}: {message}", .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The store is closed. Caller: it called too late.
    #[error("the store is closed")]
    Closed,
    /// The database failed; nothing was written. Caller: try again. Operator: look at the disk.
    #[error("the database failed: {0}")]
    Database(String),
    /// The disk is full; nothing was written. Caller: try again later. Operator: free some space.
    #[error("the disk is full: {0}")]
    Full(String),
    /// A stored value that this write depends on cannot be read. Nothing was written, and other
    /// writes are not affected. Operator: restore a copy.
    #[error("what is stored there cannot be read: {0}")]
    Unreadable(String),
    /// A read took longer than allowed and was ended. Caller: ask for less.
    #[error("the read took longer than {} s and was ended; ask for less at once", .0.as_secs())]
    TooLong(Duration),
    /// The thread that writes has ended unexpectedly. Operator: start the host again.
    #[error("the store's writer has ended unexpectedly; start the host again")]
    WriterEnded,
}

impl StoreError {
    /// Returns true when this process will never write again: another process owns the store, the
    /// database is damaged, or the writer has ended.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        match self {
            Self::Fenced | Self::Damaged { .. } | Self::WriterEnded => true,
            Self::Url(_)
            | Self::NoPostgres
            | Self::Invalid(_)
            | Self::Conflict { .. }
            | Self::InUse(_)
            | Self::NewerSchema { .. }
            | Self::File { .. }
            | Self::Closed
            | Self::Database(_)
            | Self::Full(_)
            | Self::Unreadable(_)
            | Self::TooLong(_) => false,
        }
    }

    /// Returns one word that names the error, for metrics and for programs.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Url(_) | Self::NoPostgres => "url",
            Self::Invalid(_) => "invalid",
            Self::Conflict { .. } => "conflict",
            Self::Fenced => "fenced",
            Self::InUse(_) => "in_use",
            Self::NewerSchema { .. } => "newer_schema",
            Self::Damaged { .. } => "damaged",
            Self::File { .. } => "file",
            Self::Closed => "closed",
            Self::Database(_) => "database",
            Self::Full(_) => "full",
            Self::Unreadable(_) => "unreadable",
            Self::TooLong(_) => "too_long",
            Self::WriterEnded => "writer_ended",
        }
    }
}

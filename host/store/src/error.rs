//! What can go wrong, and who can act.

use std::path::PathBuf;
use std::time::Duration;

use amends_engine::Version;

use crate::types::Stream;

/// Why the store did not do what was asked.
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
    /// What was handed in breaks a rule of the store. Caller: a mistake in the program.
    #[error("it cannot be stored: {0}")]
    Invalid(&'static str),
    /// The stream has moved on. Caller: read it again.
    #[error("{stream} is at version {}, not {}", .actual.0, .expected.0)]
    Conflict {
        /// The stream.
        stream: Stream,
        /// The version that the caller knew.
        expected: Version,
        /// The version that it has.
        actual: Version,
    },
    /// Another process has taken the store over. Operator: stop one of them.
    #[error("another process has taken the store over; this one must stop")]
    Fenced,
    /// Another process uses it. Operator.
    #[error("{} is in use by another process; stop that one, or name another file", .0.display())]
    InUse(PathBuf),
    /// It was written by a newer version. Operator.
    #[error(
        "{} has schema version {found}, this version of Amends knows {known}; use the newer \
         version, nothing was changed", .path.display()
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// It is not a database of Amends, or it is damaged. Operator: restore a copy.
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
    /// The file or its folder cannot be made or opened. Operator.
    #[error("{}: {message}", .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The store is closed. Caller: it was asked too late.
    #[error("the store is closed")]
    Closed,
    /// Nothing of it counts as written. Caller: try again. Operator: look at the disk.
    #[error("the database failed: {0}")]
    Database(String),
    /// There is no room on the disk; nothing of it counts as written. Caller: later. Operator: make
    /// room.
    #[error("the disk is full: {0}")]
    Full(String),
    /// A value that the write rests on cannot be read; nothing of it was written, and others are not
    /// touched by it. Operator: restore a copy.
    #[error("what is stored there cannot be read: {0}")]
    Unreadable(String),
    /// A read took longer than any may. Caller: ask for less.
    #[error("the read took longer than {} s and was ended; ask for less at once", .0.as_secs())]
    TooLong(Duration),
    /// The thread that writes has ended unexpectedly. Operator: start the host again.
    #[error("the store's writer has ended unexpectedly; start the host again")]
    WriterEnded,
}

impl StoreError {
    /// Whether this process will never write again: another one has the store, the database is
    /// damaged, or the writer has ended.
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

    /// One word for metrics and for programs.
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

//! What can go wrong, and who can act.

use std::path::PathBuf;

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
    /// Nothing of it counts as written; the disk may be full. Caller: try again. Operator: look.
    #[error("the database failed: {0}")]
    Database(String),
}

//! What a database error means for a caller and for an operator.

use std::path::Path;
use std::sync::Arc;

use rusqlite::ErrorCode;

use crate::error::{Fatal, Obstacle, OpenError, StoreError};

/// Converts an error of the database into one that says who can act.
pub(super) fn describe(error: rusqlite::Error) -> StoreError {
    match obstacle(&error) {
        Some(obstacle) => StoreError::unavailable(obstacle, error),
        None => StoreError::Damaged { source: Arc::new(error) },
    }
}

/// Converts an error that fails a whole transaction. A writer does not go on with a damaged
/// database.
pub(super) fn describe_write(path: &Path, error: rusqlite::Error) -> StoreError {
    match obstacle(&error) {
        Some(obstacle) => StoreError::unavailable(obstacle, error),
        None => Fatal::Damaged { path: path.to_owned(), source: Arc::new(error) }.into(),
    }
}

/// Converts an error of a database that is being opened.
pub(super) fn describe_open(path: &Path, error: rusqlite::Error) -> OpenError {
    match obstacle(&error) {
        Some(Obstacle::File) => OpenError::file(path, error),
        Some(obstacle) => StoreError::unavailable(obstacle, error).into(),
        None => OpenError::damaged(path, error),
    }
}

/// Returns what keeps the database from working now; none when it is damaged.
fn obstacle(error: &rusqlite::Error) -> Option<Obstacle> {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => None,
        Some(ErrorCode::DiskFull) => Some(Obstacle::Full),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            Some(Obstacle::File)
        }
        // SQLite itself reports no error: a value has a form that this store never writes.
        None if is_unreadable(error) => None,
        Some(_) | None => Some(Obstacle::Database),
    }
}

/// Returns true when rows that are there contradict what was to be written.
pub(super) fn is_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

/// Returns true when a stored value has a form that this store never writes, and the database
/// itself works.
pub(super) fn is_unreadable(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..)
    )
}

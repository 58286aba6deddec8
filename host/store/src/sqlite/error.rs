//! What a database error means for an operator.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::error::StoreError;

/// Converts an error of the database at `path` into one that says who can act.
pub(super) fn describe(path: &Path, error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Damaged { path: path.to_owned(), message: error.to_string() }
        }
        Some(ErrorCode::DiskFull) => StoreError::Full(error.to_string()),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            StoreError::File { path: path.to_owned(), message: error.to_string() }
        }
        // SQLite itself reports no error: a value has a form that this store never writes.
        None if is_unreadable(error) => {
            StoreError::Damaged { path: path.to_owned(), message: error.to_string() }
        }
        Some(_) | None => StoreError::Database(error.to_string()),
    }
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

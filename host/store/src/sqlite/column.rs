//! Values of single columns, read and written.

use amends_engine::{SagaId, SagaStatus};
use rusqlite::Row;
use rusqlite::types::Type;

use std::fmt::Write as _;

use super::error::is_unreadable;

/// Reads a column as the status of a saga.
pub(super) fn status(row: &Row<'_>, column: usize) -> rusqlite::Result<SagaStatus> {
    let word: String = row.get(column)?;
    SagaStatus::from_word(&word)
        .ok_or_else(|| unreadable(column, format!("`{word}` is not a status of a saga")))
}

/// Reads a column as text and parses it.
pub(super) fn parse<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    row.get::<_, String>(column)?.parse().map_err(|error| unreadable(column, error))
}

/// Makes the error for a column whose value this store never writes.
pub(super) fn unreadable(
    column: usize,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}

/// Separates a row that cannot be read from a database that fails: the inner error is the reason,
/// for people. `columns` names the columns of the query, separated by `, `.
pub(super) fn readable<T>(
    read: rusqlite::Result<T>,
    columns: &str,
) -> rusqlite::Result<Result<T, String>> {
    let name = |column: usize| columns.split(", ").nth(column).unwrap_or("?");
    match read {
        Ok(value) => Ok(Ok(value)),
        Err(rusqlite::Error::FromSqlConversionFailure(column, _, error)) => {
            Ok(Err(format!("{}: {error}", name(column))))
        }
        Err(rusqlite::Error::Utf8Error(column, error)) => {
            Ok(Err(format!("{}: {error}", name(column))))
        }
        Err(error) if is_unreadable(&error) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Returns the first column as a saga id, or its bytes in hexadecimal when they are no id.
pub(super) fn id_text(row: &Row<'_>) -> String {
    if let Ok(id) = row.get(0) {
        return SagaId::from_bytes(id).to_string();
    }
    let bytes = row.get_ref(0).ok().and_then(|value| value.as_bytes().ok()).unwrap_or_default();
    bytes.iter().fold(String::from("0x"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Converts a version or position into an integer of SQLite. Those are signed; no version or
/// position ever reaches the difference.
pub(super) fn to_integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

//! The rows of the table `archived`, read.

use amends_engine::{SagaId, Timestamp, Version};
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::column::{parse, status};
use crate::archive::Tombstone;

/// The columns that [`tombstone`] reads, in their order.
pub(super) const TOMBSTONE_COLUMNS: &str =
    "saga, version, definition, status, started_at, ended_at, key, file";

/// The tables that have them.
pub(super) const TOMBSTONES: &str = "archived LEFT JOIN segments ON segments.id = archived.segment";

/// Reads one row.
pub(super) fn tombstone(row: &Row<'_>) -> rusqlite::Result<Tombstone> {
    Ok(Tombstone {
        id: SagaId::from_bytes(row.get(0)?),
        version: Version(row.get::<_, i64>(1)?.unsigned_abs()),
        definition: parse(row, 2)?,
        status: status(row, 3)?,
        started_at: Timestamp::from_millis(row.get(4)?),
        ended_at: Timestamp::from_millis(row.get(5)?),
        key: row.get(6)?,
        file: row.get(7)?,
    })
}

/// Returns the version of a saga that is in the archive; none when it is not.
pub(super) fn archived_version(
    connection: &Connection,
    id: SagaId,
) -> rusqlite::Result<Option<Version>> {
    connection
        .prepare_cached("SELECT version FROM archived WHERE saga = ?1")?
        .query_row([id.as_bytes()], |row| row.get::<_, i64>(0))
        .optional()
        .map(|version| version.map(|version| Version(version.unsigned_abs())))
}

//! Rows by their key, and counts.

use std::collections::BTreeMap;

use amends_engine::{Digest, SagaId, SagaStatus, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Result, params};

use super::archived::last_position;
use crate::blob::{BlobKind, BlobRow};
use crate::saga_row::SagaRow;
use crate::sqlite::column::status;
use crate::sqlite::saga_columns::{SAGA_COLUMNS, saga_row};

/// Returns the row of a saga.
pub(crate) fn saga(connection: &Connection, id: SagaId) -> Result<Option<SagaRow>> {
    connection
        .prepare_cached(&format!("SELECT {SAGA_COLUMNS} FROM sagas WHERE id = ?1"))?
        .query_row([id.as_bytes()], saga_row)
        .optional()
}

/// Returns the saga that a key started, and the digest of the payload it was started with.
pub(crate) fn key(connection: &Connection, key: &str) -> Result<Option<(SagaId, Digest)>> {
    connection
        .prepare_cached("SELECT saga, payload_digest FROM start_keys WHERE key = ?1")?
        .query_row([key], |row| {
            Ok((SagaId::from_bytes(row.get(0)?), Digest::from_bytes(row.get(1)?)))
        })
        .optional()
}

/// Returns the bytes that are stored under a digest.
pub(crate) fn blob(
    connection: &Connection,
    kind: BlobKind,
    digest: Digest,
) -> Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT bytes FROM blobs WHERE kind = ?1 AND digest = ?2")?
        .query_row(params![kind.as_str(), digest.as_bytes()], |row| row.get(0))
        .optional()
}

/// Returns the blobs of a kind without their bytes, the oldest first.
pub(crate) fn blobs(connection: &Connection, kind: BlobKind) -> Result<Vec<BlobRow>> {
    connection
        .prepare_cached(
            "SELECT name, digest, at, length(bytes) FROM blobs WHERE kind = ?1 ORDER BY at, digest",
        )?
        .query_map([kind.as_str()], |row| {
            Ok(BlobRow {
                name: row.get(0)?,
                digest: Digest::from_bytes(row.get(1)?),
                at: Timestamp::from_millis(row.get(2)?),
                bytes_len: row.get::<_, i64>(3)?.unsigned_abs(),
            })
        })?
        .collect()
}

/// Returns how many sagas have each status.
pub(crate) fn counts(connection: &Connection) -> Result<BTreeMap<SagaStatus, u64>> {
    connection
        .prepare_cached("SELECT status, count(*) FROM sagas GROUP BY status")?
        .query_map([], |row| Ok((status(row, 0)?, row.get::<_, i64>(1)?.unsigned_abs())))?
        .collect()
}

/// Returns how many events were ever stored: each got the next position.
pub(crate) fn count_events(connection: &Connection) -> Result<u64> {
    last_position(connection).map(|position| position.0)
}

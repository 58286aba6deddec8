//! Rows by their key, and counts.

use std::collections::BTreeMap;

use amends_engine::{Digest, SagaId, SagaStatus, SubjectKeyId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Result, params};

use super::archived::last_position;
use crate::blob::{BlobKind, BlobRow};
use crate::saga_row::SagaRow;
use crate::sqlite::column::status;
use crate::sqlite::saga_columns::{SAGA_COLUMNS, saga_row};
use crate::sqlite::start_delay::last_id;

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

/// Returns the rows of sagas whose values are sealed with the key of a subject, by ascending id.
pub(crate) fn of_subject_key(
    connection: &Connection,
    key: SubjectKeyId,
    after: Option<SagaId>,
    limit: u32,
) -> Result<Vec<SagaRow>> {
    let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {SAGA_COLUMNS} FROM sagas WHERE subject_key = ?1 AND id > ?2 ORDER BY id LIMIT ?3"
    ))?;
    let rows = statement.query_map(params![key.as_bytes(), after, limit], saga_row)?;
    rows.collect()
}

/// Returns whether a saga has values that are sealed.
pub(crate) fn has_sealed(connection: &Connection) -> Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM sagas WHERE subject_key IS NOT NULL)")?
        .query_row([], |row| row.get(0))
}

/// Returns how many archived sagas have values that are sealed with the key of a subject.
pub(crate) fn count_archived_of_key(connection: &Connection, key: SubjectKeyId) -> Result<u64> {
    connection
        .prepare_cached("SELECT count(*) FROM archived WHERE subject_key = ?1")?
        .query_row([key.as_bytes()], |row| row.get::<_, i64>(0))
        .map(i64::unsigned_abs)
}

/// The sagas that [`was_any_live`] looks at. It takes some 10 ms.
const LOOKED_AT_MAX: i64 = 100_000;

/// Returns whether a saga began before `until` and had not ended before `from`; true as well when more
/// sagas than [`LOOKED_AT_MAX`] would have to be looked at.
pub(crate) fn was_any_live(
    connection: &Connection,
    from: Timestamp,
    until: Timestamp,
) -> Result<bool> {
    was_any_live_of(connection, from, until, LOOKED_AT_MAX)
}

fn was_any_live_of(
    connection: &Connection,
    from: Timestamp,
    until: Timestamp,
    limit: i64,
) -> Result<bool> {
    // The newest first: one that began after `from` is found at once.
    let before = last_id(until);
    let is_found = connection
        .prepare_cached(
            "SELECT 1 FROM
                 (SELECT started_at, ended_at FROM sagas WHERE id < ?1 ORDER BY id DESC LIMIT ?4)
             WHERE started_at < ?2 AND (ended_at IS NULL OR ended_at >= ?3) LIMIT 1",
        )?
        .exists(params![before, until.as_millis(), from.as_millis(), limit])?;
    let mut others = connection
        .prepare_cached("SELECT 1 FROM sagas WHERE id < ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2")?;
    Ok(is_found || others.exists(params![before, limit])?)
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

//! The rows of the table `sagas`, read.

use amends_engine::{Digest, SagaId, SubjectKeyId, Timestamp};
use rusqlite::Row;

use super::column::{parse, status, unreadable};
use crate::saga_row::SagaRow;

/// The columns that [`saga_row`] reads, in their order.
pub(super) const SAGA_COLUMNS: &str = "id, definition, definition_digest, status, reason, started_at, \
                            ended_at, deadline_at, wake_at, tags, key, index_values, \
                            subject_key";

/// Reads one row.
pub(super) fn saga_row(row: &Row<'_>) -> rusqlite::Result<SagaRow> {
    let time = |column| -> rusqlite::Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
    };
    let tags: Option<String> = row.get(9)?;
    let tags = tags.map(|tags| serde_json::from_str(&tags)).transpose();
    let index: Option<String> = row.get(11)?;
    let index = index.map(|index| serde_json::from_str(&index)).transpose();
    Ok(SagaRow {
        id: SagaId::from_bytes(row.get(0)?),
        definition: parse(row, 1)?,
        definition_digest: Digest::from_bytes(row.get(2)?),
        status: status(row, 3)?,
        reason: row.get(4)?,
        started_at: Timestamp::from_millis(row.get(5)?),
        ended_at: time(6)?,
        deadline_at: time(7)?,
        wake_at: time(8)?,
        tags: tags.map_err(|error| unreadable(9, error))?.unwrap_or_default(),
        index: index.map_err(|error| unreadable(11, error))?.unwrap_or_default(),
        key: row.get(10)?,
        subject_key: row.get::<_, Option<_>>(12)?.map(SubjectKeyId::from_bytes),
    })
}

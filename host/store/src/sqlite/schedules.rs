//! The table `schedules`.

use amends_engine::{SagaId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Result, params};

use super::sum::sum_of;
use crate::schedules::ScheduleRow;

/// Returns what is kept of a schedule.
pub(super) fn schedule(connection: &Connection, name: &str) -> Result<Option<ScheduleRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT name, pattern, decided_until, started_at, saga, skipped_at, skipped_reason
         FROM schedules WHERE name = ?1",
    )?;
    let read = |row: &rusqlite::Row<'_>| {
        let time = |index| -> Result<Option<Timestamp>> {
            Ok(row.get::<_, Option<i64>>(index)?.map(Timestamp::from_millis))
        };
        let (started, skipped) = (time(3)?, time(5)?);
        Ok(ScheduleRow {
            name: row.get(0)?,
            pattern: row.get(1)?,
            decided_until: Timestamp::from_millis(row.get(2)?),
            started: match started {
                Some(at) => Some((at, SagaId::from_bytes(row.get(4)?))),
                None => None,
            },
            skipped: match skipped {
                Some(at) => Some((at, row.get(6)?)),
                None => None,
            },
        })
    };
    statement.query_row([name], read).optional()
}

/// Writes a row, within a transaction of the writer.
pub(super) fn save(connection: &Connection, row: &ScheduleRow) -> Result<()> {
    let ScheduleRow { name, pattern, decided_until, started, skipped } = row;
    let saga = started.as_ref().map(|(_, saga)| saga.as_bytes());
    let started_at = started.as_ref().map(|(at, _)| at.as_millis());
    let (skipped_at, reason) = match skipped {
        Some((at, reason)) => (Some(at.as_millis()), Some(reason)),
        None => (None, None),
    };
    let until = decided_until.as_millis();
    let sum = sum_of(params![name, pattern, until, started_at, saga, skipped_at, reason])?;
    connection
        .prepare_cached("INSERT OR REPLACE INTO schedules VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
        .execute(params![name, pattern, until, started_at, saga, skipped_at, reason, sum])?;
    Ok(())
}

//! The rows of a store in a file, read to be copied.

use amends_engine::{IndexValue, SagaId};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Result, Row, Statement};
use serde::de::IgnoredAny;

use super::column::unreadable;
use super::read::last_position;
use super::stream_column::stream;
use crate::copied_row::{Cell, CopiedCounts, CopiedTable};
use crate::shard_id::ShardId;

/// Returns the statement that reads a table. Its columns are what [`read_row`] reads.
fn sql_of(table: CopiedTable) -> &'static str {
    match table {
        CopiedTable::Appends => {
            "SELECT position, stream, version, at, events FROM appends ORDER BY position"
        }
        CopiedTable::Sagas => {
            "SELECT id, definition, definition_digest, status, reason, started_at, ended_at, deadline_at, wake_at,
                 tags, key, index_values, subject_key FROM sagas NOT INDEXED"
        }
        CopiedTable::SagaTags => "SELECT name, value, saga FROM saga_tags",
        CopiedTable::SagaIndex => "SELECT name, value, saga FROM saga_index NOT INDEXED",
        CopiedTable::StartKeys => "SELECT key, saga, payload_digest, at FROM start_keys",
        // The version of the event: the first append that ends there or later has it.
        CopiedTable::Failures => {
            "SELECT (SELECT version - (appends.position - failures.position) FROM appends
                     WHERE appends.position >= failures.position ORDER BY appends.position LIMIT 1),
                 saga, step, element, call, code, digest, text FROM failures NOT INDEXED"
        }
        CopiedTable::State => "SELECT plugin, key, value FROM state",
        CopiedTable::Blobs => "SELECT kind, digest, name, at, bytes FROM blobs",
        CopiedTable::Segments => {
            "SELECT id, file, digest, first, last, sagas, events, bytes, at FROM segments"
        }
        CopiedTable::Archived => {
            "SELECT saga, version, segment, definition, status, started_at, ended_at, key, subject_key
             FROM archived NOT INDEXED"
        }
        CopiedTable::Subscriptions => "SELECT name, position, disabled FROM subscriptions",
        CopiedTable::DeadLetters => {
            "SELECT subscription, place, stream, version, type, at, attempts, error FROM dead_letters"
        }
        CopiedTable::Schedules => {
            "SELECT name, pattern, decided_until, started_at, saga, skipped_at, skipped_reason FROM schedules"
        }
    }
}

/// Prepares the statement that reads a table.
pub(crate) fn statement(connection: &Connection, table: CopiedTable) -> Result<Statement<'_>> {
    connection.prepare(sql_of(table))
}

/// Counts the rows of a table.
pub(crate) fn count(connection: &Connection, table: CopiedTable) -> Result<u64> {
    let sql = format!("SELECT count(*) FROM {}", table.name());
    Ok(connection.query_row(&sql, [], |row| row.get::<_, i64>(0))?.unsigned_abs())
}

/// Reads a row of a table.
pub(crate) fn read_row(table: CopiedTable, row: &Row<'_>) -> Result<Vec<Cell>> {
    if table == CopiedTable::Appends {
        return append(row);
    }
    let mut cells = Vec::with_capacity(14);
    for column in 0..row.as_ref().column_count() {
        cells.push(match (table, column) {
            (CopiedTable::SagaIndex, 1) => Cell::Index(index_value(row, column)?),
            (CopiedTable::DeadLetters, 2) => Cell::Stream(stream(row, column)?),
            _ => cell(row, column)?,
        });
    }
    if table == CopiedTable::Sagas {
        let shard = ShardId::of(SagaId::from_bytes(row.get(0)?)).number();
        cells.insert(1, Cell::Integer(i64::from(shard)));
    }
    Ok(cells)
}

/// Reads an append: its position, the saga or the stream, the versions of its first and last event, its time, its
/// events.
fn append(row: &Row<'_>) -> Result<Vec<Cell>> {
    let events: String = row.get(4)?;
    let count = serde_json::from_str::<Vec<IgnoredAny>>(&events);
    let count = count.map_err(|error| unreadable(4, error))?.len();
    let version: i64 = row.get(2)?;
    let stream = stream(row, 1)?;
    let (saga, stream) = match stream.saga() {
        Some(id) => (Cell::Bytes(id.as_bytes().to_vec()), Cell::Null),
        None => (Cell::Null, Cell::Stream(stream)),
    };
    let first = version + 1 - i64::try_from(count).unwrap_or(i64::MAX);
    Ok(vec![
        cell(row, 0)?,
        saga,
        stream,
        Cell::Integer(first),
        Cell::Integer(version),
        cell(row, 3)?,
        Cell::Text(events),
    ])
}

fn cell(row: &Row<'_>, column: usize) -> Result<Cell> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Integer(number),
        ValueRef::Text(_) => Cell::Text(row.get(column)?),
        ValueRef::Blob(bytes) => Cell::Bytes(bytes.to_vec()),
        ValueRef::Real(number) => {
            return Err(unreadable(column, format!("{number} is no whole number")));
        }
    })
}

fn index_value(row: &Row<'_>, column: usize) -> Result<IndexValue> {
    Ok(match row.get_ref(column)? {
        ValueRef::Integer(number) => IndexValue::Number(number.into()),
        ValueRef::Real(number) => {
            let number = serde_json::Number::from_f64(number);
            IndexValue::Number(number.ok_or_else(|| unreadable(column, "it is not finite"))?)
        }
        ValueRef::Text(_) => IndexValue::Text(row.get(column)?),
        ValueRef::Blob([0]) => IndexValue::Bool(false),
        ValueRef::Blob([1]) => IndexValue::Bool(true),
        ValueRef::Null | ValueRef::Blob(_) => {
            return Err(unreadable(column, "it is no value of an index"));
        }
    })
}

/// Reads what the store counts apart from its rows.
pub(crate) fn counts(connection: &Connection) -> Result<CopiedCounts> {
    let meta = |name: &str| -> Result<i64> {
        let sql = "SELECT value FROM meta WHERE name = ?1";
        Ok(connection.query_row(sql, [name], |row| row.get(0)).optional()?.unwrap_or(0))
    };
    Ok(CopiedCounts {
        last_position: i64::try_from(last_position(connection)?.0).unwrap_or(i64::MAX),
        start_delay: meta("start_delay")?,
        longest_life: meta("longest_life")?,
    })
}

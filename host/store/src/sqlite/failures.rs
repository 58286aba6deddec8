//! The tables `failures` and `failure_texts`, written.
//!
//! Triggers keep `failure_texts`, the index of words, as the table is.

use std::time::Duration;

use amends_engine::{Digest, Event, Position, SagaId, StepName};
use rusqlite::{Connection, ErrorCode, params};

use super::append_columns::{APPEND_COLUMNS, append_events};
use super::column::{readable, to_integer};
use super::connection::BUSY_WAIT;
use super::schema::FAILURE_TABLES;
use crate::saga_failure::{SagaFailure, failures};
use crate::stream::Stream;

/// Returns the column `element` of a step: -1 when it is none of a list.
pub(super) fn element_of(step: Option<&StepName>) -> i64 {
    let number = step.and_then(StepName::number);
    number.map_or(-1, |number| i64::try_from(number).unwrap_or(i64::MAX))
}

/// Writes a failure in the place of the one before of the same step and call.
pub(super) fn put_failure(
    connection: &Connection,
    saga: SagaId,
    position: Position,
    failure: &SagaFailure,
) -> rusqlite::Result<()> {
    let SagaFailure { event: _, step, call, code, text, digest } = failure;
    let (name, element) = (step.as_ref().map_or("", StepName::step), element_of(step.as_ref()));
    let (id, call) = (saga.as_bytes(), call.as_str());
    // Not `REPLACE`, which would not tell the triggers what it removes.
    connection
        .prepare_cached(
            "DELETE FROM failures WHERE saga = ?1 AND step = ?2 AND element = ?3 AND call = ?4",
        )?
        .execute(params![id, name, element, call])?;
    connection
        .prepare_cached("INSERT OR IGNORE INTO failures VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
        .execute(params![
            to_integer(position.0),
            id,
            name,
            element,
            call,
            code,
            digest.as_ref().map(Digest::as_bytes),
            text,
        ])?;
    Ok(())
}

/// Removes the failures of a saga.
pub(super) fn remove_failures(connection: &Connection, saga: SagaId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM failures WHERE saga = ?1")?
        .execute([saga.as_bytes()])?;
    Ok(())
}

/// The events from which failures are derived.
const KINDS: [&str; 7] = [
    "step.started",
    "step.failed",
    "step.unknown",
    "undo.started",
    "undo.failed",
    "undo.blocked",
    "saga.blocked",
];

/// Writes the failures of a saga anew, from its events. What cannot be read is passed over.
pub(super) fn derive_failures(connection: &Connection, saga: SagaId) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {APPEND_COLUMNS} FROM appends WHERE stream = ?1 ORDER BY version"
    ))?;
    let mut rows = statement.query([Stream::Saga(saga)])?;
    let (mut events, mut positions) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let Ok(appended) = readable(append_events(row), APPEND_COLUMNS)? else { continue };
        for event in appended.into_iter().filter(|event| KINDS.contains(&event.kind.as_str())) {
            if let Ok(decoded) = Event::decode(&event.kind, &event.data) {
                events.push(decoded);
                positions.push(event.position);
            }
        }
    }
    remove_failures(connection, saga)?;
    for failure in failures(&events, |_, _| None) {
        put_failure(connection, saga, positions[failure.event], &failure)?;
    }
    Ok(())
}

/// Writes the failures of all sagas, once: earlier versions did not. Does it again when the index of
/// words is damaged.
pub(super) fn learn_failures(connection: &Connection) -> rusqlite::Result<()> {
    let known = "SELECT count(*) FROM meta WHERE name = 'failures'";
    let is_known = connection.query_row(known, [], |row| row.get::<_, i64>(0))? > 0;
    if is_known && can_write(connection)? {
        return Ok(());
    }
    if connection.query_row("SELECT EXISTS (SELECT 1 FROM appends)", [], |row| row.get(0))? {
        tracing::info!("the whole log is read once for the failures in it");
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let learned = learn_all(connection);
    connection.execute_batch(if learned.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    learned
}

fn learn_all(connection: &Connection) -> rusqlite::Result<()> {
    // They may be damaged, and have nothing that the events do not have.
    connection
        .execute_batch("DROP TABLE IF EXISTS failure_texts; DROP TABLE IF EXISTS failures;")?;
    connection.execute_batch(FAILURE_TABLES)?;
    // Whole words of JSON: a text that has them as well costs one more look.
    let mut failed = connection.prepare(
        "SELECT DISTINCT stream FROM appends WHERE typeof(stream) = 'blob'
         AND (events LIKE '%[\"step.failed\",%' OR events LIKE '%[\"step.unknown\",%'
           OR events LIKE '%[\"undo.failed\",%' OR events LIKE '%[\"undo.blocked\",%'
           OR events LIKE '%[\"saga.blocked\",%')",
    )?;
    let mut rows = failed.query([])?;
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break,
            // What is damaged is said when it is read for more than a search.
            Err(error) if is_corrupt(&error) => {
                tracing::error!(%error, "the failures in a part of the log cannot be read");
                break;
            }
            Err(error) => return Err(error),
        };
        // An id that is none has no saga.
        let Ok(id) = row.get(0).map(SagaId::from_bytes) else { continue };
        match derive_failures(connection, id) {
            Err(error) if is_corrupt(&error) => {
                tracing::error!(saga_id = %id, %error, "the failures of a saga cannot be read");
            }
            derived => derived?,
        }
    }
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('failures', 1)", [])?;
    Ok(())
}

/// Returns false when the index of words is damaged where words are added: then no failure can be written.
fn can_write(connection: &Connection) -> rusqlite::Result<bool> {
    // Without waiting: whoever writes beside this is about to lose the store, and the next start looks again.
    connection.busy_timeout(Duration::ZERO)?;
    // A savepoint has FTS5 write what it holds in memory.
    let written = connection.execute_batch(
        "BEGIN IMMEDIATE;
         INSERT INTO failures VALUES (-1, x'', '', -1, 'execute', '', NULL, 'probe');
         SAVEPOINT probe",
    );
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    connection.busy_timeout(BUSY_WAIT)?;
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(true),
        Err(error) if is_corrupt(&error) || has_constraint(&error) => {
            tracing::error!(%error, "the search by failures is damaged, and is made anew");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn has_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

/// Returns true when a part of the database is damaged.
pub(super) fn is_corrupt(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

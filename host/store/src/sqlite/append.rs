//! One append within a transaction.

use std::collections::BTreeMap;

use amends_engine::{Position, SagaId, SubjectKeyId, Timestamp, Version};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;

use super::append_columns::events_column;
use super::archived_columns::archived_version;
use super::column::to_integer;
use super::error::{describe, is_unreadable};
use super::failures::put_failure;
use super::saga_index::put_index;
use super::start_delay::{delay_of, note_start_delay};
use super::state::PlannedStates;
use super::statements::Statements;
use super::sum::sum_of;
use super::writer_cache::WriterCache;
use crate::append::{Append, Appended, StartKey};
use crate::error::StoreError;
use crate::saga_row::SagaRow;
use crate::stream::Stream;
use amends_failpoint::failpoint;

/// The result of checking an append before anything of it is written.
enum AppendCheck<'a> {
    /// The append may be written, with these values of plugins' state.
    Write(PlannedStates<'a>),
    /// The append is not written, and this is the answer.
    Refuse(Appended),
}

impl WriterCache {
    /// Writes one append within a transaction. The inner error concerns this append alone; the
    /// outer one is a failure of the database. All checks come before the first write, so a refused
    /// append leaves nothing behind.
    pub(super) fn append(
        &mut self,
        statements: &mut Statements<'_>,
        append: &Append,
    ) -> rusqlite::Result<Result<Appended, StoreError>> {
        let connection = statements.connection;
        let state = match self.check(connection, append) {
            Ok(Ok(AppendCheck::Write(state))) => state,
            Ok(Ok(AppendCheck::Refuse(refused))) => return Ok(Ok(refused)),
            Ok(Err(error)) => return Ok(Err(error)),
            // A stored value that only this append depends on must not fail the others.
            Err(error) if is_unreadable(&error) => {
                return Ok(Err(describe(error)));
            }
            Err(error) => return Err(error),
        };
        let version = append.expected.plus(append.events.len());
        self.position.0 += append.events.len() as u64;
        let (position, version_column) = (to_integer(self.position.0), to_integer(version.0));
        let (at, events) = (append.at.as_millis(), events_column(&append.events));
        insert_append(statements, (position, &append.stream, version_column, at, &events))?;
        failpoint("store.append.events_written");
        self.write_state(connection, state)?;
        if let Some(row) = &append.row {
            put_row(statements, row, append.expected == Version(0))?;
            self.note_life(connection, row)?;
        }
        if let Some(saga) = append.stream.saga() {
            let first = self.position.0 + 1 - append.events.len() as u64;
            for failure in &append.failures {
                let position = Position(first + failure.event as u64);
                put_failure(connection, saga, position, failure)?;
            }
        }
        if let Some(start_key) = &append.start_key {
            put_key(connection, start_key, &append.stream, append.at)?;
        }
        let has_ended = append.row.as_ref().is_some_and(|row| row.ended_at.is_some());
        self.note_version(&append.stream, version, has_ended);
        Ok(Ok(Appended::Done { version }))
    }

    /// Checks an append against what is stored.
    fn check<'a>(
        &mut self,
        connection: &Connection,
        append: &'a Append,
    ) -> rusqlite::Result<Result<AppendCheck<'a>, StoreError>> {
        if let Some(start_key) = &append.start_key
            && let Some(known) = known_key(connection, start_key)?
        {
            return Ok(Ok(AppendCheck::Refuse(known)));
        }
        let (actual, is_archived) = self.version(connection, &append.stream)?;
        if actual != append.expected || is_archived {
            let (stream, expected) = (append.stream.clone(), append.expected);
            return Ok(Err(StoreError::Conflict { stream, expected, actual }));
        }
        let state = self.check_state(connection, &append.state)?;
        Ok(Ok(state.map_or_else(AppendCheck::Refuse, AppendCheck::Write)))
    }

    /// Returns the version that a stream has now, and whether its saga is in the archive, so that
    /// nothing is appended to it.
    fn version(
        &self,
        connection: &Connection,
        stream: &Stream,
    ) -> rusqlite::Result<(Version, bool)> {
        if let Some(version) = self.versions_cache.get(stream) {
            return Ok((*version, false));
        }
        let version: Option<i64> = connection
            .prepare_cached("SELECT max(version) FROM appends WHERE stream = ?1")?
            .query_row([stream], |row| row.get(0))?;
        if let Some(version) = version {
            return Ok((Version(version.unsigned_abs()), false));
        }
        let archived = match stream.saga() {
            Some(id) => archived_version(connection, id)?,
            None => None,
        };
        Ok((archived.unwrap_or(Version(0)), archived.is_some()))
    }
}

/// Returns the answer to a start whose key has started a saga before.
pub(super) fn known_key(
    connection: &Connection,
    start_key: &StartKey,
) -> rusqlite::Result<Option<Appended>> {
    let known = connection
        .prepare_cached("SELECT saga, payload_digest FROM start_keys WHERE key = ?1")?
        .query_row([&start_key.key], |row| Ok((row.get(0)?, row.get::<_, [u8; 32]>(1)?)))
        .optional()?;
    Ok(known.map(|(saga, digest)| {
        let saga = SagaId::from_bytes(saga);
        if digest == *start_key.payload_digest.as_bytes() {
            Appended::Duplicate(saga)
        } else {
            Appended::KeyReused(saga)
        }
    }))
}

/// Writes the start key of a saga. Nothing else has the key.
pub(super) fn put_key(
    connection: &Connection,
    StartKey { key, payload_digest }: &StartKey,
    stream: &Stream,
    at: Timestamp,
) -> rusqlite::Result<()> {
    let (digest, at) = (payload_digest.as_bytes(), at.as_millis());
    let sum = sum_of(params![key, stream, digest, at])?;
    connection
        .prepare_cached("INSERT OR REPLACE INTO start_keys VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![key, stream, digest, at, sum])?;
    Ok(())
}

/// Writes a row of the table `appends`: its position, stream, version, time and events.
pub(super) fn insert_append(
    statements: &mut Statements<'_>,
    (position, stream, version, at, events): (i64, &Stream, i64, i64, &str),
) -> rusqlite::Result<()> {
    let sum = sum_of(params![position, stream, version, at, events])?;
    statements.insert_append(params![position, stream, version, at, events, sum])?;
    Ok(())
}

/// Writes the row of a saga.
pub(super) fn put_row(
    statements: &mut Statements<'_>,
    row: &SagaRow,
    is_new: bool,
) -> rusqlite::Result<()> {
    if !is_new && update_row(statements, row)? {
        return Ok(());
    }
    let tags = json_column(&row.tags)?;
    let index = json_column(&row.index)?;
    note_start_delay(statements.connection, delay_of(row.id, row.started_at))?;
    statements.insert_saga(params![
        row.id.as_bytes(),
        row.definition.as_str(),
        row.definition_digest.as_bytes(),
        row.status.as_str(),
        row.reason,
        row.started_at.as_millis(),
        row.ended_at.map(Timestamp::as_millis),
        row.deadline_at.map(Timestamp::as_millis),
        row.wake_at.map(Timestamp::as_millis),
        tags,
        row.key,
        index,
        row.subject_key.as_ref().map(SubjectKeyId::as_bytes),
    ])?;
    // The key is the whole row: one that damage has left there is the same.
    for (name, value) in &row.tags {
        statements
            .connection
            .prepare_cached("INSERT OR IGNORE INTO saga_tags VALUES (?1, ?2, ?3)")?
            .execute(params![name, value, row.id.as_bytes()])?;
    }
    put_index(statements.connection, row)
}

/// Returns the column of a map: its JSON, or NULL when it is empty.
fn json_column<N: Serialize, V: Serialize>(
    map: &BTreeMap<N, V>,
) -> rusqlite::Result<Option<String>> {
    let json = (!map.is_empty()).then(|| serde_json::to_string(map)).transpose();
    json.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// Updates the row of a saga. Returns false when there is none.
fn update_row(statements: &mut Statements<'_>, row: &SagaRow) -> rusqlite::Result<bool> {
    let rows = statements.update_saga(params![
        row.id.as_bytes(),
        row.status.as_str(),
        row.reason,
        row.ended_at.map(Timestamp::as_millis),
        row.deadline_at.map(Timestamp::as_millis),
        row.wake_at.map(Timestamp::as_millis),
    ])?;
    Ok(rows > 0)
}

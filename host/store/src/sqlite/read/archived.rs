//! Sagas that may go to the archive, and what is left of those that went.

use amends_engine::{Position, SagaId, Timestamp, Version};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Result, params};

use crate::archive::{EndedContent, EndedPage, EndedSaga, Tombstone};
use crate::paging::PageBudget;
use crate::saga_query::SagaQuery;
use crate::saga_row::SagaRow;
use crate::segment::{ARCHIVED_SAGA_BYTES_MAX, SagaLine};
use crate::sqlite::append_columns::{APPEND_COLUMNS, append_events};
use crate::sqlite::archived_columns::{TOMBSTONE_COLUMNS, TOMBSTONES, tombstone};
use crate::sqlite::column::{id_text, readable};
use crate::sqlite::saga_columns::{SAGA_COLUMNS, saga_row};
use crate::sqlite::start_delay::last_id;
use crate::stored_event::StoredEvent;
use crate::stream::Stream;

use super::list::page;
use super::selection::{id_part, shared_conditions};

/// The bytes of lines after which [`lines`] ends a page.
const LINES_BYTES: usize = 4 << 20;

/// A saga as it goes into a segment; or why it stays.
pub(crate) struct ArchivableSaga {
    pub(crate) id: SagaId,
    pub(crate) content: std::result::Result<LineOfSaga, String>,
}

/// The line of a saga and what it holds.
pub(crate) struct LineOfSaga {
    pub(crate) version: Version,
    pub(crate) text: String,
}

/// Returns a page of ended sagas, see [`crate::Archive::ended`]. It walks the table itself, because
/// an index by the time of the end would cost each append.
pub(crate) fn ended(
    connection: &Connection,
    before: Timestamp,
    after: Option<SagaId>,
    budget: PageBudget,
) -> Result<EndedPage> {
    let snapshot = connection.unchecked_transaction()?;
    let mut statement = snapshot.prepare_cached(&format!(
        "SELECT {SAGA_COLUMNS} FROM sagas NOT INDEXED WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT ?3"
    ))?;
    let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
    let mut rows = statement.query(params![after, last_id(before).as_slice(), budget.items])?;
    let (mut page, mut looked, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        looked += 1;
        let Ok(id) = row.get(0).map(SagaId::from_bytes) else {
            tracing::error!(saga_id = id_text(row), "a row is not archived: its id is none");
            continue;
        };
        last = Some(id);
        let content = match readable(saga_row(row), SAGA_COLUMNS)? {
            Ok(found) if found.ended_at.is_none_or(|at| at >= before) => continue,
            Ok(row) => ended_content(&snapshot, row)?,
            Err(reason) => Err(format!("its row: {reason}")),
        };
        page.push(EndedSaga { id, content });
    }
    let next = last.filter(|_| looked == budget.items && looked > 0);
    Ok(EndedPage { sagas: page, next })
}

/// Returns what decides about a saga; the inner error is the reason why it cannot be read.
fn ended_content(
    connection: &Connection,
    row: SagaRow,
) -> Result<std::result::Result<EndedContent, String>> {
    let first = events_of(connection, row.id, "ASC")?;
    let last = events_of(connection, row.id, "DESC")?;
    let no_events = || "one of its appends has no events".to_owned();
    let content = || {
        let first = first?.into_iter().next().ok_or_else(no_events)?;
        let last = last?.pop().ok_or_else(no_events)?;
        Ok(EndedContent { row, first, last })
    };
    Ok(content())
}

/// Returns the events of the first append of a saga by this order.
fn events_of(
    connection: &Connection,
    id: SagaId,
    order: &str,
) -> Result<std::result::Result<Vec<StoredEvent>, String>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {APPEND_COLUMNS} FROM appends WHERE stream = ?1 ORDER BY version {order} LIMIT 1"
    ))?;
    let mut rows = statement.query([Stream::Saga(id)])?;
    let Some(row) = rows.next()? else { return Ok(Err("it has no events".to_owned())) };
    let events = readable(append_events(row), APPEND_COLUMNS)?;
    Ok(events.map(|events| events.into_iter().map(StoredEvent::from).collect()))
}

/// Returns the lines of the first of some sagas, as many as a page holds; at least one.
pub(crate) fn lines(connection: &Connection, ids: &[SagaId]) -> Result<Vec<ArchivableSaga>> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for id in ids {
        let content = line(connection, *id)?;
        bytes += content.as_ref().map_or(0, |line| line.text.len());
        page.push(ArchivableSaga { id: *id, content });
        if bytes >= LINES_BYTES {
            break;
        }
    }
    Ok(page)
}

/// Returns the line of a saga, or the reason why it has none. All of it is one snapshot.
fn line(connection: &Connection, id: SagaId) -> Result<std::result::Result<LineOfSaga, String>> {
    let snapshot = connection.unchecked_transaction()?;
    let bytes: Option<i64> = snapshot
        .prepare_cached("SELECT sum(octet_length(events)) FROM appends WHERE stream = ?1")?
        .query_row([Stream::Saga(id)], |row| row.get(0))?;
    if usize::try_from(bytes.unwrap_or(0)).unwrap_or(usize::MAX) > ARCHIVED_SAGA_BYTES_MAX {
        return Ok(Err(too_large()));
    }
    let mut statement =
        snapshot.prepare_cached(&format!("SELECT {SAGA_COLUMNS} FROM sagas WHERE id = ?1"))?;
    let mut rows = statement.query([id.as_bytes()])?;
    let row: SagaRow = match rows.next()? {
        None => return Ok(Err("it has no row".to_owned())),
        Some(row) => match readable(saga_row(row), SAGA_COLUMNS)? {
            Ok(row) => row,
            Err(reason) => return Ok(Err(format!("its row: {reason}"))),
        },
    };
    let Some(mut line) = SagaLine::new(&row) else {
        return Ok(Err("it has not ended".to_owned()));
    };
    let mut statement = snapshot.prepare_cached(&format!(
        "SELECT {APPEND_COLUMNS} FROM appends WHERE stream = ?1 ORDER BY version"
    ))?;
    let mut rows = statement.query([Stream::Saga(id)])?;
    let mut version = Version(0);
    while let Some(row) = rows.next()? {
        let number = version.0 + 1;
        let events = match readable(append_events(row), APPEND_COLUMNS)? {
            Ok(events) => events,
            Err(reason) => return Ok(Err(format!("its event {number}: {reason}"))),
        };
        let first = events.first().map(|event| event.version.0);
        let Some(last) = events.last().filter(|_| first == Some(number)) else {
            return Ok(Err(format!("its event {number} is missing")));
        };
        let text: String = row.get(4)?;
        if let Err(error) = line.push(last.position, last.version, last.at, &text) {
            return Ok(Err(format!("its event {number}: {error}")));
        }
        version = last.version;
    }
    if version == Version(0) {
        return Ok(Err("it has no events".to_owned()));
    }
    Ok(match line.to_text() {
        Ok(text) if text.len() > ARCHIVED_SAGA_BYTES_MAX => Err(too_large()),
        Ok(text) => Ok(LineOfSaga { version, text }),
        Err(error) => Err(error.to_string()),
    })
}

fn too_large() -> String {
    format!("it has more than {} MiB, so it stays in the store", ARCHIVED_SAGA_BYTES_MAX >> 20)
}

/// Returns the tombstone of a saga.
pub(crate) fn tombstone_of(connection: &Connection, id: SagaId) -> Result<Option<Tombstone>> {
    connection
        .prepare_cached(&format!("SELECT {TOMBSTONE_COLUMNS} FROM {TOMBSTONES} WHERE saga = ?1"))?
        .query_row([id.as_bytes()], tombstone)
        .optional()
}

/// Returns the tombstones that match, see [`crate::Archive::list`].
pub(crate) fn tombstones(connection: &Connection, query: &SagaQuery) -> Result<Vec<Tombstone>> {
    let mut conditions = shared_conditions(connection, query, "saga")?;
    if let Some(key) = &query.key {
        let is_saga = "saga = (SELECT saga FROM start_keys WHERE start_keys.key = ?)";
        conditions.add(is_saga, [Value::Text(key.clone())]);
    }
    if let Some(part) = &query.id {
        id_part(part, "saga", &mut conditions);
    }
    let (wheres, values) = conditions.into_parts();
    let sql = format!(
        "SELECT {TOMBSTONE_COLUMNS} FROM {TOMBSTONES} WHERE {wheres} ORDER BY saga DESC LIMIT -1"
    );
    page(connection, &sql, values, query.limit, |row| readable(tombstone(row), TOMBSTONE_COLUMNS))
}

/// Returns the names of the files of the archive.
pub(crate) fn segment_files(connection: &Connection) -> Result<Vec<String>> {
    connection
        .prepare_cached("SELECT file FROM segments ORDER BY id")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Returns a file of the archive by its number: its name and its hash.
pub(crate) fn segments_after(
    connection: &Connection,
    after: i64,
) -> Result<Option<(i64, String, [u8; 32])>> {
    connection
        .prepare_cached("SELECT id, file, digest FROM segments WHERE id > ?1 ORDER BY id LIMIT 1")?
        .query_row([after], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()
}

/// Returns when the oldest saga ended that has ended and has a row.
pub(crate) fn oldest_ended(connection: &Connection) -> Result<Option<Timestamp>> {
    let oldest =
        "SELECT ended_at FROM sagas NOT INDEXED WHERE ended_at IS NOT NULL ORDER BY id LIMIT 1";
    let at = connection.query_row(oldest, [], |row| row.get(0).map(Timestamp::from_millis));
    at.optional()
}

/// Returns the start keys of archived sagas that ended before a time, at most `limit`.
pub(crate) fn old_keys(
    connection: &Connection,
    before: Timestamp,
    limit: u32,
) -> Result<Vec<(SagaId, String)>> {
    // A saga that ended before the time was made before it.
    let made = crate::sqlite::start_delay::first_id(before, 0);
    connection
        .prepare_cached(
            "SELECT saga, key FROM archived INDEXED BY archived_keys
             WHERE key IS NOT NULL AND saga < ?1 AND ended_at < ?2 LIMIT ?3",
        )?
        .query_map(params![made.as_slice(), before.as_millis(), limit], |row| {
            Ok((SagaId::from_bytes(row.get(0)?), row.get(1)?))
        })?
        .collect()
}

/// Returns the position of the last event that was ever stored. It is that of the last row, unless
/// the last rows were archived. Only a database of schema 5 has the other number.
pub(crate) fn last_position(connection: &Connection) -> Result<Position> {
    let last = "SELECT max(
        coalesce((SELECT max(position) FROM appends), 0),
        coalesce((SELECT value FROM meta WHERE name = 'position'), 0))";
    connection.query_row(last, [], |row| row.get::<_, i64>(0)).map(|at| Position(at.unsigned_abs()))
}

/// Returns how many events are in the archive or were deleted.
pub(crate) fn archived_events(connection: &Connection) -> Result<u64> {
    let count = "SELECT coalesce((SELECT value FROM meta WHERE name = 'archived_events'), 0)";
    connection.query_row(count, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

/// Returns the first of some sagas that is neither in the store nor archived.
pub(crate) fn first_unknown(connection: &Connection, sagas: &[SagaId]) -> Result<Option<SagaId>> {
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM sagas WHERE id = ?1 UNION ALL SELECT 1 FROM archived WHERE saga = ?1",
    )?;
    for saga in sagas {
        if !statement.exists([saga.as_bytes()])? {
            return Ok(Some(*saga));
        }
    }
    Ok(None)
}

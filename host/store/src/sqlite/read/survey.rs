//! What the store holds: from indexes, a sample of the log, and searches by position.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use amends_engine::{Position, SagaId, SagaStatus, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Result, params};

use super::archived::archived_events;
use super::lookup::count_events;
use crate::month::{Month, scatter};
use crate::sqlite::append_columns::{APPEND_COLUMNS, AppendedEvent, events_or_reason};
use crate::sqlite::clock::now;
use crate::sqlite::column::{status, to_integer};
use crate::sqlite::file::log_bytes;
use crate::sqlite::start_delay::first_id;
use crate::stored_event::EVENT_UNREADABLE;
use crate::survey::{
    ArchivedCount, Growth, MonthCount, SURVEY_EVENTS_MAX, SURVEY_TYPES_MAX, SagaCount, StoreSurvey,
    TypeCount,
};

/// The time over which growth is measured.
const GROWTH_TIME: Duration = Duration::from_hours(24 * 7);

/// The age that a store needs to have before its growth is worth telling.
const GROWTH_TIME_MIN: Duration = Duration::from_hours(1);

/// The most months that are told, the latest ones: a clock that was once in 1970 adds no thousand
/// rows.
const MONTHS_MAX: usize = 120;

/// Returns what the store at `path` holds, see [`crate::Maintenance::survey`]. All of it is one
/// snapshot.
pub(crate) fn survey(connection: &Connection, path: &Path) -> Result<StoreSurvey> {
    let snapshot = connection.unchecked_transaction()?;
    let pragma = |name| snapshot.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let page_bytes = pragma("page_size")?.unsigned_abs();
    let bytes = pragma("page_count")?.unsigned_abs() * page_bytes;
    let free_bytes = pragma("freelist_count")?.unsigned_abs() * page_bytes;
    let events = count_events(&snapshot)?;
    let archived = archived(&snapshot)?;
    // Only the others have rows.
    let kept = events.saturating_sub(archived.events);
    let (types, events_sampled) = types(&snapshot, events, kept)?;
    let now = now();
    Ok(StoreSurvey {
        bytes,
        wal_bytes: log_bytes(path),
        free_bytes,
        page_bytes,
        events,
        sagas: sagas(&snapshot)?,
        types,
        events_sampled,
        months: months(&snapshot, events, now)?,
        growth: growth(&snapshot, (events, kept), bytes.saturating_sub(free_bytes), now)?,
        archived,
        oldest_live: oldest_live(&snapshot)?,
    })
}

/// Counts sagas by definition and status. The sagas of rare statuses and the live ones are looked up
/// one by one; no index has the status of a completed saga, so each saga that is not among them is
/// completed.
fn sagas(connection: &Connection) -> Result<Vec<SagaCount>> {
    let mut counts: BTreeMap<(String, &'static str), SagaCount> = BTreeMap::new();
    let mut others: BTreeMap<String, u64> = BTreeMap::new();
    for (index, condition) in [
        ("sagas_rare", "status <> 'running' AND status <> 'waiting' AND status <> 'completed'"),
        ("sagas_live", "ended_at IS NULL AND status <> 'waiting' AND status = 'running'"),
        ("sagas_waiting", "status = 'waiting'"),
    ] {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT definition, status, count(*) FROM sagas INDEXED BY {index} WHERE {condition}
             GROUP BY definition, status"
        ))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (definition, status) = (row.get::<_, String>(0)?, status(row, 1)?);
            let sagas = row.get::<_, i64>(2)?.unsigned_abs();
            *others.entry(definition.clone()).or_default() += sagas;
            let key = (definition.clone(), status.as_str());
            counts.insert(key, SagaCount { definition, status, sagas });
        }
    }
    let status = SagaStatus::Completed;
    let all =
        "SELECT definition, count(*) FROM sagas INDEXED BY sagas_definition GROUP BY definition";
    let mut statement = connection.prepare_cached(all)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (definition, all) = (row.get::<_, String>(0)?, row.get::<_, i64>(1)?.unsigned_abs());
        let sagas = all.saturating_sub(others.get(&definition).copied().unwrap_or(0));
        if sagas > 0 {
            let key = (definition.clone(), status.as_str());
            counts.insert(key, SagaCount { definition, status, sagas });
        }
    }
    Ok(counts.into_values().collect())
}

/// Counts the `kept` events by type: all of them when they are few, else those of a sample. The log is divided
/// into equal parts, and one event of each is read. Which one it is follows from the number of the
/// part, so that two surveys of one log are equal; a fixed distance would meet the same step of
/// sagas again and again. A position whose event was archived counts for nothing. Returns the number of
/// events that were read as well.
fn types(connection: &Connection, events: u64, kept: u64) -> Result<(Vec<TypeCount>, u64)> {
    let mut found: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let first = if kept == events { 0 } else { position_before_first(connection)? };
    let parts = (events - first.min(events)).min(SURVEY_EVENTS_MAX);
    let mut sampled = 0;
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {APPEND_COLUMNS} FROM appends WHERE position >= ?1 ORDER BY position LIMIT 1"
    ))?;
    for part in 0..parts {
        let [begin, end] = [part, part + 1].map(|part| {
            let begin = u128::from(part) * u128::from(events - first) / u128::from(parts);
            first + u64::try_from(begin).unwrap_or(u64::MAX)
        });
        let position = Position(begin + 1 + scatter(part) % (end - begin));
        let mut rows = statement.query([to_integer(position.0)])?;
        let Some(row) = rows.next()? else { continue };
        let appended = events_or_reason(row)?;
        // An append that cannot be read is one event, which stands for all of them.
        let is_unreadable = |event: &&AppendedEvent<'_>| event.kind == EVENT_UNREADABLE;
        let Some(event) = appended
            .iter()
            .find(|event| event.position == position)
            .or_else(|| appended.first().filter(is_unreadable))
        else {
            continue;
        };
        sampled += 1;
        let (count, bytes) = found.entry(event.kind.clone()).or_default();
        *count += 1;
        *bytes += (event.kind.len() + event.data.len()) as u64;
    }
    let all = |number: u64| {
        let all = u128::from(number) * u128::from(kept) / u128::from(sampled.max(1));
        u64::try_from(all).unwrap_or(u64::MAX)
    };
    let mut types: Vec<_> = found
        .into_iter()
        .map(|(kind, (events, bytes))| TypeCount { kind, events: all(events), bytes: all(bytes) })
        .collect();
    types.sort_by(|one, other| other.events.cmp(&one.events).then(one.kind.cmp(&other.kind)));
    types.truncate(SURVEY_TYPES_MAX);
    Ok((types, sampled))
}

/// Returns how many of `events` events were stored before a time, by a binary search of the log.
fn events_before(connection: &Connection, time: Timestamp, events: u64) -> Result<u64> {
    let mut statement = connection.prepare_cached(
        "SELECT position, at FROM appends WHERE position >= ?1 ORDER BY position LIMIT 1",
    )?;
    // Events up to `before` are before the time, those after `end` are not.
    let (mut before, mut end) = (0, events);
    while before < end {
        let middle = before + (end - before) / 2;
        let row = |row: &rusqlite::Row<'_>| {
            Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1).unwrap_or(0)))
        };
        match statement.query_row([to_integer(middle + 1)], row).optional()? {
            Some((last, at)) if at < time.as_millis() => before = last.clamp(middle + 1, end),
            Some(_) | None => end = middle,
        }
    }
    Ok(before)
}

/// Returns the position before the first event that has a row; 0 when there is none.
fn position_before_first(connection: &Connection) -> Result<u64> {
    let first =
        "SELECT position - CASE json_valid(events) WHEN 1 THEN json_array_length(events) ELSE 1 END
                 FROM appends ORDER BY position LIMIT 1";
    let before = connection.query_row(first, [], |row| row.get::<_, i64>(0)).optional()?;
    Ok(before.unwrap_or(0).max(0).unsigned_abs())
}

/// Counts what is in the archive or was deleted.
fn archived(connection: &Connection) -> Result<ArchivedCount> {
    let sagas = "SELECT coalesce((SELECT value FROM meta WHERE name = 'archived_sagas'), 0)";
    let sagas = connection.query_row(sagas, [], |row| row.get::<_, i64>(0))?.unsigned_abs();
    let files = "SELECT count(*), coalesce(sum(bytes), 0) FROM segments";
    connection.query_row(files, [], |row| {
        Ok(ArchivedCount {
            sagas,
            events: archived_events(connection)?,
            segments: row.get::<_, i64>(0)?.unsigned_abs(),
            bytes: row.get::<_, i64>(1)?.unsigned_abs(),
        })
    })
}

/// Returns the time of the first event, if there is one.
fn first_at(connection: &Connection) -> Result<Option<Timestamp>> {
    let first = "SELECT at FROM appends ORDER BY position LIMIT 1";
    let at = connection.query_row(first, [], |row| row.get(0).map(Timestamp::from_millis));
    at.optional()
}

fn growth(
    connection: &Connection,
    (events, kept): (u64, u64),
    bytes: u64,
    now: Timestamp,
) -> Result<Option<Growth>> {
    let Some(first) = first_at(connection)? else { return Ok(None) };
    let over = now.since(first).min(GROWTH_TIME);
    if over < GROWTH_TIME_MIN {
        return Ok(None);
    }
    let over_ms = i64::try_from(over.as_millis()).unwrap_or(i64::MAX);
    let since = Timestamp::from_millis(now.as_millis().saturating_sub(over_ms));
    let added = events - events_before(connection, since, events)?;
    let a_day = |number: u128| {
        let day = Duration::from_hours(24).as_millis();
        u64::try_from(number * day / over.as_millis()).unwrap_or(u64::MAX)
    };
    let added_bytes = u128::from(bytes) * u128::from(added) / u128::from(kept.max(1));
    let (events_per_day, bytes_per_day) = (a_day(u128::from(added)), a_day(added_bytes));
    Ok(Some(Growth { over, events_per_day, bytes_per_day }))
}

/// Returns the saga that began first of those that have not ended.
pub(crate) fn oldest_live(connection: &Connection) -> Result<Option<(SagaId, Timestamp)>> {
    let first = |index: &str, condition: &str| {
        let oldest = format!(
            "SELECT id, started_at FROM sagas INDEXED BY {index}
             WHERE {condition} ORDER BY id LIMIT 1"
        );
        let row = |row: &rusqlite::Row<'_>| {
            Ok((SagaId::from_bytes(row.get(0)?), Timestamp::from_millis(row.get(1)?)))
        };
        connection.query_row(&oldest, [], row).optional()
    };
    let firsts = [
        first("sagas_live", "ended_at IS NULL AND status <> 'waiting'")?,
        first("sagas_waiting", "status = 'waiting'")?,
    ];
    Ok(firsts.into_iter().flatten().min())
}

/// Counts sagas by the month in which their id was made, and events by the month in which they were
/// stored.
fn months(connection: &Connection, events: u64, now: Timestamp) -> Result<Vec<MonthCount>> {
    let Some(first) = first_at(connection)? else { return Ok(Vec::new()) };
    let definitions = definitions(connection)?;
    let mut sagas_in = connection.prepare_cached(
        "SELECT count(*) FROM sagas INDEXED BY sagas_definition
         WHERE definition = ?1 AND id >= ?2 AND id < ?3",
    )?;
    let (mut month, mut months) = (Month::of(now), Vec::new());
    // Sagas that a clock ahead of time has made belong to the latest month.
    let (mut end_id, mut events_end) = ([0xff; 16], events);
    while months.len() < MONTHS_MAX {
        let begin = month.begin();
        // The id of a saga may be made in the month before its first event is stored.
        let begin_id = if begin <= first { [0; 16] } else { first_id(begin, 0) };
        let before = events_before(connection, begin, events)?.min(events_end);
        let mut sagas = 0;
        for definition in &definitions {
            let count = params![definition, begin_id, end_id];
            sagas += sagas_in.query_row(count, |row| row.get::<_, i64>(0))?.unsigned_abs();
        }
        let Month { year, month: number } = month;
        months.push(MonthCount { year, month: number, sagas, events: events_end - before });
        if begin <= first {
            break;
        }
        (end_id, events_end, month) = (begin_id, before, month.before());
    }
    months.reverse();
    Ok(months)
}

/// Returns the names of definitions that have sagas, each with one search of the index.
fn definitions(connection: &Connection) -> Result<Vec<String>> {
    let mut next = connection.prepare_cached(
        "SELECT min(definition) FROM sagas INDEXED BY sagas_definition WHERE definition > ?1",
    )?;
    let mut definitions: Vec<String> = Vec::new();
    loop {
        let last = definitions.last().map_or("", String::as_str);
        match next.query_row([last], |row| row.get::<_, Option<String>>(0))? {
            Some(definition) => definitions.push(definition),
            None => return Ok(definitions),
        }
    }
}

//! What the store holds: from indexes, a sample of the log, and searches by position.

use std::collections::BTreeMap;
use std::time::Duration;

use amends_engine::{SagaId, Timestamp};
use uuid::Uuid;

use super::log::LOG_AFTER;
use super::lookup::count_events;
use crate::id_time::first_id;
use crate::month::{Month, scatter};
use crate::postgres::columns::{APPEND_COLUMNS, append_row, count, saga, status, text, time};
use crate::postgres::connection::Pg;
use crate::postgres::error::Result;
use crate::postgres::readers::{begin, end};
use crate::stored_event::EVENT_UNREADABLE;
use crate::survey::{
    ArchivedCount, Growth, MonthCount, SURVEY_EVENTS_MAX, SURVEY_TYPES_MAX, SagaCount, StoreSurvey,
    TypeCount,
};

/// The time over which growth is measured.
const GROWTH_TIME: Duration = Duration::from_hours(24 * 7);

/// The age that a store needs to have before its growth is worth telling.
const GROWTH_TIME_MIN: Duration = Duration::from_hours(1);

/// The most months that are told, the latest ones.
const MONTHS_MAX: usize = 120;

/// The appends of the whole log.
const LOG: &str =
    "(SELECT batch AS number, position AS before FROM batches WHERE position IS NOT NULL) AS placed
    JOIN appends ON appends.batch = placed.number";

/// Returns what the store holds, see [`crate::Maintenance::survey`]. All of it is one snapshot.
pub(in crate::postgres) async fn survey(pg: &Pg, now: Timestamp) -> Result<StoreSurvey> {
    begin(pg).await?;
    let bytes = number(pg, "SELECT pg_database_size(current_database())").await?;
    let events = count_events(pg).await?;
    let archived = archived(pg).await?;
    // Only the others have rows.
    let kept = events.saturating_sub(archived.events);
    let (types, events_sampled) = types(pg, events, kept).await?;
    let survey = StoreSurvey {
        bytes,
        wal_bytes: 0,
        free_bytes: 0,
        page_bytes: number(pg, "SELECT current_setting('block_size')::int8").await?,
        events,
        sagas: sagas(pg).await?,
        types,
        events_sampled,
        months: months(pg, events, now).await?,
        growth: growth(pg, (events, kept), bytes, now).await?,
        archived,
        oldest_live: oldest_live(pg).await?,
    };
    end(pg).await?;
    Ok(survey)
}

async fn number(pg: &Pg, sql: &str) -> Result<u64> {
    pg.first(sql, &[]).await?.map_or(Ok(0), |row| count(&row, 0))
}

async fn sagas(pg: &Pg) -> Result<Vec<SagaCount>> {
    let sql = "SELECT definition, status, count(*) FROM sagas GROUP BY definition, status
               ORDER BY definition, status";
    let rows = pg.query(sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(SagaCount {
                definition: text(row, 0)?,
                status: status(row, 1)?,
                sagas: count(row, 2)?,
            })
        })
        .collect()
}

/// Counts the `kept` events by type: all of them when they are few, else those of a sample. The log is
/// divided into equal parts, and one event of each is read. Returns the number of events that were read
/// as well.
async fn types(pg: &Pg, events: u64, kept: u64) -> Result<(Vec<TypeCount>, u64)> {
    let first = if kept == events { 0 } else { position_before_first(pg).await? };
    let parts = (events - first.min(events)).min(SURVEY_EVENTS_MAX);
    let positions: Vec<i64> = (0..parts)
        .map(|part| {
            let [begin, end] = [part, part + 1].map(|part| {
                let begin = u128::from(part) * u128::from(events - first) / u128::from(parts);
                first + u64::try_from(begin).unwrap_or(u64::MAX)
            });
            i64::try_from(begin + 1 + scatter(part) % (end - begin)).unwrap_or(i64::MAX)
        })
        .collect();
    let from = LOG_AFTER.replace("$1", "(sought.position - 1)");
    let sql = format!(
        "SELECT found.*, sought.position FROM unnest($1::int8[]) AS sought(position)
         CROSS JOIN LATERAL (SELECT {APPEND_COLUMNS} FROM {from}
             ORDER BY placed.before, appends.last LIMIT 1) AS found"
    );
    let (mut found, mut sampled) = (BTreeMap::<String, (u64, u64)>::new(), 0);
    for row in pg.query(&sql, &[&positions]).await? {
        let position = count(&row, 6)?;
        let appended = append_row(&row)?.events_or_reason();
        // An append that cannot be read is one event, which stands for all of them.
        let stands = appended.first().filter(|event| event.kind == EVENT_UNREADABLE);
        let Some(event) = appended.iter().find(|event| event.position.0 == position).or(stands)
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

/// Returns the position before the first event that has a row; 0 when there is none.
async fn position_before_first(pg: &Pg) -> Result<u64> {
    let sql = format!(
        "SELECT placed.before + appends.last - appends.version + appends.first - 1 FROM {LOG}
         ORDER BY placed.before, appends.last LIMIT 1"
    );
    number(pg, &sql).await
}

/// Returns how many of `events` events were stored before a time, by a binary search of the log.
async fn events_before(pg: &Pg, time: Timestamp, events: u64) -> Result<u64> {
    let sql = format!(
        "SELECT placed.before + appends.last, appends.at FROM {LOG_AFTER}
         ORDER BY placed.before, appends.last LIMIT 1"
    );
    // Events up to `before` are before the time, those after `end` are not.
    let (mut before, mut end) = (0, events);
    while before < end {
        let middle = before + (end - before) / 2;
        let sought = i64::try_from(middle).unwrap_or(i64::MAX);
        match pg.first(&sql, &[&sought]).await? {
            Some(row) if row.try_get::<_, i64>(1)? < time.as_millis() => {
                before = count(&row, 0)?.clamp(middle + 1, end);
            }
            Some(_) | None => end = middle,
        }
    }
    Ok(before)
}

/// Counts what is in the archive or was deleted.
async fn archived(pg: &Pg) -> Result<ArchivedCount> {
    let sql = "SELECT (SELECT count(*) FROM archived), (SELECT coalesce(sum(version), 0)::int8 FROM archived),
               (SELECT count(*) FROM segments), (SELECT coalesce(sum(bytes), 0)::int8 FROM segments)";
    let Some(row) = pg.first(sql, &[]).await? else { return Ok(ArchivedCount::default()) };
    Ok(ArchivedCount {
        sagas: count(&row, 0)?,
        events: count(&row, 1)?,
        segments: count(&row, 2)?,
        bytes: count(&row, 3)?,
    })
}

/// Returns the time of the first event, if there is one.
async fn first_at(pg: &Pg) -> Result<Option<Timestamp>> {
    let sql = format!("SELECT appends.at FROM {LOG} ORDER BY placed.before, appends.last LIMIT 1");
    let row = pg.first(&sql, &[]).await?;
    row.map(|row| time(&row, 0)).transpose()
}

async fn growth(
    pg: &Pg,
    (events, kept): (u64, u64),
    bytes: u64,
    now: Timestamp,
) -> Result<Option<Growth>> {
    let Some(first) = first_at(pg).await? else { return Ok(None) };
    let over = now.since(first).min(GROWTH_TIME);
    if over < GROWTH_TIME_MIN {
        return Ok(None);
    }
    let over_ms = i64::try_from(over.as_millis()).unwrap_or(i64::MAX);
    let since = Timestamp::from_millis(now.as_millis().saturating_sub(over_ms));
    let added = events - events_before(pg, since, events).await?;
    let a_day = |number: u128| {
        let day = Duration::from_hours(24).as_millis();
        u64::try_from(number * day / over.as_millis()).unwrap_or(u64::MAX)
    };
    let added_bytes = u128::from(bytes) * u128::from(added) / u128::from(kept.max(1));
    let (events_per_day, bytes_per_day) = (a_day(u128::from(added)), a_day(added_bytes));
    Ok(Some(Growth { over, events_per_day, bytes_per_day }))
}

/// Returns the saga that began first of those that have not ended.
pub(in crate::postgres) async fn oldest_live(pg: &Pg) -> Result<Option<(SagaId, Timestamp)>> {
    let first = |condition: &str| {
        format!("(SELECT id, started_at FROM sagas WHERE {condition} ORDER BY id LIMIT 1)")
    };
    let sql = format!(
        "SELECT id, started_at FROM ({} UNION ALL {}) AS firsts ORDER BY id LIMIT 1",
        first("ended_at IS NULL AND status <> 'waiting'"),
        first("status = 'waiting'")
    );
    pg.first(&sql, &[]).await?.map(|row| Ok((saga(&row, 0)?, time(&row, 1)?))).transpose()
}

/// Counts sagas by the month in which their id was made, and events by the month in which they were
/// stored.
async fn months(pg: &Pg, events: u64, now: Timestamp) -> Result<Vec<MonthCount>> {
    let Some(first) = first_at(pg).await? else { return Ok(Vec::new()) };
    let sql = "SELECT count(*) FROM sagas WHERE id >= $1 AND id < $2";
    let (mut month, mut months) = (Month::of(now), Vec::new());
    // Sagas that a clock ahead of time has made belong to the latest month.
    let (mut end_id, mut events_end) = (Uuid::max(), events);
    while months.len() < MONTHS_MAX {
        let begin = month.begin();
        // The id of a saga may be made in the month before its first event is stored.
        let begin_id =
            if begin <= first { Uuid::nil() } else { Uuid::from_bytes(first_id(begin, 0)) };
        let before = events_before(pg, begin, events).await?.min(events_end);
        let row = pg.first(sql, &[&begin_id, &end_id]).await?;
        let sagas = row.map_or(Ok(0), |row| count(&row, 0))?;
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

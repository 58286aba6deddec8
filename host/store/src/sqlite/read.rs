//! Queries.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use amends_engine::{Digest, Event, Position, SagaId, SagaStatus, Timestamp, Version, on_one_line};
use rusqlite::types::{Type, Value, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, Rows, params, params_from_iter};
use serde_json::value::RawValue;

use super::schema::is_unreadable;
use super::write::{DEPLOYS, SERVICE_PREFIX};
use crate::types::{
    BlobKind, BlobRow, EVENT_UNREADABLE, EVENTS_PAGE_BYTES_MAX, IdPart, LIVE_PAGE_BYTES_MAX,
    LiveSaga, SagaQuery, SagaRow, StoredEvent, Stream, is_event_type,
};

type Result<T> = rusqlite::Result<T>;

const APPEND_COLUMNS: &str = "position, stream, version, at, events";

/// An id carries the time at which it was made, and its saga starts a little later: ids narrow a
/// search by time. A saga that starts later than this after that is written down, see
/// [`start_delay`].
pub(super) const START_DELAY: Duration = Duration::from_mins(10);

const SAGA_COLUMNS: &str = "id, definition, definition_digest, status, reason, started_at, \
                            ended_at, deadline_at, wake_at, tags, key";

pub(super) fn events(
    connection: &Connection,
    stream: &Stream,
    after: Version,
    limit: u32,
) -> Result<Vec<StoredEvent>> {
    let lost = without_version(connection, stream)?;
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {APPEND_COLUMNS} FROM appends
         WHERE stream = ?1 AND version > ?2 AND version <= ?3 ORDER BY version"
    ))?;
    let rows = statement.query(params![stream, to_integer(after.0), i64::MAX])?;
    take_events(rows, lost, limit, |event| event.version > after)
}

/// Appends of a stream whose version cannot be read, so that the index does not have them where they
/// belong: each as one event at the version after the append before it. Nearly always none.
fn without_version<'row>(
    connection: &Connection,
    stream: &Stream,
) -> Result<VecDeque<AppendedEvent<'row>>> {
    // The index has what is no number behind all numbers, so this reads nothing else.
    let mut statement = connection.prepare_cached(
        "SELECT position, at, (
             SELECT coalesce(max(version), 0) FROM appends AS before
             WHERE before.stream = ?1 AND before.position < damaged.position
                 AND typeof(before.version) = 'integer')
         FROM appends AS damaged WHERE stream = ?1 AND version > ?2 ORDER BY position",
    )?;
    let rows = statement.query_map(params![stream, i64::MAX], |row| {
        let before: i64 = row.get(2)?;
        Ok(AppendedEvent {
            position: Position(row.get::<_, i64>(0)?.unsigned_abs()),
            stream: stream.clone(),
            version: Version(before.unsigned_abs()).plus(1),
            at: Timestamp::from_millis(row.get(1).unwrap_or(0)),
            kind: EVENT_UNREADABLE.to_owned(),
            data: reason("version: it is no number").into(),
        })
    })?;
    rows.collect()
}

/// The data of what stands for an append that cannot be read.
fn reason(why: &str) -> String {
    serde_json::json!({ "reason": why }).to_string()
}

pub(super) fn log(
    connection: &Connection,
    after: Position,
    limit: u32,
) -> Result<Vec<StoredEvent>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {APPEND_COLUMNS} FROM appends WHERE position > ?1 ORDER BY position"
    ))?;
    let rows = statement.query([to_integer(after.0)])?;
    take_events(rows, VecDeque::new(), limit, |event| event.position > after)
}

/// The events of appends that are wanted, up to the limits of a page, and those of `lost` between them
/// by their versions. Row by row: of what is past the limits nothing is copied.
fn take_events(
    mut rows: Rows<'_>,
    mut lost: VecDeque<AppendedEvent<'_>>,
    limit: u32,
    is_wanted: impl Fn(&AppendedEvent<'_>) -> bool,
) -> Result<Vec<StoredEvent>> {
    lost.retain(&is_wanted);
    let mut page = Page { events: Vec::new(), bytes: 0, limit: limit as usize };
    while !page.is_full()
        && let Some(row) = rows.next()?
    {
        for event in events_or_why(row)?.into_iter().filter(&is_wanted) {
            while let Some(before) = lost.pop_front_if(|lost| lost.version < event.version) {
                page.take(before);
            }
            if !page.take(event) {
                return Ok(page.events);
            }
        }
    }
    while let Some(event) = lost.pop_front() {
        page.take(event);
    }
    Ok(page.events)
}

/// Events, up to the limits of a page.
struct Page {
    events: Vec<StoredEvent>,
    bytes: usize,
    limit: usize,
}

impl Page {
    fn is_full(&self) -> bool {
        self.events.len() >= self.limit || self.bytes > EVENTS_PAGE_BYTES_MAX
    }

    /// Whether it had room for the event: one it has, however large it is.
    fn take(&mut self, event: AppendedEvent<'_>) -> bool {
        self.bytes += event.data.len();
        let has_room = !self.is_full() || self.events.is_empty() && self.limit > 0;
        if has_room {
            self.events.push(event.into());
        }
        has_room
    }
}

pub(super) fn saga(connection: &Connection, id: SagaId) -> Result<Option<SagaRow>> {
    connection
        .prepare_cached(&format!("SELECT {SAGA_COLUMNS} FROM sagas WHERE id = ?1"))?
        .query_row([id.as_bytes()], saga_row)
        .optional()
}

pub(super) fn list(connection: &Connection, query: &SagaQuery) -> Result<Vec<SagaRow>> {
    let all = match &query.definition {
        Some(_) => Walk::Definition,
        None => Walk::All,
    };
    if let Some(part) = &query.id {
        let found = [Part::Begin(part), Part::End(part)].map(|part| {
            let walk = if query.tag.is_some() { Walk::Tag } else { Walk::All };
            list_along(connection, query, walk, Some(part))
        });
        let [begins, ends] = found;
        return Ok(newest([begins?, ends?].concat(), query.limit));
    }
    if query.tag.is_some() {
        return list_along(connection, query, Walk::Tag, None);
    }
    if query.statuses.is_empty() {
        return list_along(connection, query, all, None);
    }
    // One walk for each kind of status, so that each stops after `limit`.
    let (rare, common): (Vec<SagaStatus>, Vec<SagaStatus>) =
        query.statuses.iter().partition(|status| is_rare(**status));
    let (ended, live): (Vec<_>, Vec<_>) = common.into_iter().partition(|status| status.is_end());
    let mut walks: Vec<_> = rare.into_iter().map(|status| (Walk::Rare, vec![status])).collect();
    walks.push((Walk::Live, live));
    walks.push((all, ended));
    let mut found = Vec::new();
    for (walk, statuses) in walks.into_iter().filter(|(_, statuses)| !statuses.is_empty()) {
        let query = SagaQuery { statuses, ..query.clone() };
        found.extend(list_along(connection, &query, walk, None)?);
    }
    Ok(newest(found, query.limit))
}

/// Rows of several walks as those of one.
fn newest(mut found: Vec<SagaRow>, limit: u32) -> Vec<SagaRow> {
    found.sort_by_key(|row| std::cmp::Reverse(row.id));
    found.dedup_by_key(|row| row.id);
    found.truncate(limit as usize);
    found
}

/// What is known of an id.
#[derive(Clone, Copy)]
enum Part<'query> {
    Begin(&'query IdPart),
    End(&'query IdPart),
}

impl Part<'_> {
    /// What it asks of an id, and the values that stand for the marks in it. What begins so stands
    /// together. For what ends so all ids are looked at, in an index that has little else.
    fn condition(self, id: &str) -> (String, Vec<Value>) {
        match self {
            Self::Begin(part) => {
                (format!("{id} BETWEEN ? AND ?"), part.range().map(Value::Blob).to_vec())
            }
            Self::End(part) => {
                let digits = part.as_upper();
                let from = Value::Integer(33 - i64::try_from(digits.len()).unwrap_or(32));
                // The last four bytes rule out nearly all, without making a text of each.
                let ends = "SELECT id FROM sagas INDEXED BY sagas_definition \
                            WHERE substr(id, 13) = ? AND substr(hex(id), ?) = ?";
                let values = vec![Value::Blob(part.last_bytes()), from, Value::Text(digits)];
                (format!("{id} IN ({ends})"), values)
            }
        }
    }
}

/// What is gone along, from the greatest id down, with a look at each row, until the page is full.
#[derive(Clone, Copy)]
enum Walk {
    All,
    Definition,
    /// Those that have not ended.
    Live,
    /// Those of one status that few have.
    Rare,
    Tag,
}

/// Whether the index `sagas_rare` has the sagas of this status.
fn is_rare(status: SagaStatus) -> bool {
    !matches!(status, SagaStatus::Running | SagaStatus::Waiting | SagaStatus::Completed)
}

fn list_along(
    connection: &Connection,
    query: &SagaQuery,
    walk: Walk,
    part: Option<Part<'_>>,
) -> Result<Vec<SagaRow>> {
    let mut wheres = vec!["true".to_owned()];
    let mut values = Vec::new();
    let (from, id) = match walk {
        Walk::All => ("sagas NOT INDEXED", "id"),
        Walk::Definition => ("sagas INDEXED BY sagas_definition", "id"),
        Walk::Live => {
            wheres.push("ended_at IS NULL".to_owned());
            ("sagas INDEXED BY sagas_live", "id")
        }
        Walk::Rare => {
            // Said in the words of the index, so that SQLite knows that it has them all.
            let rare = "status <> 'running' AND status <> 'waiting' AND status <> 'completed'";
            wheres.push(rare.to_owned());
            ("sagas INDEXED BY sagas_rare", "id")
        }
        Walk::Tag => ("saga_tags AS tag CROSS JOIN sagas ON id = tag.saga", "tag.saga"),
    };
    if let Some((name, value)) = &query.tag {
        wheres.push("tag.name = ? AND tag.value = ?".to_owned());
        values.push(Value::Text(name.clone()));
        values.push(Value::Text(value.clone()));
    }
    if let Some(before) = query.before {
        wheres.push(format!("{id} < ?"));
        values.push(Value::Blob(before.as_bytes().to_vec()));
    }
    if let Some(after) = query.started_after {
        wheres.push(format!("{id} >= ? AND started_at > ?"));
        values.push(Value::Blob(first_id(after, start_delay(connection)?).to_vec()));
        values.push(Value::Integer(after.as_millis()));
    }
    if let Some(before) = query.started_before {
        wheres.push(format!("{id} < ? AND started_at < ?"));
        values.push(Value::Blob(last_id(before).to_vec()));
        values.push(Value::Integer(before.as_millis()));
    }
    if let Some((condition, parts)) = part.map(|part| part.condition(id)) {
        wheres.push(condition);
        values.extend(parts);
    }
    if let Some(definition) = &query.definition {
        wheres.push("definition = ?".to_owned());
        values.push(Value::Text(definition.to_string()));
    }
    if !query.statuses.is_empty() {
        let marks = vec!["?"; query.statuses.len()].join(", ");
        wheres.push(format!("status IN ({marks})"));
        let words = query.statuses.iter().map(|status| Value::Text(status.as_str().to_owned()));
        values.extend(words);
    }
    let wheres = wheres.join(" AND ");
    // A limit of -1 is none, and lets SQLite prefer an index in this order to sorting. The rows
    // are counted here, so that a page is full also where some are left out.
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {SAGA_COLUMNS} FROM {from} WHERE {wheres} ORDER BY {id} DESC LIMIT -1"
    ))?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while found.len() < query.limit as usize
        && let Some(row) = rows.next()?
    {
        match readable(saga_row(row), SAGA_COLUMNS)? {
            Ok(row) => found.push(row),
            Err(reason) => {
                tracing::error!(saga_id = id_text(row), reason, "saga is not listed");
            }
        }
    }
    Ok(found)
}

/// The longest time between the making of an id and the start of its saga, in milliseconds, where
/// that is longer than [`START_DELAY`]: a child had the time of its parent once, and one that finds
/// no room starts late.
fn start_delay(connection: &Connection) -> Result<i64> {
    let usual = i64::try_from(START_DELAY.as_millis()).unwrap_or(i64::MAX);
    let longest: Option<i64> = connection
        .prepare_cached("SELECT value FROM meta WHERE name = 'start_delay'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(longest.unwrap_or(0).max(usual))
}

/// How long after the making of its id a saga started, in milliseconds.
pub(super) fn delay_of(id: SagaId, started_at: Timestamp) -> i64 {
    let made = id.as_bytes()[..6].iter().fold(0, |made, byte| made << 8 | i64::from(*byte));
    started_at.as_millis().saturating_sub(made)
}

/// No saga that started after this time, and at most so many milliseconds after its id was made,
/// has a smaller id.
fn first_id(after: Timestamp, delay: i64) -> [u8; 16] {
    let made = Timestamp::from_millis(after.as_millis().saturating_sub(delay).max(0));
    let mut bytes = *SagaId::from_parts(made, &[0; 10]).as_bytes();
    // Behind the time stand the version and variant bits of a UUID.
    bytes[6..].fill(0);
    bytes
}

/// No saga that started before this time has a greater id: it was made before its saga started. A
/// clock that was set back in between is allowed for.
fn last_id(before: Timestamp) -> [u8; 16] {
    first_id(before.after(START_DELAY), 0)
}

pub(super) fn live(
    connection: &Connection,
    after: Option<SagaId>,
    limit: u32,
) -> Result<Vec<LiveSaga>> {
    let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
    // One snapshot for the rows and their events.
    let snapshot = connection.unchecked_transaction()?;
    let mut statement = snapshot.prepare_cached(&live_query())?;
    let mut rows = statement.query([after])?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    while page.len() < limit as usize
        && bytes < LIVE_PAGE_BYTES_MAX
        && let Some(row) = rows.next()?
    {
        let Ok(id) = row.get(0).map(SagaId::from_bytes) else {
            tracing::error!(saga_id = id_text(row), "a live row is passed over: its id is none");
            continue;
        };
        let content = match readable(saga_row(row), SAGA_COLUMNS)? {
            Ok(row) => readable_log(&snapshot, id)?.map(|log| (row, log)),
            Err(reason) => Err(format!("its row: {reason}")),
        };
        if let Ok((_, log)) = &content {
            bytes += log.iter().map(|event| event.data.len()).sum::<usize>();
        }
        page.push(LiveSaga { id, content });
    }
    Ok(page)
}

/// Of the rows, without an end; takes an id.
pub(super) fn live_query() -> String {
    format!("SELECT {SAGA_COLUMNS} FROM sagas WHERE ended_at IS NULL AND id > ?1 ORDER BY id")
}

/// All events of a saga, or why one of them cannot be read.
fn readable_log(
    connection: &Connection,
    id: SagaId,
) -> Result<std::result::Result<Vec<StoredEvent>, String>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {APPEND_COLUMNS} FROM appends WHERE stream = ?1 ORDER BY version"
    ))?;
    let mut rows = statement.query([Stream::Saga(id)])?;
    let mut log = Vec::new();
    while let Some(row) = rows.next()? {
        match readable(append_events(row), APPEND_COLUMNS)? {
            Ok(events) => log.extend(events.into_iter().map(StoredEvent::from)),
            Err(reason) => return Ok(Err(format!("its event {}: {reason}", log.len() + 1))),
        }
    }
    Ok(Ok(log))
}

pub(super) fn key(connection: &Connection, key: &str) -> Result<Option<(SagaId, Digest)>> {
    connection
        .prepare_cached("SELECT saga, payload_digest FROM start_keys WHERE key = ?1")?
        .query_row([key], |row| {
            Ok((SagaId::from_bytes(row.get(0)?), Digest::from_bytes(row.get(1)?)))
        })
        .optional()
}

pub(super) fn blob(
    connection: &Connection,
    kind: BlobKind,
    digest: Digest,
) -> Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT bytes FROM blobs WHERE kind = ?1 AND digest = ?2")?
        .query_row(params![kind.as_str(), digest.as_bytes()], |row| row.get(0))
        .optional()
}

pub(super) fn blobs(connection: &Connection, kind: BlobKind) -> Result<Vec<BlobRow>> {
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

pub(super) fn counts(connection: &Connection) -> Result<BTreeMap<SagaStatus, u64>> {
    connection
        .prepare_cached("SELECT status, count(*) FROM sagas GROUP BY status")?
        .query_map([], |row| Ok((status(row, 0)?, row.get::<_, i64>(1)?.unsigned_abs())))?
        .collect()
}

pub(super) fn verify(connection: &Connection) -> Result<Vec<String>> {
    let mut findings: Vec<String> = connection
        .prepare("PRAGMA integrity_check")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_>>()?;
    findings.retain(|finding| finding != "ok");
    let gaps = connection
        .prepare(
            "SELECT stream, sum(length) AS count, max(version) AS last FROM (
                 SELECT stream, version,
                     CASE json_valid(events) WHEN 1 THEN json_array_length(events) ELSE 0 END AS length
                 FROM appends)
             GROUP BY stream HAVING count != last",
        )?
        .query_map([], |row| {
            let (stream, events, last) = (stream(row, 0)?, row.get(1)?, row.get(2)?);
            let (events, last): (i64, i64) = (events, last);
            Ok(format!("{stream} has {events} events, but its last version is {last}"))
        })?
        .collect::<Result<Vec<_>>>()?;
    findings.extend(gaps);
    let orphans: i64 = connection.query_row(
        "SELECT count(*) FROM sagas WHERE NOT EXISTS
         (SELECT 1 FROM appends WHERE stream = sagas.id)",
        [],
        |row| row.get(0),
    )?;
    if orphans > 0 {
        findings.push(format!("{orphans} sagas of the projection have no events"));
    }
    Ok(findings)
}

/// An event of an append whose row is being looked at.
struct AppendedEvent<'row> {
    position: Position,
    stream: Stream,
    version: Version,
    at: Timestamp,
    kind: String,
    data: Cow<'row, str>,
}

impl From<AppendedEvent<'_>> for StoredEvent {
    fn from(event: AppendedEvent<'_>) -> Self {
        let AppendedEvent { position, stream, version, at, kind, data } = event;
        Self { position, stream, version, at, kind, data: data.into_owned() }
    }
}

/// The events of one append, or one that says why they cannot be read, so that whoever reads the log
/// comes past them.
fn events_or_why<'row>(row: &'row Row<'_>) -> Result<Vec<AppendedEvent<'row>>> {
    let why = match readable(append_events(row), APPEND_COLUMNS)? {
        Ok(events) => return Ok(events),
        Err(why) => why,
    };
    let number = |column| row.get(column).map_or(0, |number: i64| number.max(0).unsigned_abs());
    Ok(vec![AppendedEvent {
        position: Position(number(0)),
        stream: stream(row, 1).unwrap_or(Stream::Saga(SagaId::from_bytes([0; 16]))),
        version: version_of(row, 2),
        at: Timestamp::from_millis(row.get(3).unwrap_or(0)),
        kind: EVENT_UNREADABLE.to_owned(),
        data: reason(&why).into(),
    }])
}

/// The version of an append that cannot be read: not before the one that it stands at in its stream.
fn version_of(row: &Row<'_>, column: usize) -> Version {
    match row.get_ref(column) {
        Ok(ValueRef::Integer(version)) => Version(version.max(0).unsigned_abs()),
        // What stands between two versions is taken for the second.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it saturates, and what is less than the first version is none"
        )]
        Ok(ValueRef::Real(version)) => Version(version.ceil() as u64),
        Ok(_) | Err(_) => Version(0),
    }
}

/// The events of one append.
fn append_events<'row>(row: &'row Row<'_>) -> Result<Vec<AppendedEvent<'row>>> {
    let stream = stream(row, 1)?;
    let at = Timestamp::from_millis(row.get(3)?);
    let (position, version) = (row.get::<_, i64>(0)?, row.get::<_, i64>(2)?);
    let column = row.get_ref(4)?;
    let ValueRef::Text(text) = column else {
        return Err(rusqlite::Error::InvalidColumnType(4, "events".into(), column.data_type()));
    };
    let text = std::str::from_utf8(text).map_err(|error| rusqlite::Error::Utf8Error(4, error))?;
    let events: Vec<(String, &RawValue)> =
        serde_json::from_str(text).map_err(|error| unreadable(4, error))?;
    if let Some((kind, _)) = events.iter().find(|(kind, _)| !is_kind(&stream, kind)) {
        return Err(unreadable(4, format!("the event type `{}` is not known", on_one_line(kind))));
    }
    let last = i64::try_from(events.len()).unwrap_or(i64::MAX) - 1;
    for (column, number) in [(0, position), (2, version)] {
        if number <= last {
            let why = format!("{number} is less than its {} events", events.len());
            return Err(unreadable(column, why));
        }
    }
    let event = |(back, (kind, data)): (i64, (String, &'row RawValue))| AppendedEvent {
        position: Position((position - back).unsigned_abs()),
        stream: stream.clone(),
        version: Version((version - back).unsigned_abs()),
        at,
        kind,
        data: Cow::Borrowed(data.get()),
    };
    Ok((0..=last).rev().zip(events).map(event).collect())
}

/// Whether a stream may have events of this type. What those of plugins and services are is not known
/// here.
fn is_kind(stream: &Stream, kind: &str) -> bool {
    match stream {
        Stream::Saga(_) => Event::is_kind(kind),
        Stream::Plugin(_) | Stream::Service(_) | Stream::Deploys => is_event_type(kind),
    }
}

fn stream(row: &Row<'_>, column: usize) -> Result<Stream> {
    if let ValueRef::Text(text) = row.get_ref(column)? {
        if text == DEPLOYS.as_bytes() {
            return Ok(Stream::Deploys);
        }
        let service = text.strip_prefix(SERVICE_PREFIX.as_bytes());
        let service = service.and_then(|name| std::str::from_utf8(name).ok());
        return match service {
            Some(name) => {
                name.parse().map(Stream::Service).map_err(|error| unreadable(column, error))
            }
            None => Ok(Stream::Plugin(parse(row, column)?)),
        };
    }
    Ok(Stream::Saga(SagaId::from_bytes(row.get(column)?)))
}

fn saga_row(row: &Row<'_>) -> Result<SagaRow> {
    let time = |column| -> Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
    };
    let tags: Option<String> = row.get(9)?;
    let tags = tags.map(|tags| serde_json::from_str(&tags)).transpose();
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
        key: row.get(10)?,
    })
}

/// Keeps one bad row, and why it is bad, apart from a database that fails.
fn readable<T>(read: Result<T>, columns: &str) -> Result<std::result::Result<T, String>> {
    let name = |column: usize| columns.split(", ").nth(column).unwrap_or("?");
    match read {
        Ok(value) => Ok(Ok(value)),
        Err(rusqlite::Error::FromSqlConversionFailure(column, _, error)) => {
            Ok(Err(format!("{}: {error}", name(column))))
        }
        Err(rusqlite::Error::Utf8Error(column, error)) => {
            Ok(Err(format!("{}: {error}", name(column))))
        }
        Err(error) if is_unreadable(&error) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

/// The id of a row, as far as it is one.
fn id_text(row: &Row<'_>) -> String {
    if let Ok(id) = row.get(0) {
        return SagaId::from_bytes(id).to_string();
    }
    let bytes = row.get_ref(0).ok().and_then(|value| value.as_bytes().ok()).unwrap_or_default();
    bytes.iter().fold(String::from("0x"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn status(row: &Row<'_>, column: usize) -> Result<SagaStatus> {
    let word: String = row.get(column)?;
    SagaStatus::from_word(&word)
        .ok_or_else(|| unreadable(column, format!("`{word}` is not a status of a saga")))
}

fn parse<T>(row: &Row<'_>, column: usize) -> Result<T>
where
    T: std::str::FromStr,
    T::Err: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    row.get::<_, String>(column)?.parse().map_err(|error| unreadable(column, error))
}

fn unreadable(
    column: usize,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}

fn to_integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

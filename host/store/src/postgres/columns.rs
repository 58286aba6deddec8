//! Rows of tables, read.

use std::str::FromStr;

use amends_engine::{
    Digest, Event, Position, SagaId, SagaStatus, SubjectKeyId, Timestamp, Version, on_one_line,
};
use serde_json::value::RawValue;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::Result;
use super::readers::unreadable;
use super::text::{read_stream, read_text, saga_of};
use crate::archive::Tombstone;
use crate::events_text::{is_kind, unreadable_data};
use crate::saga_row::SagaRow;
use crate::stored_event::{EVENT_UNREADABLE, StoredEvent};
use crate::stream::Stream;

/// The columns that [`saga_row`] reads, in their order.
pub(super) const SAGA_COLUMNS: &str = "sagas.id, sagas.definition, sagas.definition_digest, sagas.status, \
    sagas.reason, sagas.started_at, sagas.ended_at, sagas.deadline_at, sagas.wake_at, sagas.tags, \
    sagas.key, sagas.index_values, sagas.subject_key";

/// Reads a column as a saga's id.
pub(super) fn saga(row: &Row, column: usize) -> Result<SagaId> {
    Ok(saga_of(row.try_get::<_, Uuid>(column)?))
}

/// Reads a column as a digest.
pub(super) fn digest(row: &Row, column: usize) -> Result<Digest> {
    let bytes: &[u8] = row.try_get(column)?;
    let bytes = bytes.try_into().map_err(|_| unreadable("a digest has not 32 bytes"))?;
    Ok(Digest::from_bytes(bytes))
}

/// Reads a column as a time.
pub(super) fn time(row: &Row, column: usize) -> Result<Timestamp> {
    Ok(Timestamp::from_millis(row.try_get(column)?))
}

/// Reads a column as a time, or none.
pub(super) fn maybe_time(row: &Row, column: usize) -> Result<Option<Timestamp>> {
    Ok(row.try_get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
}

/// Reads a column as a number that is never negative.
pub(super) fn count(row: &Row, column: usize) -> Result<u64> {
    Ok(row.try_get::<_, i64>(column)?.unsigned_abs())
}

/// Reads a column as a text, or none.
pub(super) fn maybe_text(row: &Row, column: usize) -> Result<Option<String>> {
    Ok(row.try_get::<_, Option<String>>(column)?.map(read_text))
}

/// Reads a column as a text.
pub(super) fn text(row: &Row, column: usize) -> Result<String> {
    Ok(read_text(row.try_get(column)?))
}

/// Reads a column as a name.
pub(super) fn parse<T: FromStr>(row: &Row, column: usize) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    let name = row.columns().get(column).map_or("?", |column| column.name());
    text(row, column)?.parse().map_err(|error| unreadable(format!("{name}: {error}")))
}

/// Reads a column as the status of a saga.
pub(super) fn status(row: &Row, column: usize) -> Result<SagaStatus> {
    let word: &str = row.try_get(column)?;
    SagaStatus::from_word(word)
        .ok_or_else(|| unreadable(format!("status: `{word}` is not a status of a saga")))
}

/// Reads the row of a saga.
pub(super) fn saga_row(row: &Row) -> Result<SagaRow> {
    let json = |name: &str, error: serde_json::Error| unreadable(format!("{name}: {error}"));
    let (tags, index) = (maybe_text(row, 9)?, maybe_text(row, 11)?);
    Ok(SagaRow {
        id: saga(row, 0)?,
        definition: parse(row, 1)?,
        definition_digest: digest(row, 2)?,
        status: status(row, 3)?,
        reason: maybe_text(row, 4)?,
        started_at: time(row, 5)?,
        ended_at: maybe_time(row, 6)?,
        deadline_at: maybe_time(row, 7)?,
        wake_at: maybe_time(row, 8)?,
        tags: tags
            .map(|tags| serde_json::from_str(&tags))
            .transpose()
            .map_err(|error| json("tags", error))?
            .unwrap_or_default(),
        key: maybe_text(row, 10)?,
        index: index
            .map(|index| serde_json::from_str(&index))
            .transpose()
            .map_err(|error| json("index_values", error))?
            .unwrap_or_default(),
        subject_key: row
            .try_get::<_, Option<Uuid>>(12)?
            .map(|key| SubjectKeyId::from_bytes(key.into_bytes())),
    })
}

/// The columns of the table `appends` that [`append_row`] reads, in their order.
pub(super) const APPEND_COLUMNS: &str = "(SELECT batches.position FROM batches WHERE batches.batch = \
    appends.batch) + appends.last AS position, appends.saga, appends.stream, appends.version, appends.at, \
    appends.events";

/// Their names.
pub(super) const APPEND_NAMES: &str = "position, saga, stream, version, at, events";

/// An append, read.
pub(super) struct AppendRow {
    /// The position of its last event; 0 when its batch has no place in the log yet.
    pub(super) position: i64,
    pub(super) stream: Stream,
    pub(super) version: i64,
    pub(super) at: Timestamp,
    /// The column `events`.
    pub(super) text: String,
}

/// Reads the columns of an append.
pub(super) fn append_row(row: &Row) -> Result<AppendRow> {
    let stream = match row.try_get::<_, Option<Uuid>>(1)? {
        Some(id) => Stream::Saga(saga_of(id)),
        None => read_stream(row.try_get(2)?)?,
    };
    Ok(AppendRow {
        position: row.try_get::<_, Option<i64>>(0)?.unwrap_or(0),
        stream,
        version: row.try_get(3)?,
        at: time(row, 4)?,
        text: text(row, 5)?,
    })
}

impl AppendRow {
    /// Returns the events of the append; or the reason why they cannot be read.
    pub(super) fn events(&self) -> std::result::Result<Vec<StoredEvent>, String> {
        let events: Vec<(String, &RawValue)> =
            serde_json::from_str(&self.text).map_err(|error| format!("events: {error}"))?;
        if let Some((kind, _)) = events.iter().find(|(kind, _)| !is_kind(&self.stream, kind)) {
            return Err(format!("events: the event type `{}` is not known", on_one_line(kind)));
        }
        let last = i64::try_from(events.len()).unwrap_or(i64::MAX) - 1;
        for (name, number) in [("position", self.position), ("version", self.version)] {
            if number <= last && (name == "version" || number != 0) {
                return Err(format!("{name}: {number} is less than its {} events", events.len()));
            }
        }
        let event = |(back, (kind, data)): (i64, (String, &RawValue))| StoredEvent {
            position: Position((self.position - back).max(0).unsigned_abs()),
            stream: self.stream.clone(),
            version: Version((self.version - back).unsigned_abs()),
            at: self.at,
            kind,
            data: data.get().to_owned(),
        };
        Ok((0..=last).rev().zip(events).map(event).collect())
    }

    /// Returns the events. When they cannot be read, one event with the reason stands for them, so that
    /// readers of the log can go on after it.
    pub(super) fn events_or_reason(&self) -> Vec<StoredEvent> {
        self.events().unwrap_or_else(|reason| {
            vec![StoredEvent {
                position: Position(self.position.max(0).unsigned_abs()),
                stream: self.stream.clone(),
                version: Version(self.version.max(0).unsigned_abs()),
                at: self.at,
                kind: EVENT_UNREADABLE.to_owned(),
                data: unreadable_data(&reason),
            }]
        })
    }
}

/// The columns that [`tombstone`] reads, in their order.
pub(super) const TOMBSTONE_COLUMNS: &str = "archived.saga, archived.version, archived.definition, \
    archived.status, archived.started_at, archived.ended_at, archived.key, segments.file";

/// The tables that have them.
pub(super) const TOMBSTONES: &str = "archived LEFT JOIN segments ON segments.id = archived.segment";

/// Reads a tombstone.
pub(super) fn tombstone(row: &Row) -> Result<Tombstone> {
    Ok(Tombstone {
        id: saga(row, 0)?,
        version: Version(count(row, 1)?),
        definition: parse(row, 2)?,
        status: status(row, 3)?,
        started_at: time(row, 4)?,
        ended_at: time(row, 5)?,
        key: maybe_text(row, 6)?,
        file: maybe_text(row, 7)?,
    })
}

/// Decodes an event.
pub(super) fn decoded(event: &StoredEvent) -> std::result::Result<Event, String> {
    Event::decode(&event.kind, &event.data)
        .map_err(|error| format!("its event {}: {error}", event.version.0))
}

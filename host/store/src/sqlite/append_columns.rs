//! The rows of the table `appends`: one row an append, with all its events in one column.

use std::borrow::Cow;

use amends_engine::{Position, SagaId, Timestamp, Version, on_one_line};
use rusqlite::Row;
use rusqlite::types::ValueRef;
use serde_json::value::RawValue;

use super::column::{readable, unreadable};
use super::stream_column::stream;
use super::sum::check_sum;
use crate::events_text::is_kind;
pub(super) use crate::events_text::{events_column, unreadable_data};
use crate::stored_event::{EVENT_UNREADABLE, StoredEvent};
use crate::stream::Stream;

/// The columns that [`append_events`] reads, in their order.
pub(super) const APPEND_COLUMNS: &str = "position, stream, version, at, events, sum";

/// The columns before the sum.
const SUMMED_COLUMNS: usize = 5;

/// One event of an append. Its data may borrow from the row that is being read.
pub(super) struct AppendedEvent<'row> {
    pub(super) position: Position,
    pub(super) stream: Stream,
    pub(super) version: Version,
    pub(super) at: Timestamp,
    pub(super) kind: String,
    pub(super) data: Cow<'row, str>,
}

impl From<AppendedEvent<'_>> for StoredEvent {
    fn from(event: AppendedEvent<'_>) -> Self {
        let AppendedEvent { position, stream, version, at, kind, data } = event;
        Self { position, stream, version, at, kind, data: data.into_owned() }
    }
}

/// Returns the events of one append. When they cannot be read, one event with the reason stands for
/// them, so that readers of the log can go on after it.
pub(super) fn events_or_reason<'row>(
    row: &'row Row<'_>,
) -> rusqlite::Result<Vec<AppendedEvent<'row>>> {
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
        data: unreadable_data(&why).into(),
    }])
}

/// Returns a version for an append that cannot be read, so that readers find it where it stands in
/// its stream.
fn version_of(row: &Row<'_>, column: usize) -> Version {
    match row.get_ref(column) {
        Ok(ValueRef::Integer(version)) => Version(version.max(0).unsigned_abs()),
        // A fraction is rounded up to the next version.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it saturates, and a negative version becomes 0"
        )]
        Ok(ValueRef::Real(version)) => Version(version.ceil() as u64),
        Ok(_) | Err(_) => Version(0),
    }
}

/// Reads the events of one append.
pub(super) fn append_events<'row>(
    row: &'row Row<'_>,
) -> rusqlite::Result<Vec<AppendedEvent<'row>>> {
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
    // Last: other reasons say more.
    check_sum(row, SUMMED_COLUMNS)?;
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

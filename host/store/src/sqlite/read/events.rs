//! Pages of events: of one stream, and of the whole log.

use std::collections::VecDeque;

use amends_engine::{Position, Timestamp, Version};
use rusqlite::{Connection, Result, Rows, params};

use crate::paging::{Cursor, PageBudget};
use crate::sqlite::append_columns::{
    APPEND_COLUMNS, AppendedEvent, events_or_reason, unreadable_data,
};
use crate::sqlite::column::to_integer;
use crate::stored_event::{EVENT_UNREADABLE, EVENTS_PAGE_BYTES_MAX, StoredEvent};
use crate::stream::Stream;

/// Returns a page of a stream, see [`crate::EventLog::stream`].
pub(crate) fn events(
    connection: &Connection,
    stream: &Stream,
    after: Version,
    budget: PageBudget,
) -> Result<Vec<StoredEvent>> {
    let lost = without_version(connection, stream)?;
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {APPEND_COLUMNS} FROM appends
         WHERE stream = ?1 AND version > ?2 AND version <= ?3 ORDER BY version"
    ))?;
    let rows = statement.query(params![stream, to_integer(after.0), i64::MAX])?;
    take_events(rows, lost, budget, |event| event.version > after)
}

/// Returns a page of the log, see [`crate::EventLog::follow`].
pub(crate) fn log(
    connection: &Connection,
    from: Cursor,
    budget: PageBudget,
) -> Result<Vec<StoredEvent>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {APPEND_COLUMNS} FROM appends WHERE position > ?1 ORDER BY position"
    ))?;
    let rows = statement.query([to_integer(from.0)])?;
    take_events(rows, VecDeque::new(), budget, |event| event.position.0 > from.0)
}

/// Returns the place after the last event that is in the store.
pub(crate) fn end(connection: &Connection) -> Result<Cursor> {
    let sql = "SELECT coalesce(max(position), 0) FROM appends";
    let last: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(Cursor(last.unsigned_abs()))
}

/// Returns the appends of a stream whose version cannot be read, which the index has in the wrong
/// place. Each is one event at the version after the append before it. There are nearly always
/// none.
fn without_version<'row>(
    connection: &Connection,
    stream: &Stream,
) -> Result<VecDeque<AppendedEvent<'row>>> {
    // The index sorts a version that is no number behind all numbers, so this reads nothing else.
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
            data: unreadable_data("version: it is no number").into(),
        })
    })?;
    rows.collect()
}

/// Returns the wanted events of appends up to the limits of a page. The events of `lost` are merged
/// in by their versions. Rows are read one by one, so nothing behind the limits is copied.
fn take_events(
    mut rows: Rows<'_>,
    mut lost: VecDeque<AppendedEvent<'_>>,
    budget: PageBudget,
    is_wanted: impl Fn(&AppendedEvent<'_>) -> bool,
) -> Result<Vec<StoredEvent>> {
    lost.retain(&is_wanted);
    let mut page = EventsPage { events: Vec::new(), bytes: 0, budget };
    while !page.is_full()
        && let Some(row) = rows.next()?
    {
        for event in events_or_reason(row)?.into_iter().filter(&is_wanted) {
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

/// The events of one page, and how many it may have.
struct EventsPage {
    events: Vec<StoredEvent>,
    bytes: usize,
    budget: PageBudget,
}

impl EventsPage {
    fn is_full(&self) -> bool {
        self.events.len() >= self.budget.items as usize
            || self.bytes > self.budget.bytes.min(EVENTS_PAGE_BYTES_MAX)
    }

    /// Adds an event. Returns false when there was no room; the first event always has room,
    /// however large it is.
    fn take(&mut self, event: AppendedEvent<'_>) -> bool {
        self.bytes += event.data.len();
        let has_room = !self.is_full() || self.events.is_empty() && self.budget.items > 0;
        if has_room {
            self.events.push(event.into());
        }
        has_room
    }
}

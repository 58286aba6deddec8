//! Pages of events: of one stream, and of the whole log.

use amends_engine::Version;
use tokio_postgres::types::ToSql;

use crate::paging::{Cursor, PageBudget};
use crate::postgres::columns::{APPEND_COLUMNS, APPEND_NAMES, append_row};
use crate::postgres::connection::Pg;
use crate::postgres::error::Result;
use crate::postgres::text::{stream_text, uuid_of};
use crate::stored_event::{EVENTS_PAGE_BYTES_MAX, StoredEvent};
use crate::stream::Stream;

/// The most appends that one statement returns.
const APPENDS_MAX: i64 = 1_000;

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Limits the rows of a statement by their bytes, too: each page holds what it returns. `{rows}` stands for
/// the rows in their order. The first row is always there.
const LIMITED: &str = "WITH found AS ({rows}),
    numbered AS (SELECT *, sum(octet_length(events)) OVER (ORDER BY place) - octet_length(events) AS before
                 FROM found)
    SELECT {columns} FROM numbered WHERE before <= {bytes} ORDER BY place";

fn limited(rows: &str) -> String {
    LIMITED
        .replace("{rows}", rows)
        .replace("{columns}", APPEND_NAMES)
        .replace("{bytes}", &(2 * EVENTS_PAGE_BYTES_MAX).to_string())
}

/// A page, and whether there are events after it that have no place in the log yet.
pub(in crate::postgres) type Placed = (Vec<StoredEvent>, bool);

/// Returns a page of a stream, see [`crate::EventLog::stream`]. It ends before an event that has no place in
/// the log yet.
pub(in crate::postgres) async fn events(
    pg: &Pg,
    stream: &Stream,
    after: Version,
    budget: PageBudget,
) -> Result<Placed> {
    let column = if stream.saga().is_some() { "saga" } else { "stream" };
    // The append that has the next event, and those after it.
    let sql = limited(&format!(
        "SELECT {APPEND_COLUMNS}, first AS place FROM appends WHERE {column} = $1
         AND first >= coalesce((SELECT max(first) FROM appends WHERE {column} = $1 AND first <= $2), 0)
         ORDER BY first LIMIT {APPENDS_MAX}"
    ));
    let (saga, name) = (stream.saga().map(uuid_of), stream_text(stream));
    let key: &(dyn ToSql + Sync) = match &saga {
        Some(saga) => saga,
        None => &name,
    };
    let mut page = EventsPage { events: Vec::new(), bytes: 0, budget };
    let mut after = after;
    // Ends with a page that is full, or where there is nothing more.
    loop {
        let next = integer(after.0).saturating_add(1);
        let rows = pg.query(&sql, &[key, &next]).await?;
        let mut is_new = false;
        for row in &rows {
            for event in append_row(row)?.events_or_reason() {
                if event.version <= after {
                    continue;
                }
                if event.position.0 == 0 {
                    return Ok((page.events, true));
                }
                (after, is_new) = (event.version, true);
                if !page.take(event) {
                    return Ok((page.events, false));
                }
            }
        }
        if !is_new || page.is_full() {
            return Ok((page.events, false));
        }
    }
}

/// The appends of the log after position `$1`, in order: `before` is the position of the batch. Batches do not
/// overlap.
pub(super) const LOG_AFTER: &str = "(SELECT batch AS number, position AS before FROM batches
        WHERE position >= (SELECT coalesce(max(position), 0) FROM batches WHERE position <= $1)) AS placed
    JOIN appends ON appends.batch = placed.number AND appends.last > $1 - placed.before";

/// Returns a page of the log, see [`crate::EventLog::follow`].
pub(in crate::postgres) async fn log(pg: &Pg, from: Cursor, budget: PageBudget) -> Result<Placed> {
    let sql = limited(&format!(
        "SELECT placed.before + appends.last AS position, appends.saga, appends.stream, appends.version,
             appends.at, appends.events, placed.before + appends.last AS place FROM {LOG_AFTER}
         ORDER BY placed.before, appends.last LIMIT {APPENDS_MAX}"
    ));
    let mut page = EventsPage { events: Vec::new(), bytes: 0, budget };
    let (mut from, mut has_unplaced) = (from.0, None);
    loop {
        let rows = pg.query(&sql, &[&integer(from)]).await?;
        for row in &rows {
            for event in append_row(row)?.events_or_reason() {
                if event.position.0 <= from {
                    continue;
                }
                from = event.position.0;
                if !page.take(event) {
                    return Ok((page.events, false));
                }
            }
        }
        if page.is_full() {
            return Ok((page.events, false));
        }
        match has_unplaced {
            // Again: batches may have got their places after the rows were read, and before this is seen.
            None if rows.is_empty() => has_unplaced = Some(pg.exists(UNPLACED, &[]).await?),
            Some(has_unplaced) if rows.is_empty() => return Ok((page.events, has_unplaced)),
            None | Some(_) => {}
        }
    }
}

/// Whether a batch has no place in the log yet.
pub(in crate::postgres) const UNPLACED: &str =
    "SELECT 1 FROM batches WHERE position IS NULL AND events > 0 LIMIT 1";

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
    fn take(&mut self, event: StoredEvent) -> bool {
        self.bytes += event.data.len();
        let has_room = !self.is_full() || self.events.is_empty() && self.budget.items > 0;
        if has_room {
            self.events.push(event);
        }
        has_room
    }
}

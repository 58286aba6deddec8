//! The sagas that have not ended, with their events.

use amends_engine::SagaId;
use rusqlite::{Connection, Result, Row};

use crate::paging::PageBudget;
use crate::saga_row::{LIVE_PAGE_BYTES_MAX, LiveSaga, LiveSagas};
use crate::shard_id::ShardId;
use crate::sqlite::append_columns::{APPEND_COLUMNS, append_events};
use crate::sqlite::column::{id_text, readable};
use crate::sqlite::saga_columns::{SAGA_COLUMNS, saga_row};
use crate::stored_event::StoredEvent;
use crate::stream::Stream;

/// Returns a page of live sagas, see [`crate::SagaIndex::live`].
pub(crate) fn live(
    connection: &Connection,
    shards: &[ShardId],
    which: LiveSagas,
    after: Option<SagaId>,
    budget: PageBudget,
) -> Result<Vec<LiveSaga>> {
    let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
    // One snapshot for the rows and their events.
    let snapshot = connection.unchecked_transaction()?;
    let mut statement = snapshot.prepare_cached(&live_query(which))?;
    let mut rows = statement.query([after])?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    while page.len() < budget.items as usize
        && bytes < budget.bytes.min(LIVE_PAGE_BYTES_MAX)
        && let Some(row) = rows.next()?
    {
        let Ok(id) = row.get(0).map(SagaId::from_bytes) else {
            tracing::error!(saga_id = id_text(row), "a live row is passed over: its id is none");
            continue;
        };
        if shards.contains(&ShardId::of(id)) {
            page.push(with_log(&snapshot, id, row, &mut bytes)?);
        }
    }
    Ok(page)
}

/// Returns sagas by their ids, see [`crate::SagaIndex::read`].
pub(crate) fn sagas(connection: &Connection, ids: &[SagaId]) -> Result<Vec<LiveSaga>> {
    let snapshot = connection.unchecked_transaction()?;
    let mut statement =
        snapshot.prepare_cached(&format!("SELECT {SAGA_COLUMNS} FROM sagas WHERE id = ?1"))?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    for id in ids {
        if bytes >= LIVE_PAGE_BYTES_MAX {
            break;
        }
        let mut rows = statement.query([id.as_bytes()])?;
        if let Some(row) = rows.next()? {
            page.push(with_log(&snapshot, *id, row, &mut bytes)?);
        }
    }
    Ok(page)
}

/// Returns a saga with its events, and adds their bytes.
fn with_log(
    connection: &Connection,
    id: SagaId,
    row: &Row<'_>,
    bytes: &mut usize,
) -> Result<LiveSaga> {
    let content = match readable(saga_row(row), SAGA_COLUMNS)? {
        Ok(row) => readable_log(connection, id)?.map(|log| (row, log)),
        Err(reason) => Err(format!("its row: {reason}")),
    };
    if let Ok((_, log)) = &content {
        *bytes += log.iter().map(|event| event.data.len()).sum::<usize>();
    }
    Ok(LiveSaga { id, content })
}

/// Returns the query for the rows of live sagas after an id. It has no limit.
pub(crate) fn live_query(which: LiveSagas) -> String {
    let of = |index, condition| {
        format!(
            "SELECT {SAGA_COLUMNS} FROM sagas INDEXED BY {index}
             WHERE {condition} AND id > ?1"
        )
    };
    let others = of("sagas_live", "ended_at IS NULL AND status <> 'waiting'");
    match which {
        LiveSagas::NotWaiting => format!("{others} ORDER BY id"),
        // SQLite merges the two as it walks them.
        LiveSagas::All => {
            let waiting = of("sagas_waiting", "status = 'waiting'");
            format!("{others} UNION ALL {waiting} ORDER BY id")
        }
    }
}

/// Returns all events of a saga. The inner error is the reason why one of them cannot be read.
pub(crate) fn readable_log(
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

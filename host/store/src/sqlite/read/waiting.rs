//! The sagas that wait: when the clock wakes them, and how late the last thing happened to them.

use amends_engine::{SagaId, Timestamp};
use rusqlite::{Connection, Result, params};

use crate::shard_id::ShardId;

/// Returns a page of sagas that the clock wakes, see [`crate::SagaIndex::due`].
pub(crate) fn due(
    connection: &Connection,
    shards: &[ShardId],
    until: Timestamp,
    after: Option<(Timestamp, SagaId)>,
    limit: u32,
) -> Result<Vec<(Timestamp, SagaId)>> {
    let (after_at, after_id) = match &after {
        Some((at, id)) => (at.as_millis(), id.as_bytes().as_slice()),
        None => (i64::MIN, [].as_slice()),
    };
    let mut statement = connection.prepare_cached(due_query())?;
    let mut rows = statement.query(params![until.as_millis(), after_at, after_id])?;
    let mut page = Vec::new();
    while page.len() < limit as usize
        && let Some(row) = rows.next()?
    {
        // A row that cannot be read must not hold up the others.
        let (Ok(at), Ok(id)) = (row.get(0), row.get(1)) else { continue };
        let (at, id) = (Timestamp::from_millis(at), SagaId::from_bytes(id));
        if shards.contains(&ShardId::of(id)) {
            page.push((at, id));
        }
    }
    Ok(page)
}

/// Returns the query for the sagas that the clock wakes until a time, after a place. It has no limit.
pub(crate) const fn due_query() -> &'static str {
    "SELECT wake_at, id FROM sagas INDEXED BY sagas_due
     WHERE status = 'waiting' AND wake_at IS NOT NULL
         AND wake_at <= ?1 AND (wake_at, id) > (?2, ?3)
     ORDER BY wake_at, id"
}

/// Returns a page of sagas that wait, see [`crate::SagaIndex::waiting`].
pub(crate) fn waiting(
    connection: &Connection,
    shards: &[ShardId],
    after: Option<SagaId>,
    limit: u32,
) -> Result<Vec<(SagaId, Timestamp)>> {
    let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
    let mut statement = connection.prepare_cached(waiting_query())?;
    let mut rows = statement.query([after])?;
    let mut page = Vec::new();
    while page.len() < limit as usize
        && let Some(row) = rows.next()?
    {
        let (Ok(id), Ok(latest)) = (row.get(0), row.get(1)) else { continue };
        let (id, latest) = (SagaId::from_bytes(id), Timestamp::from_millis(latest));
        if shards.contains(&ShardId::of(id)) {
            page.push((id, latest));
        }
    }
    Ok(page)
}

/// Returns the query for the sagas that wait, after an id. It has no limit.
pub(crate) const fn waiting_query() -> &'static str {
    "SELECT id, (SELECT max(at) FROM appends WHERE stream = sagas.id)
     FROM sagas INDEXED BY sagas_waiting
     WHERE status = 'waiting' AND id > ?1 ORDER BY id"
}

/// Returns how many sagas wait.
pub(crate) fn count_waiting(connection: &Connection) -> Result<u64> {
    let count = "SELECT count(*) FROM sagas INDEXED BY sagas_waiting
                 WHERE status = 'waiting'";
    let count = connection.prepare_cached(count)?.query_row([], |row| row.get::<_, i64>(0));
    count.map(i64::unsigned_abs)
}

//! The sagas that have not ended, with their events.

use std::collections::HashMap;

use amends_engine::SagaId;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::paging::PageBudget;
use crate::postgres::columns::{APPEND_COLUMNS, SAGA_COLUMNS, append_row, saga, saga_row};
use crate::postgres::connection::Pg;
use crate::postgres::error::{Failure, Result};
use crate::postgres::readers::{begin, end};
use crate::postgres::text::uuid_of;
use crate::saga_row::{LIVE_PAGE_BYTES_MAX, LiveSaga, LiveSagas};
use crate::shard_id::ShardId;
use crate::stored_event::StoredEvent;

/// The most sagas that one statement returns.
const SAGAS_MAX: usize = 1_000;

/// The bytes of the events of a saga.
const BYTES: &str =
    "(SELECT sum(octet_length(events)) FROM appends WHERE appends.saga = sagas.id)::int8
     AS bytes";

/// Returns a page of live sagas, see [`crate::SagaIndex::live`].
pub(in crate::postgres) async fn live(
    pg: &Pg,
    shards: &[ShardId],
    which: LiveSagas,
    after: Option<SagaId>,
    budget: PageBudget,
) -> Result<Vec<LiveSaga>> {
    let condition = match which {
        LiveSagas::NotWaiting => "ended_at IS NULL AND status <> 'waiting'",
        LiveSagas::All => "ended_at IS NULL",
    };
    let sql = format!(
        "SELECT {SAGA_COLUMNS}, {BYTES} FROM sagas WHERE {condition} AND id > $1 AND shard = ANY($2)
         ORDER BY id LIMIT $3"
    );
    let shards: Vec<i16> = shards.iter().map(|shard| column(*shard)).collect();
    let mut after = after.map_or(Uuid::nil(), uuid_of);
    begin(pg).await?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    let bytes_max = budget.bytes.min(LIVE_PAGE_BYTES_MAX);
    while page.len() < budget.items as usize && bytes < bytes_max {
        let limit = (budget.items as usize - page.len()).min(SAGAS_MAX);
        let limit = i64::try_from(limit).unwrap_or(1);
        let rows = pg.query(&sql, &[&after, &shards, &limit]).await?;
        let Some(last) = rows.last() else { break };
        after = last.try_get(0)?;
        add_with_logs(pg, &rows, bytes_max, &mut bytes, &mut page).await?;
    }
    end(pg).await?;
    Ok(page)
}

/// Returns sagas by their ids, see [`crate::SagaIndex::read`].
pub(in crate::postgres) async fn sagas(pg: &Pg, ids: &[SagaId]) -> Result<Vec<LiveSaga>> {
    let sql = format!("SELECT {SAGA_COLUMNS}, {BYTES} FROM sagas WHERE id = ANY($1)");
    begin(pg).await?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    for some in ids.chunks(SAGAS_MAX) {
        let sought: Vec<_> = some.iter().map(|id| uuid_of(*id)).collect();
        let mut rows = pg.query(&sql, &[&sought]).await?;
        let order: HashMap<_, _> = sought.iter().zip(0..).collect();
        rows.sort_by_key(|row| {
            row.try_get::<_, Uuid>(0).ok().and_then(|id| order.get(&id).copied())
        });
        add_with_logs(pg, &rows, LIVE_PAGE_BYTES_MAX, &mut bytes, &mut page).await?;
        if bytes >= LIVE_PAGE_BYTES_MAX {
            break;
        }
    }
    end(pg).await?;
    Ok(page)
}

/// Returns a shard as its column.
pub(super) fn column(shard: ShardId) -> i16 {
    i16::try_from(shard.number()).unwrap_or(i16::MAX)
}

/// Adds sagas with their events, until these have `bytes_max` bytes.
async fn add_with_logs(
    pg: &Pg,
    rows: &[Row],
    bytes_max: usize,
    bytes: &mut usize,
    page: &mut Vec<LiveSaga>,
) -> Result<()> {
    let mut taken = 0;
    for row in rows {
        if *bytes >= bytes_max {
            break;
        }
        let of_saga: Option<i64> = row.try_get("bytes")?;
        *bytes += usize::try_from(of_saga.unwrap_or(0)).unwrap_or(usize::MAX);
        taken += 1;
    }
    let rows = &rows[..taken];
    let ids = rows.iter().map(|row| saga(row, 0)).collect::<Result<Vec<_>>>()?;
    let mut logs = logs(pg, &ids).await?;
    for (row, id) in rows.iter().zip(ids) {
        let content = match saga_row(row) {
            Ok(row) => logs.remove(&id).unwrap_or(Ok(Vec::new())).map(|log| (row, log)),
            Err(Failure::Unreadable(reason)) => Err(format!("its row: {reason}")),
            Err(failure) => return Err(failure),
        };
        page.push(LiveSaga { id, content });
    }
    Ok(())
}

/// The events of some sagas; or the reason why they cannot be read.
type Logs = HashMap<SagaId, std::result::Result<Vec<StoredEvent>, String>>;

/// Returns all events of some sagas.
async fn logs(pg: &Pg, ids: &[SagaId]) -> Result<Logs> {
    let sought: Vec<_> = ids.iter().map(|id| uuid_of(*id)).collect();
    let sql =
        format!("SELECT {APPEND_COLUMNS} FROM appends WHERE saga = ANY($1) ORDER BY saga, first");
    let mut logs = Logs::new();
    for row in pg.query(&sql, &[&sought]).await? {
        let id = saga(&row, 1)?;
        let log = logs.entry(id).or_insert_with(|| Ok(Vec::new()));
        let Ok(events) = log else { continue };
        match append_row(&row)?.events() {
            Ok(more) => events.extend(more),
            Err(reason) => *log = Err(format!("its event {}: {reason}", events.len() + 1)),
        }
    }
    Ok(logs)
}

/// Returns all events of a saga. The inner error is the reason why one of them cannot be read.
pub(in crate::postgres) async fn readable_log(
    pg: &Pg,
    id: SagaId,
) -> Result<std::result::Result<Vec<StoredEvent>, String>> {
    Ok(logs(pg, &[id]).await?.remove(&id).unwrap_or(Ok(Vec::new())))
}

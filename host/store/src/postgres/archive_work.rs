//! What the writer does of moving sagas to the archive and back: a few sagas in each transaction.

use std::collections::BTreeSet;

use amends_engine::{SagaId, Timestamp, Version};

use super::columns::decoded;
use super::connection::{Pg, references};
use super::error::{Failure, Result};
use super::job::WorkDone;
use super::open::BATCHES_KEPT;
use super::owned_shard::OwnedShard;
use super::projections::{remove_rows, version_of};
use super::rows::Rows;
use super::text::{stored_text, uuid_of, uuid_of_key};
use crate::append::StartKey;
use crate::id_time::delay_of;
use crate::saga_failure::failures;
use crate::saga_row::SagaRow;
use crate::segment::WrittenSegment;
use crate::stored_event::StoredEvent;

/// A saga that leaves the database.
#[derive(Debug, Clone, Copy)]
pub(super) struct Removal {
    pub(super) id: SagaId,
    /// The version that the saga had when it was written to the segment.
    pub(super) version: Version,
    /// The saga that has to leave before.
    pub(super) after: Option<SagaId>,
}

/// A saga that comes back.
pub(super) struct Returning {
    pub(super) row: SagaRow,
    /// The file that the saga was read from. It comes back only while its tombstone names this file.
    pub(super) file: String,
    /// The version that the tombstone had.
    pub(super) version: Version,
    /// The position, version, time and events of each append.
    pub(super) appends: Vec<(u64, u64, i64, String)>,
    pub(super) events: Vec<StoredEvent>,
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Records a segment that is durable, if the archive is still that of this host: another one removes files that are not
/// recorded.
pub(super) async fn put_segment(
    pg: &Pg,
    leader: OwnedShard,
    segment: WrittenSegment,
) -> Result<WorkDone> {
    let own = "SELECT 1 FROM shards WHERE id = $1 AND epoch = $2 FOR SHARE";
    let number = i16::try_from(leader.id.number()).unwrap_or(i16::MAX);
    if !pg.exists(own, &[&number, &leader.epoch]).await? {
        return Err(Failure::NotOwner(leader.id));
    }
    let WrittenSegment { file, hash, first, last, sagas, events, bytes, at } = segment;
    let sql = "INSERT INTO segments (file, digest, first, last, sagas, events, bytes, at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id";
    let row = pg
        .first(
            sql,
            &[
                &stored_text(&file),
                &hash.as_slice(),
                &uuid_of(first),
                &uuid_of(last),
                &integer(sagas),
                &integer(events),
                &integer(bytes),
                &Timestamp::as_millis(at),
            ],
        )
        .await?;
    let segment = row.map_or(Ok(0), |row| row.try_get(0))?;
    Ok(WorkDone { segment, ..WorkDone::default() })
}

/// Puts tombstones in the place of sagas. `segment` has them; none when they are deleted.
pub(super) async fn remove(pg: &Pg, sagas: Vec<Removal>, segment: Option<i64>) -> Result<WorkDone> {
    let mut done = WorkDone::default();
    let mut batches = BTreeSet::new();
    for saga in sagas {
        done.touched.push(saga.id);
        if let Some(of_saga) = remove_one(pg, saga, segment).await? {
            batches.extend(of_saga);
            done.count += 1;
            done.events += saga.version.0;
        }
    }
    // The last batch of a host that is there says what it has written.
    let empty = "DELETE FROM batches WHERE batch = ANY($1) AND position IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM appends WHERE appends.batch = batches.batch)
        AND NOT EXISTS (SELECT 1 FROM lanes WHERE lanes.host = batches.host AND lanes.lane = batches.lane
            AND batches.number = (SELECT max(number) FROM batches AS own
                                  WHERE own.host = lanes.host AND own.lane = lanes.lane))
        AND at < clock_timestamp() - $2::int8 * interval '1 s'";
    let kept = i64::try_from(BATCHES_KEPT.as_secs()).unwrap_or(i64::MAX);
    pg.execute(empty, &[&batches.into_iter().collect::<Vec<i64>>(), &kept]).await?;
    Ok(done)
}

/// Puts a tombstone in the place of a saga. Returns the batches that its events were in; none when the saga
/// stays.
async fn remove_one(
    pg: &Pg,
    Removal { id, version, after }: Removal,
    segment: Option<i64>,
) -> Result<Option<Vec<i64>>> {
    if let Some(parent) = after
        && pg.exists("SELECT 1 FROM sagas WHERE id = $1", &[&uuid_of(parent)]).await?
    {
        return Ok(None);
    }
    if version_of(pg, id).await? != Some(version.0) {
        return Ok(None);
    }
    let tombstone = "INSERT INTO archived
        SELECT id, $2, $3, definition, status, started_at, ended_at, key, subject_key FROM sagas
        WHERE id = $1 AND ended_at IS NOT NULL";
    if pg.execute(tombstone, &[&uuid_of(id), &integer(version.0), &segment]).await? == 0 {
        return Ok(None);
    }
    remove_rows(pg, id).await?;
    let removed =
        pg.query("DELETE FROM appends WHERE saga = $1 RETURNING batch", &[&uuid_of(id)]).await?;
    let batches = removed.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<_>>()?;
    Ok(Some(batches))
}

/// Puts a saga in the place of its tombstone.
pub(super) async fn bring_back(pg: &Pg, saga: Returning) -> Result<WorkDone> {
    let Returning { row, file, version, appends, events } = saga;
    let tombstone = "DELETE FROM archived WHERE saga = $1 AND version = $2
        AND segment = (SELECT id FROM segments WHERE file = $3)";
    let removed = pg
        .execute(tombstone, &[&uuid_of(row.id), &integer(version.0), &stored_text(&file)])
        .await?;
    if removed == 0 {
        return Ok(WorkDone::default());
    }
    let insert = "INSERT INTO appends (batch, last, saga, first, version, at, events)
                  VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let mut before = 0;
    for (position, version, at, text) in appends {
        let (position, version) = (integer(position), integer(version));
        let (batch, last) = batch_of(pg, position, version - before).await?;
        let (id, text) = (uuid_of(row.id), stored_text(&text));
        pg.execute(insert, &[&batch, &last, &id, &(before + 1), &version, &at, &text]).await?;
        before = version;
    }
    let mut rows = Rows::default();
    rows.put_row(&row, true);
    // What cannot be read is passed over.
    let (mut readable, mut versions) = (Vec::new(), Vec::new());
    for event in &events {
        if let Ok(decoded) = decoded(event) {
            readable.push(decoded);
            versions.push(integer(event.version.0));
        }
    }
    for failure in failures(&readable, |_, _| None) {
        rows.add_failure(row.id, versions[failure.event], failure);
    }
    for write in rows.into_writes() {
        pg.execute(write.sql, &references(&write.values)).await?;
    }
    let life = row.ended_at.map_or(0, |at| at.as_millis() - row.started_at.as_millis());
    Ok(WorkDone {
        count: 1,
        events: version.0,
        touched: vec![row.id],
        start_delay: delay_of(row.id, row.started_at),
        longest_life: life,
        ..WorkDone::default()
    })
}

/// A saga that ended on another host.
pub(super) struct Import {
    /// The segment that has it alone.
    pub(super) segment: WrittenSegment,
    pub(super) row: SagaRow,
    pub(super) start_key: Option<StartKey>,
}

/// Records a saga that ended on another host: its segment, its tombstone and its start key. Nothing when
/// there is a saga of this id.
pub(super) async fn import(pg: &Pg, leader: OwnedShard, import: Import) -> Result<WorkDone> {
    let Import { segment, row, start_key } = import;
    let is_known = "SELECT 1 FROM sagas WHERE id = $1
        UNION ALL SELECT 1 FROM archived WHERE saga = $1
        UNION ALL SELECT 1 FROM appends WHERE saga = $1";
    let id = uuid_of(row.id);
    if pg.exists(is_known, &[&id]).await? {
        return Ok(WorkDone::default());
    }
    let events = segment.events;
    let number = put_segment(pg, leader, segment).await?.segment;
    let mut key = None;
    if let Some(start_key) = start_key {
        let insert = "INSERT INTO start_keys VALUES ($1, $2, $3, $4) ON CONFLICT (key) DO NOTHING";
        let text = stored_text(&start_key.key);
        let (digest, at) =
            (start_key.payload_digest.as_bytes().to_vec(), row.started_at.as_millis());
        let taken = pg.execute(insert, &[&text, &id, &digest, &at]).await?;
        key = (taken > 0).then_some(text);
    }
    let tombstone = "INSERT INTO archived (saga, version, segment, definition, status, started_at,
            ended_at, key, subject_key)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let ended_at = row.ended_at.map(Timestamp::as_millis);
    let subject_key = row.subject_key.map(uuid_of_key);
    pg.execute(
        tombstone,
        &[
            &id,
            &integer(events),
            &number,
            &row.definition.as_str(),
            &row.status.as_str(),
            &row.started_at.as_millis(),
            &ended_at,
            &key,
            &subject_key,
        ],
    )
    .await?;
    let ended_at = row.ended_at.unwrap_or(row.started_at).as_millis();
    Ok(WorkDone {
        segment: number,
        count: 1,
        events,
        touched: vec![row.id],
        start_delay: delay_of(row.id, row.started_at),
        longest_life: ended_at - row.started_at.as_millis(),
        ..WorkDone::default()
    })
}

/// Returns the batch that an append with a position was in, and the number of its last event in it. The batch is
/// made anew for the append alone when it was removed.
async fn batch_of(pg: &Pg, position: i64, events: i64) -> Result<(i64, i64)> {
    let known = "SELECT batch, position, events FROM batches WHERE position < $1
                 ORDER BY position DESC LIMIT 1";
    if let Some(row) = pg.first(known, &[&position]).await? {
        let (batch, before, has): (i64, i64, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if position <= before + has {
            return Ok((batch, position - before));
        }
    }
    // Of no host: nobody asks what became of it.
    let made = "INSERT INTO batches (host, lane, number, epoch, events, total, position)
                SELECT 0, 0, 1 + coalesce((SELECT max(number) FROM batches WHERE host = 0), 0), 0, $1, 0, $2
                RETURNING batch";
    let row = pg.first(made, &[&events, &(position - events)]).await?;
    Ok((row.map_or(Ok(0), |row| row.try_get(0))?, events))
}

/// Removes start keys of archived sagas.
pub(super) async fn remove_keys(pg: &Pg, keys: Vec<(SagaId, String)>) -> Result<WorkDone> {
    let mut done = WorkDone::default();
    for (id, key) in keys {
        let remove = "DELETE FROM start_keys WHERE key = $1 AND saga = $2";
        pg.execute(remove, &[&stored_text(&key), &uuid_of(id)]).await?;
        let forget = "UPDATE archived SET key = NULL WHERE saga = $1";
        done.count += pg.execute(forget, &[&uuid_of(id)]).await?;
    }
    Ok(done)
}

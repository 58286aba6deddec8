//! What the writer does of moving sagas to the archive and back: a few sagas in each transaction.

use amends_engine::{SagaId, Timestamp, Version};

use super::columns::decoded;
use super::connection::{Pg, references};
use super::error::Result;
use super::job::WorkDone;
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

/// Records a segment that is durable.
pub(super) async fn put_segment(pg: &Pg, segment: WrittenSegment) -> Result<WorkDone> {
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
pub(super) async fn remove(
    pg: &Pg,
    sagas: Vec<Removal>,
    segment: Option<i64>,
    position: i64,
) -> Result<WorkDone> {
    // No position is given twice, also when these sagas have the last ones.
    keep_position(pg, position).await?;
    let mut done = WorkDone::default();
    for saga in sagas {
        done.touched.push(saga.id);
        if remove_one(pg, saga, segment).await? {
            done.count += 1;
            done.events += saga.version.0;
        }
    }
    Ok(done)
}

/// Puts a tombstone in the place of a saga. Returns false when the saga stays.
async fn remove_one(
    pg: &Pg,
    Removal { id, version, after }: Removal,
    segment: Option<i64>,
) -> Result<bool> {
    if let Some(parent) = after
        && pg.exists("SELECT 1 FROM sagas WHERE id = $1", &[&uuid_of(parent)]).await?
    {
        return Ok(false);
    }
    if version_of(pg, id).await? != Some(version.0) {
        return Ok(false);
    }
    let tombstone = "INSERT INTO archived
        SELECT id, $2, $3, definition, status, started_at, ended_at, key, subject_key FROM sagas
        WHERE id = $1 AND ended_at IS NOT NULL";
    if pg.execute(tombstone, &[&uuid_of(id), &integer(version.0), &segment]).await? == 0 {
        return Ok(false);
    }
    remove_rows(pg, id).await?;
    pg.execute("DELETE FROM appends WHERE saga = $1", &[&uuid_of(id)]).await?;
    Ok(true)
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
    let insert = "INSERT INTO appends (position, saga, first, version, at, events)
                  VALUES ($1, $2, $3, $4, $5, $6)";
    let mut before = 0;
    for (position, version, at, text) in appends {
        let (position, version) = (integer(position), integer(version));
        let (id, text) = (uuid_of(row.id), stored_text(&text));
        pg.execute(insert, &[&position, &id, &(before + 1), &version, &at, &text]).await?;
        before = version;
    }
    let mut rows = Rows::default();
    rows.put_row(&row, true);
    // What cannot be read is passed over.
    let (mut readable, mut positions) = (Vec::new(), Vec::new());
    for event in &events {
        if let Ok(decoded) = decoded(event) {
            readable.push(decoded);
            positions.push(integer(event.position.0));
        }
    }
    for failure in failures(&readable, |_, _| None) {
        rows.add_failure(row.id, positions[failure.event], failure);
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
pub(super) async fn import(pg: &Pg, import: Import, position: i64) -> Result<WorkDone> {
    let Import { segment, row, start_key } = import;
    let is_known = "SELECT 1 FROM sagas WHERE id = $1
        UNION ALL SELECT 1 FROM archived WHERE saga = $1
        UNION ALL SELECT 1 FROM appends WHERE saga = $1";
    let id = uuid_of(row.id);
    if pg.exists(is_known, &[&id]).await? {
        return Ok(WorkDone::default());
    }
    let events = segment.events;
    let number = put_segment(pg, segment).await?.segment;
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
    keep_position(pg, position + integer(events)).await?;
    let ended_at = row.ended_at.unwrap_or(row.started_at).as_millis();
    Ok(WorkDone {
        segment: number,
        count: 1,
        events,
        positions: integer(events),
        touched: vec![row.id],
        start_delay: delay_of(row.id, row.started_at),
        longest_life: ended_at - row.started_at.as_millis(),
        ..WorkDone::default()
    })
}

/// Writes the last position down, because no row may have it.
async fn keep_position(pg: &Pg, position: i64) -> Result<()> {
    let last = "INSERT INTO meta VALUES ('position', $1)
                ON CONFLICT (name) DO UPDATE SET value = greatest(meta.value, excluded.value)";
    pg.execute(last, &[&position]).await?;
    Ok(())
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

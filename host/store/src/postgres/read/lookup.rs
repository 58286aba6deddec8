//! Rows by their key, counts, and the sagas that wait.

use std::collections::BTreeMap;
use std::sync::Arc;

use amends_engine::{Digest, SagaId, SagaStatus, SubjectKeyId, Timestamp, Version};
use uuid::Uuid;

use super::live::column;
use crate::archive::Tombstone;
use crate::blob::{BlobKind, BlobRow};
use crate::id_time::{first_id, last_id};
use crate::outbox::{DeadLetter, SubscriptionRow};
use crate::paging::Cursor;
use crate::postgres::columns::{
    SAGA_COLUMNS, TOMBSTONE_COLUMNS, TOMBSTONES, count, digest, maybe_text, maybe_time,
    saga as saga_id, saga_row, status, text, time, tombstone as read_tombstone,
};
use crate::postgres::connection::Pg;
use crate::postgres::error::Result;
use crate::postgres::text::{read_stream, saga_of, stored_text, uuid_of, uuid_of_key};
use crate::saga_row::SagaRow;
use crate::schedules::ScheduleRow;
use crate::shard_id::ShardId;

/// The sagas that [`was_any_live`] looks at.
const LOOKED_AT_MAX: i64 = 100_000;

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns the row of a saga.
pub(in crate::postgres) async fn saga(pg: &Pg, id: SagaId) -> Result<Option<SagaRow>> {
    let sql = format!("SELECT {SAGA_COLUMNS} FROM sagas WHERE id = $1");
    pg.first(&sql, &[&uuid_of(id)]).await?.map(|row| saga_row(&row)).transpose()
}

/// Returns the rows of sagas whose values are sealed with the key of a subject, by ascending id.
pub(in crate::postgres) async fn of_subject_key(
    pg: &Pg,
    key: SubjectKeyId,
    after: Option<SagaId>,
    limit: u32,
) -> Result<Vec<SagaRow>> {
    let sql = format!(
        "SELECT {SAGA_COLUMNS} FROM sagas WHERE subject_key = $1 AND ($2::uuid IS NULL OR id > $2)
         ORDER BY id LIMIT $3"
    );
    let (after, limit) = (after.map(uuid_of), i64::from(limit));
    let rows = pg.query(&sql, &[&uuid_of_key(key), &after, &limit]).await?;
    rows.iter().map(saga_row).collect()
}

/// Returns whether a saga has values that are sealed.
pub(in crate::postgres) async fn has_sealed(pg: &Pg) -> Result<bool> {
    pg.exists("SELECT 1 FROM sagas WHERE subject_key IS NOT NULL LIMIT 1", &[]).await
}

/// Returns how many archived sagas have values that are sealed with the key of a subject.
pub(in crate::postgres) async fn count_archived_of_key(pg: &Pg, key: SubjectKeyId) -> Result<u64> {
    let sql = "SELECT count(*) FROM archived WHERE subject_key = $1";
    let row = pg.first(sql, &[&uuid_of_key(key)]).await?;
    row.map_or(Ok(0), |row| count(&row, 0))
}

/// Returns the saga that a key started, and the digest of the payload it was started with.
pub(in crate::postgres) async fn key(pg: &Pg, key: &str) -> Result<Option<(SagaId, Digest)>> {
    let sql = "SELECT saga, payload_digest FROM start_keys WHERE key = $1";
    let row = pg.first(sql, &[&stored_text(key)]).await?;
    row.map(|row| Ok((saga_id(&row, 0)?, digest(&row, 1)?))).transpose()
}

/// Returns whether a saga was live in a time, see [`crate::SagaIndex::was_any_live`].
pub(in crate::postgres) async fn was_any_live(
    pg: &Pg,
    from: Timestamp,
    until: Timestamp,
) -> Result<bool> {
    // The newest first: one that began after `from` is found at once.
    let before = Uuid::from_bytes(last_id(until));
    let found = "SELECT 1 FROM
            (SELECT started_at, ended_at FROM sagas WHERE id < $1 ORDER BY id DESC LIMIT $4) AS newest
        WHERE started_at < $2 AND (ended_at IS NULL OR ended_at >= $3) LIMIT 1";
    let (until, from) = (until.as_millis(), from.as_millis());
    if pg.exists(found, &[&before, &until, &from, &LOOKED_AT_MAX]).await? {
        return Ok(true);
    }
    let others = "SELECT 1 FROM sagas WHERE id < $1 ORDER BY id DESC LIMIT 1 OFFSET $2";
    pg.exists(others, &[&before, &LOOKED_AT_MAX]).await
}

/// Returns how many sagas have each status.
pub(in crate::postgres) async fn counts(pg: &Pg) -> Result<BTreeMap<SagaStatus, u64>> {
    let rows = pg.query("SELECT status, count(*) FROM sagas GROUP BY status", &[]).await?;
    rows.iter().map(|row| Ok((status(row, 0)?, count(row, 1)?))).collect()
}

/// Returns how many sagas wait.
pub(in crate::postgres) async fn count_waiting(pg: &Pg) -> Result<u64> {
    let row = pg.first("SELECT count(*) FROM sagas WHERE status = 'waiting'", &[]).await?;
    row.map_or(Ok(0), |row| count(&row, 0))
}

/// Returns a page of sagas that the clock wakes, see [`crate::SagaIndex::due`].
pub(in crate::postgres) async fn due(
    pg: &Pg,
    shards: &[ShardId],
    until: Timestamp,
    after: Option<(Timestamp, SagaId)>,
    limit: u32,
) -> Result<Vec<(Timestamp, SagaId)>> {
    let sql = "SELECT wake_at, id FROM sagas WHERE status = 'waiting' AND wake_at IS NOT NULL
               AND wake_at <= $1 AND (wake_at, id) > ($2, $3) AND shard = ANY($4)
               ORDER BY wake_at, id LIMIT $5";
    let (at, id) = match after {
        Some((at, id)) => (at.as_millis(), uuid_of(id)),
        None => (i64::MIN, Uuid::nil()),
    };
    let shards: Vec<i16> = shards.iter().map(|shard| column(*shard)).collect();
    let rows = pg.query(sql, &[&until.as_millis(), &at, &id, &shards, &i64::from(limit)]).await?;
    rows.iter().map(|row| Ok((time(row, 0)?, saga_id(row, 1)?))).collect()
}

/// Returns a page of sagas that wait, see [`crate::SagaIndex::waiting`].
pub(in crate::postgres) async fn waiting(
    pg: &Pg,
    shards: &[ShardId],
    after: Option<SagaId>,
    limit: u32,
) -> Result<Vec<(SagaId, Timestamp)>> {
    let sql = "SELECT id, coalesce((SELECT max(at) FROM appends WHERE appends.saga = sagas.id), 0)
               FROM sagas WHERE status = 'waiting' AND id > $1 AND shard = ANY($2)
               ORDER BY id LIMIT $3";
    let after = after.map_or(Uuid::nil(), uuid_of);
    let shards: Vec<i16> = shards.iter().map(|shard| column(*shard)).collect();
    let rows = pg.query(sql, &[&after, &shards, &i64::from(limit)]).await?;
    rows.iter().map(|row| Ok((saga_id(row, 0)?, time(row, 1)?))).collect()
}

/// Returns the value of a key of a plugin's state.
pub(in crate::postgres) async fn state_value(
    pg: &Pg,
    plugin: &str,
    key: &str,
) -> Result<Option<Arc<str>>> {
    let sql = "SELECT value FROM state WHERE plugin = $1 AND key = $2";
    let row = pg.first(sql, &[&plugin, &stored_text(key)]).await?;
    row.map(|row| Ok(Arc::from(text(&row, 0)?))).transpose()
}

/// Returns the bytes that are stored under a digest.
pub(in crate::postgres) async fn blob(
    pg: &Pg,
    kind: BlobKind,
    digest: Digest,
) -> Result<Option<Vec<u8>>> {
    let sql = "SELECT bytes FROM blobs WHERE kind = $1 AND digest = $2";
    let row = pg.first(sql, &[&kind.as_str(), &digest.as_bytes().as_slice()]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Returns the blobs of a kind without their bytes, the oldest first.
pub(in crate::postgres) async fn blobs(pg: &Pg, kind: BlobKind) -> Result<Vec<BlobRow>> {
    let sql = "SELECT name, digest, at, octet_length(bytes)::int8 FROM blobs WHERE kind = $1
               ORDER BY at, digest";
    let rows = pg.query(sql, &[&kind.as_str()]).await?;
    rows.iter()
        .map(|row| {
            Ok(BlobRow {
                name: text(row, 0)?,
                digest: digest(row, 1)?,
                at: time(row, 2)?,
                bytes_len: count(row, 3)?,
            })
        })
        .collect()
}

/// Returns what is kept of a subscription.
pub(in crate::postgres) async fn subscription(
    pg: &Pg,
    name: &str,
) -> Result<Option<SubscriptionRow>> {
    let sql = "SELECT position, disabled,
            (SELECT count(*) FROM dead_letters WHERE subscription = name)
        FROM subscriptions WHERE name = $1";
    let row = pg.first(sql, &[&stored_text(name)]).await?;
    row.map(|row| {
        Ok(SubscriptionRow {
            cursor: Cursor(count(&row, 0)?),
            disabled: maybe_text(&row, 1)?,
            dead_letters: count(&row, 2)?,
        })
    })
    .transpose()
}

/// Returns dead letters, see [`crate::Outbox::dead_letters`].
pub(in crate::postgres) async fn dead_letters(
    pg: &Pg,
    name: &str,
    after: Option<Cursor>,
    limit: u32,
) -> Result<Vec<DeadLetter>> {
    let sql = "SELECT place, stream, version, type, at, attempts, error FROM dead_letters
               WHERE subscription = $1 AND place > $2 ORDER BY place LIMIT $3";
    let after = after.map_or(-1, |Cursor(place)| integer(place));
    let rows = pg.query(sql, &[&stored_text(name), &after, &i64::from(limit)]).await?;
    rows.iter()
        .map(|row| {
            Ok(DeadLetter {
                place: Cursor(count(row, 0)?),
                stream: read_stream(row.try_get(1)?)?,
                version: Version(count(row, 2)?),
                kind: row.try_get(3)?,
                at: time(row, 4)?,
                attempts: u32::try_from(count(row, 5)?).unwrap_or(u32::MAX),
                error: text(row, 6)?,
            })
        })
        .collect()
}

/// Returns what is kept of a schedule.
pub(in crate::postgres) async fn schedule(pg: &Pg, name: &str) -> Result<Option<ScheduleRow>> {
    let sql = "SELECT name, pattern, decided_until, started_at, saga, skipped_at, skipped_reason
               FROM schedules WHERE name = $1";
    let Some(row) = pg.first(sql, &[&stored_text(name)]).await? else { return Ok(None) };
    let started = match maybe_time(&row, 3)? {
        Some(at) => Some((at, saga_id(&row, 4)?)),
        None => None,
    };
    let skipped = match maybe_time(&row, 5)? {
        Some(at) => Some((at, text(&row, 6)?)),
        None => None,
    };
    Ok(Some(ScheduleRow {
        name: text(&row, 0)?,
        pattern: text(&row, 1)?,
        decided_until: time(&row, 2)?,
        started,
        skipped,
    }))
}

/// Returns how many events were ever stored: each got the next position.
pub(in crate::postgres) async fn count_events(pg: &Pg) -> Result<u64> {
    let sql = "SELECT value + (SELECT coalesce(sum(events), 0) FROM batches
                               WHERE position IS NULL AND events > 0)::int8
               FROM meta WHERE name = 'position'";
    pg.first(sql, &[]).await?.map_or(Ok(0), |row| count(&row, 0))
}

/// Returns the tombstone of a saga.
pub(in crate::postgres) async fn tombstone(pg: &Pg, id: SagaId) -> Result<Option<Tombstone>> {
    let sql = format!("SELECT {TOMBSTONE_COLUMNS} FROM {TOMBSTONES} WHERE archived.saga = $1");
    pg.first(&sql, &[&uuid_of(id)]).await?.map(|row| read_tombstone(&row)).transpose()
}

/// Returns the names of the files of the archive.
pub(in crate::postgres) async fn segment_files(pg: &Pg) -> Result<Vec<String>> {
    let rows = pg.query("SELECT file FROM segments ORDER BY id", &[]).await?;
    rows.iter().map(|row| text(row, 0)).collect()
}

/// Returns the first of some sagas that is neither in the store nor archived.
pub(in crate::postgres) async fn first_unknown(
    pg: &Pg,
    sagas: &[SagaId],
) -> Result<Option<SagaId>> {
    let sql = "SELECT u.id FROM unnest($1::uuid[]) AS u(id)
        WHERE NOT EXISTS (SELECT 1 FROM sagas s WHERE s.id = u.id)
        AND NOT EXISTS (SELECT 1 FROM archived x WHERE x.saga = u.id) LIMIT 1";
    let ids: Vec<_> = sagas.iter().map(|saga| uuid_of(*saga)).collect();
    pg.first(sql, &[&ids]).await?.map(|row| Ok(saga_of(row.try_get(0)?))).transpose()
}

/// Returns the numbers of the runs of this store.
pub(in crate::postgres) async fn runs(pg: &Pg) -> Result<Vec<i64>> {
    let rows = pg.query("SELECT value FROM meta WHERE name LIKE 'run/%'", &[]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Returns when the oldest saga ended that has ended and has a row.
pub(in crate::postgres) async fn oldest_ended(pg: &Pg) -> Result<Option<Timestamp>> {
    let sql = "SELECT ended_at FROM sagas WHERE ended_at IS NOT NULL ORDER BY id LIMIT 1";
    pg.first(sql, &[]).await?.map(|row| time(&row, 0)).transpose()
}

/// Returns the start keys of archived sagas that ended before a time, at most `limit`.
pub(in crate::postgres) async fn old_keys(
    pg: &Pg,
    before: Timestamp,
    limit: u32,
) -> Result<Vec<(SagaId, String)>> {
    let sql = "SELECT saga, key FROM archived WHERE key IS NOT NULL AND saga < $1 AND ended_at < $2
               LIMIT $3";
    // A saga that ended before the time was made before it.
    let made = Uuid::from_bytes(first_id(before, 0));
    let rows = pg.query(sql, &[&made, &before.as_millis(), &i64::from(limit)]).await?;
    rows.iter().map(|row| Ok((saga_id(row, 0)?, text(row, 1)?))).collect()
}

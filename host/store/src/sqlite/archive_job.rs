//! What the writer does of moving sagas to the archive and back: a few sagas in each transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::{Position, SagaId, SubjectKeyId, Timestamp, Version};
use amends_failpoint::failpoint;
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use super::append::{insert_append, known_key, put_key, put_row};
use super::archived_columns::archived_version;
use super::column::to_integer;
use super::error::is_constraint;
use super::failures::{derive_failures, remove_failures};
use super::saga_index::remove_index;
use super::start_delay::{delay_of, note_start_delay};
use super::statements::Statements;
use super::writer_cache::WriterCache;
use crate::append::StartKey;
use crate::error::StoreError;
use crate::saga_row::SagaRow;
use crate::segment::WrittenSegment;
use crate::stream::Stream;

/// The number of the row of a segment.
pub(super) type SegmentNumber = i64;

/// A part of moving sagas. Whoever moves them waits for each answer.
pub(super) struct ArchiveJob {
    pub(super) task: ArchiveTask,
    pub(super) reply: oneshot::Sender<Result<ArchiveDone, StoreError>>,
}

/// What is to be written.
pub(super) enum ArchiveTask {
    /// Records a segment that is durable.
    Segment(WrittenSegment),
    /// Puts tombstones in the place of sagas.
    Remove {
        sagas: Vec<Removal>,
        /// The segment that has them; none when they are deleted.
        segment: Option<SegmentNumber>,
    },
    /// Puts a saga in the place of its tombstone.
    BringBack(Box<Returning>),
    /// Records a segment that has one saga of another host, and its tombstone.
    Import(Box<Import>),
    /// Removes start keys of archived sagas.
    RemoveKeys(Vec<(SagaId, String)>),
}

/// A saga that leaves the database.
#[derive(Debug, Clone, Copy)]
pub(super) struct Removal {
    pub(super) id: SagaId,
    /// The version that the saga had when it was written to the segment.
    pub(super) version: Version,
    /// The bytes of its line.
    pub(super) bytes: usize,
    /// The saga that has to leave before.
    pub(super) after: Option<SagaId>,
    /// See [`ToArchive::is_late`](crate::ToArchive::is_late).
    pub(super) is_late: bool,
}

/// A saga that comes back.
pub(super) struct Returning {
    pub(super) row: SagaRow,
    /// The file that the saga was read from. It comes back only while its tombstone names this file:
    /// it may have come back, gone on and been archived again since.
    pub(super) file: String,
    /// The version that the tombstone had.
    pub(super) version: Version,
    /// The position, version, time and events of each append.
    pub(super) appends: Vec<(u64, u64, i64, String)>,
}

/// A saga that ended on another host.
pub(super) struct Import {
    /// The segment that has it alone.
    pub(super) segment: WrittenSegment,
    pub(super) row: SagaRow,
    pub(super) start_key: Option<StartKey>,
}

impl ArchiveTask {
    /// Returns how many bytes the part adds to a transaction.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::BringBack(saga) => saga.appends.iter().map(|(.., events)| events.len()).sum(),
            Self::Segment(_) | Self::Remove { .. } | Self::Import(_) | Self::RemoveKeys(_) => 0,
        }
    }
}

/// What came of a part.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ArchiveDone {
    /// The number of the segment that was recorded.
    pub(super) segment: SegmentNumber,
    /// The sagas that were moved, or the keys that were removed.
    pub(super) count: u64,
    /// The events of the sagas.
    pub(super) events: u64,
    /// How long the part took, without the commit.
    pub(super) took: Duration,
    /// How long the transaction held the writer up: with the commit, with a checkpoint if one came, and
    /// with the other jobs that were in it.
    pub(super) held: Duration,
    /// True when appends were in the transaction, which waited for the part.
    pub(super) is_shared: bool,
}

impl WriterCache {
    /// Does a part of moving sagas within a transaction. The inner error concerns this part alone:
    /// the database has rows that contradict it, so nothing of the part is written. The outer error
    /// is a failure of the database.
    pub(super) fn archive(
        &mut self,
        connection: &Connection,
        task: &ArchiveTask,
    ) -> rusqlite::Result<Result<ArchiveDone, StoreError>> {
        let began = Instant::now();
        connection.execute_batch("SAVEPOINT archive")?;
        let done = match task {
            ArchiveTask::Segment(segment) => put_segment(connection, segment),
            ArchiveTask::Remove { sagas, segment } => self.remove(connection, sagas, *segment),
            ArchiveTask::BringBack(saga) => self.bring_back(connection, saga),
            ArchiveTask::Import(import) => self.import(connection, import),
            ArchiveTask::RemoveKeys(keys) => remove_keys(connection, keys),
        };
        let done = match done {
            Ok(done) => Ok(ArchiveDone { took: began.elapsed(), ..done }),
            Err(error) if is_constraint(&error) => {
                connection.execute_batch("ROLLBACK TO archive")?;
                Err(StoreError::Damaged { source: Arc::new(error) })
            }
            Err(error) => return Err(error),
        };
        connection.execute_batch("RELEASE archive")?;
        Ok(done)
    }

    fn remove(
        &mut self,
        connection: &Connection,
        sagas: &[Removal],
        segment: Option<SegmentNumber>,
    ) -> rusqlite::Result<ArchiveDone> {
        let mut done = ArchiveDone::default();
        // No position is given twice, also when these sagas have the last ones.
        keep_position(connection, self.position)?;
        for saga in sagas {
            if self.remove_one(connection, *saga, segment)? {
                done.count += 1;
                done.events += saga.version.0;
                failpoint("store.archive.removing");
            }
        }
        count_archived(connection, to_integer(done.count), to_integer(done.events))?;
        Ok(done)
    }

    /// Puts a tombstone in the place of a saga. Returns false when the saga stays.
    fn remove_one(
        &mut self,
        connection: &Connection,
        Removal { id, version, after, .. }: Removal,
        segment: Option<SegmentNumber>,
    ) -> rusqlite::Result<bool> {
        if let Some(parent) = after
            && has_row(connection, parent)?
        {
            return Ok(false);
        }
        let stream = Stream::Saga(id);
        let actual: Option<i64> = connection
            .prepare_cached("SELECT max(version) FROM appends WHERE stream = ?1")?
            .query_row([&stream], |row| row.get(0))?;
        if actual != Some(to_integer(version.0)) {
            return Ok(false);
        }
        let tombstone = "INSERT INTO archived
            SELECT id, ?2, ?3, definition, status, started_at, ended_at, key, subject_key FROM sagas
            WHERE id = ?1 AND ended_at IS NOT NULL";
        let rows = connection.prepare_cached(tombstone)?.execute(params![
            id.as_bytes(),
            to_integer(version.0),
            segment
        ])?;
        if rows == 0 {
            return Ok(false);
        }
        let tags = "DELETE FROM saga_tags WHERE saga = ?1 AND (name, value) IN
            (SELECT key, value FROM json_each((SELECT tags FROM sagas WHERE id = ?1)))";
        connection.prepare_cached(tags)?.execute([id.as_bytes()])?;
        remove_failures(connection, id)?;
        remove_index(connection, id)?;
        connection.prepare_cached("DELETE FROM sagas WHERE id = ?1")?.execute([id.as_bytes()])?;
        connection.prepare_cached("DELETE FROM appends WHERE stream = ?1")?.execute([&stream])?;
        // A note after the end may have put it there.
        self.versions_cache.remove(&stream);
        Ok(true)
    }

    fn bring_back(
        &mut self,
        connection: &Connection,
        Returning { row, file, version, appends }: &Returning,
    ) -> rusqlite::Result<ArchiveDone> {
        let id = row.id;
        let tombstone = "DELETE FROM archived WHERE saga = ?1 AND version = ?2
            AND segment = (SELECT id FROM segments WHERE file = ?3)";
        let removed = connection.prepare_cached(tombstone)?.execute(params![
            id.as_bytes(),
            to_integer(version.0),
            file
        ])?;
        if removed == 0 {
            return Ok(ArchiveDone::default());
        }
        let stream = Stream::Saga(id);
        let mut statements = Statements::new(connection);
        for (position, version, at, events) in appends {
            let (position, version) = (to_integer(*position), to_integer(*version));
            insert_append(&mut statements, (position, &stream, version, *at, events))?;
        }
        put_row(&mut statements, row, true)?;
        derive_failures(connection, id)?;
        count_archived(connection, -1, -to_integer(version.0))?;
        self.versions_cache.remove(&stream);
        Ok(ArchiveDone { count: 1, events: version.0, ..ArchiveDone::default() })
    }
}

impl WriterCache {
    /// Records a saga that ended on another host: its segment, its tombstone and its start key. Nothing
    /// when there is a saga of this id.
    fn import(
        &mut self,
        connection: &Connection,
        Import { segment, row, start_key }: &Import,
    ) -> rusqlite::Result<ArchiveDone> {
        let (stream, events) = (Stream::Saga(row.id), segment.events);
        let is_known = "SELECT 1 FROM appends WHERE stream = ?1";
        if has_row(connection, row.id)?
            || archived_version(connection, row.id)?.is_some()
            || connection.prepare_cached(is_known)?.exists([&stream])?
        {
            return Ok(ArchiveDone::default());
        }
        let number = put_segment(connection, segment)?.segment;
        let key = match start_key {
            Some(key) if known_key(connection, key)?.is_none() => {
                put_key(connection, key, &stream, row.started_at)?;
                Some(&key.key)
            }
            Some(_) | None => None,
        };
        connection
            .prepare_cached(
                "INSERT INTO archived (saga, version, segment, definition, status, started_at,
                     ended_at, key, subject_key)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                row.id.as_bytes(),
                to_integer(events),
                number,
                row.definition.as_str(),
                row.status.as_str(),
                row.started_at.as_millis(),
                row.ended_at.map(Timestamp::as_millis),
                key,
                row.subject_key.as_ref().map(SubjectKeyId::as_bytes),
            ])?;
        // Positions without a row are those of archived events, and readers know such gaps.
        let position = Position(self.position.0 + events);
        keep_position(connection, position)?;
        count_archived(connection, 1, to_integer(events))?;
        note_start_delay(connection, delay_of(row.id, row.started_at))?;
        self.note_life(connection, row)?;
        self.versions_cache.remove(&stream);
        self.position = position;
        failpoint("store.import.recording");
        Ok(ArchiveDone { segment: number, count: 1, events, ..ArchiveDone::default() })
    }
}

/// Writes the last position down, because no row may have it.
fn keep_position(connection: &Connection, position: Position) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO meta VALUES ('position', ?1)
             ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        )?
        .execute([to_integer(position.0)])?;
    Ok(())
}

fn has_row(connection: &Connection, id: SagaId) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM sagas WHERE id = ?1")?.exists([id.as_bytes()])
}

fn put_segment(connection: &Connection, segment: &WrittenSegment) -> rusqlite::Result<ArchiveDone> {
    let WrittenSegment { file, hash, first, last, sagas, events, bytes, at } = segment;
    connection
        .prepare_cached(
            "INSERT INTO segments (file, digest, first, last, sagas, events, bytes, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            file,
            hash,
            first.as_bytes(),
            last.as_bytes(),
            to_integer(*sagas),
            to_integer(*events),
            to_integer(*bytes),
            Timestamp::as_millis(*at),
        ])?;
    Ok(ArchiveDone { segment: connection.last_insert_rowid(), ..ArchiveDone::default() })
}

/// Counts the sagas and events that have no row any more. Positions that have no row are theirs.
fn count_archived(connection: &Connection, sagas: i64, events: i64) -> rusqlite::Result<()> {
    for (name, more) in [("archived_sagas", sagas), ("archived_events", events)] {
        connection
            .prepare_cached(
                "INSERT INTO meta VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            )?
            .execute(params![name, more])?;
    }
    Ok(())
}

fn remove_keys(
    connection: &Connection,
    keys: &[(SagaId, String)],
) -> rusqlite::Result<ArchiveDone> {
    let mut done = ArchiveDone::default();
    for (id, key) in keys {
        connection
            .prepare_cached("DELETE FROM start_keys WHERE key = ?1 AND saga = ?2")?
            .execute(params![key, id.as_bytes()])?;
        let rows = connection
            .prepare_cached("UPDATE archived SET key = NULL WHERE saga = ?1")?
            .execute([id.as_bytes()])?;
        done.count += rows as u64;
    }
    Ok(done)
}

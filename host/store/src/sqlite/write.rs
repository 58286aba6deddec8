//! The writer: one thread, one transaction for all that waits.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use amends_engine::{Digest, PluginName, Position, SagaId, Timestamp, Version};
use amends_failpoint::failpoint;
use rusqlite::types::ToSqlOutput;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Params, ToSql, params};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::health::Health;
use super::read::{START_DELAY, delay_of};
use super::schema::{describe, is_unreadable, remember_start_delay};
use super::state::StateCache;
use super::upkeep::Upkeep;
use crate::StoreError;
use crate::types::{
    Append, AppendReply, Appended, BlobKind, NewEvent, SagaRow, StartKey, StoreStats, Stream,
};

/// Jobs in one transaction: more gains little and makes the first wait for the last.
const BATCH_MAX: usize = 1_024;

/// Bytes of events, blobs and changes of state ([`StateChange`]) in one transaction, unless one job alone has more: a transaction's
/// pages are kept in memory until it is committed.
const BATCH_BYTES_MAX: usize = 32 << 20;

/// Streams whose version is kept in memory, at most: the live ones of a busy host, some 100 bytes
/// each.
const VERSIONS_CACHED_MAX: usize = 1 << 16;

/// Something to write.
pub(super) enum Job {
    Append {
        append: Box<Append>,
        reply: AppendReply,
        since: Instant,
    },
    PutBlob {
        kind: BlobKind,
        name: String,
        digest: Digest,
        at: Timestamp,
        bytes: Vec<u8>,
        reply: oneshot::Sender<Result<(), StoreError>>,
        /// Its places in the queue, also when nobody waits for it any more.
        _place: OwnedSemaphorePermit,
    },
    /// To look after the store; see [`super::upkeep`].
    Look {
        /// Shared with whoever sent it, who sends no other one while this one waits.
        _waits: Arc<()>,
    },
    /// The last one: nothing is taken after it but what waits already.
    Close,
}

impl Job {
    pub(super) fn append(append: Append, reply: AppendReply) -> Self {
        Self::Append { append: Box::new(append), reply, since: Instant::now() }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append { append, .. } => append.bytes(),
            Self::PutBlob { bytes, .. } => bytes.len(),
            Self::Look { .. } | Self::Close => 0,
        }
    }
}

/// What is told to whom once the transaction is durable.
enum Reply {
    Append { result: Result<Appended, StoreError>, to: AppendReply, since: Instant },
    PutBlob(oneshot::Sender<Result<(), StoreError>>),
}

/// Owns the file for writing. Its fields are dropped in this order: the lock outlives the
/// connection.
pub(super) struct Writer {
    pub(super) connection: Connection,
    /// Held so that no other process opens the file.
    #[expect(dead_code, reason = "held, not read")]
    pub(super) lock: File,
    pub(super) path: PathBuf,
    /// What the fence was raised to when this process took the file over.
    pub(super) fence: i64,
    pub(super) books: Books,
    pub(super) head: watch::Sender<Position>,
    pub(super) stats: Arc<Mutex<StoreStats>>,
    pub(super) health: Health,
    pub(super) upkeep: Upkeep,
}

/// What the writer knows of what is written.
pub(super) struct Books {
    /// Of the last event.
    pub(super) position: Position,
    /// The versions of streams that were written last. Nobody else writes, so they are right until a
    /// transaction fails.
    pub(super) versions_cache: HashMap<Stream, Version>,
    /// Bytes of the state of plugins that was written; right for the same reason.
    pub(super) state_bytes: HashMap<PluginName, u64>,
    pub(super) state_cache: Arc<StateCache>,
}

/// What is run for each append, each looked up once a transaction.
struct Statements<'c> {
    connection: &'c Connection,
    insert_append: Option<CachedStatement<'c>>,
    insert_saga: Option<CachedStatement<'c>>,
    update_saga: Option<CachedStatement<'c>>,
}

impl<'c> Statements<'c> {
    fn new(connection: &'c Connection) -> Self {
        Self { connection, insert_append: None, insert_saga: None, update_saga: None }
    }

    fn insert_append(&mut self, row: impl Params) -> rusqlite::Result<usize> {
        let sql = "INSERT INTO appends VALUES (?1, ?2, ?3, ?4, ?5)";
        execute(self.connection, &mut self.insert_append, sql, row)
    }

    fn insert_saga(&mut self, row: impl Params) -> rusqlite::Result<usize> {
        let sql = "INSERT INTO sagas VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        execute(self.connection, &mut self.insert_saga, sql, row)
    }

    fn update_saga(&mut self, row: impl Params) -> rusqlite::Result<usize> {
        let sql = "UPDATE sagas SET status = ?2, reason = ?3, ended_at = ?4, deadline_at = ?5,
                   wake_at = ?6 WHERE id = ?1";
        execute(self.connection, &mut self.update_saga, sql, row)
    }
}

/// How many rows it has changed.
fn execute<'c>(
    connection: &'c Connection,
    found: &mut Option<CachedStatement<'c>>,
    sql: &str,
    values: impl Params,
) -> rusqlite::Result<usize> {
    match found {
        Some(statement) => statement.execute(values),
        none => none.insert(connection.prepare_cached(sql)?).execute(values),
    }
}

impl Writer {
    /// Until it is told to close or every sender is gone, and all that they sent is written.
    pub(super) fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let mut batch = Vec::new();
        while let Some(first) = jobs.blocking_recv() {
            let (mut next, mut bytes, mut looks) = (Some(first), 0, false);
            while let Some(job) = next.take() {
                match job {
                    Job::Close => {
                        jobs.close();
                        break;
                    }
                    Job::Look { .. } => looks = true,
                    Job::Append { .. } | Job::PutBlob { .. } => {
                        bytes += job.bytes();
                        batch.push(job);
                    }
                }
                if batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
                    next = jobs.try_recv().ok();
                }
            }
            if !batch.is_empty() {
                self.write(&mut batch);
            }
            if looks {
                self.look();
            } else if self.upkeep.wrote(bytes) {
                self.cut_log();
            }
        }
        failpoint("store.close.before");
        // What is in the log goes into the file; failing that, the next open does it.
        let _ = self.connection.pragma_query(None, "wal_checkpoint", |_| Ok(()));
    }

    fn write(&mut self, batch: &mut Vec<Job>) {
        if let Some(lost) = self.health.lost() {
            batch.drain(..).for_each(|job| job.fail(lost.clone()));
            return;
        }
        failpoint("store.transaction.before");
        let (size, before) = (batch.len(), self.books.position);
        let mut replies = Vec::with_capacity(size);
        let result = self.transaction(batch, &mut replies);
        let error = match result {
            Ok(()) => {
                self.health.worked();
                self.count(&replies, before);
                self.head.send_replace(self.books.position);
                None
            }
            Err(error) => {
                self.books.forget(before);
                let _ = self.connection.execute_batch("ROLLBACK");
                tracing::debug!(%error, appends = size, "a transaction failed, nothing of it was written");
                self.health.failed(&error);
                Some(error)
            }
        };
        #[expect(clippy::cast_precision_loss, reason = "at most BATCH_MAX")]
        metrics::histogram!("amends_store_batch_size").record(size as f64);
        for reply in replies {
            reply.send(error.as_ref());
        }
        failpoint("store.transaction.answered");
        // Jobs that the failed transaction did not reach.
        if let Some(error) = error {
            batch.drain(..).for_each(|job| job.fail(error.clone()));
        }
    }

    fn transaction(
        &mut self,
        batch: &mut Vec<Job>,
        replies: &mut Vec<Reply>,
    ) -> Result<(), StoreError> {
        let Self { connection, books, path, .. } = self;
        let failed = |error: rusqlite::Error| describe(path, &error);
        connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
        if read_fence(connection).map_err(failed)? != self.fence {
            return Err(StoreError::Fenced);
        }
        let mut statements = Statements::new(connection);
        let mut jobs = batch.drain(..);
        while let Some(job) = jobs.next() {
            let written = match job {
                Job::Append { append, reply: to, since } => {
                    // A refusal is this append's alone; a failure of the database is everyone's.
                    let done = books.append(&mut statements, &append).map_err(failed);
                    if !matches!(done, Ok(Ok(Appended::Done { .. }))) {
                        books.state_cache.forget(&append.state);
                    }
                    let written = done.as_ref().map(|_| ()).map_err(StoreError::clone);
                    let result = done.and_then(|result| result);
                    replies.push(Reply::Append { result, to, since });
                    written
                }
                Job::PutBlob { kind, name, digest, at, bytes, reply, _place } => {
                    replies.push(Reply::PutBlob(reply));
                    put_blob(connection, kind, &name, (digest, at), &bytes).map_err(failed)
                }
                Job::Look { .. } | Job::Close => Ok(()),
            };
            if let Err(error) = written {
                // They hear of the same error.
                let rest: Vec<_> = jobs.collect();
                batch.extend(rest);
                return Err(error);
            }
        }
        failpoint("store.transaction.written");
        drop(statements);
        connection.execute_batch("COMMIT").map_err(failed)?;
        failpoint("store.transaction.committed");
        Ok(())
    }

    pub(super) fn read_fence(&self) -> Result<i64, StoreError> {
        read_fence(&self.connection).map_err(|error| describe(&self.path, &error))
    }

    fn count(&self, replies: &[Reply], before: Position) {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.transactions += 1;
        stats.events += self.books.position.0 - before.0;
        for reply in replies {
            if let Reply::Append { result: Ok(Appended::Done { .. }), since, .. } = reply {
                stats.appends += 1;
                metrics::histogram!("amends_store_append_seconds").record(since.elapsed());
            }
        }
    }
}

/// What is known of an append before anything of it is written.
enum Check {
    /// It may be written; the bytes of state that each plugin then has.
    Write(Vec<(PluginName, u64)>),
    /// It is not written, and nothing is wrong.
    Refuse(Appended),
}

impl Books {
    /// What a transaction that failed has left in them; `position` is the one before it.
    fn forget(&mut self, position: Position) {
        self.position = position;
        self.versions_cache.clear();
        self.state_bytes.clear();
        self.state_cache.clear();
    }

    /// Checks first and writes then, so that a refused append leaves nothing behind.
    fn append(
        &mut self,
        statements: &mut Statements<'_>,
        append: &Append,
    ) -> rusqlite::Result<Result<Appended, StoreError>> {
        let connection = statements.connection;
        let state_bytes = match self.check(connection, append) {
            Ok(Ok(Check::Write(state_bytes))) => state_bytes,
            Ok(Ok(Check::Refuse(refused))) => return Ok(Ok(refused)),
            Ok(Err(error)) => return Ok(Err(error)),
            // What one append rests on is no reason to fail others.
            Err(error) if is_unreadable(&error) => {
                return Ok(Err(StoreError::Unreadable(error.to_string())));
            }
            Err(error) => return Err(error),
        };
        let version = append.expected.plus(append.events.len());
        self.position.0 += append.events.len() as u64;
        let row = params![
            to_integer(self.position.0),
            append.stream,
            to_integer(version.0),
            append.at.as_millis(),
            events_column(&append.events),
        ];
        statements.insert_append(row)?;
        failpoint("store.append.events_written");
        self.write_state(connection, &append.state, state_bytes)?;
        if let Some(row) = &append.row {
            put_row(statements, row, append.expected == Version(0))?;
        }
        if let Some(start_key) = &append.start_key {
            connection.prepare_cached("INSERT INTO start_keys VALUES (?1, ?2, ?3, ?4)")?.execute(
                params![
                    start_key.key,
                    append.stream,
                    start_key.payload_digest.as_bytes(),
                    append.at.as_millis(),
                ],
            )?;
        }
        if append.row.as_ref().is_some_and(|row| row.ended_at.is_some()) {
            self.versions_cache.remove(&append.stream);
        } else {
            if self.versions_cache.len() >= VERSIONS_CACHED_MAX {
                self.versions_cache.clear();
            }
            self.versions_cache.insert(append.stream.clone(), version);
        }
        Ok(Ok(Appended::Done { version, position: self.position }))
    }

    /// Whether an append is to be written.
    fn check(
        &mut self,
        connection: &Connection,
        append: &Append,
    ) -> rusqlite::Result<Result<Check, StoreError>> {
        if let Some(start_key) = &append.start_key
            && let Some(known) = known_key(connection, start_key)?
        {
            return Ok(Ok(Check::Refuse(known)));
        }
        let actual = self.version(connection, &append.stream)?;
        if actual != append.expected {
            let (stream, expected) = (append.stream.clone(), append.expected);
            return Ok(Err(StoreError::Conflict { stream, expected, actual }));
        }
        let state = self.check_state(connection, &append.state)?;
        Ok(Ok(state.map_or_else(Check::Refuse, Check::Write)))
    }

    fn version(&self, connection: &Connection, stream: &Stream) -> rusqlite::Result<Version> {
        if let Some(version) = self.versions_cache.get(stream) {
            return Ok(*version);
        }
        let version: Option<i64> = connection
            .prepare_cached("SELECT max(version) FROM appends WHERE stream = ?1")?
            .query_row([stream], |row| row.get(0))?;
        Ok(Version(version.map_or(0, i64::unsigned_abs)))
    }
}

fn read_fence(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE name = 'fence'")?
        .query_row([], |row| row.get(0))
}

fn known_key(connection: &Connection, start_key: &StartKey) -> rusqlite::Result<Option<Appended>> {
    let known = connection
        .prepare_cached("SELECT saga, payload_digest FROM start_keys WHERE key = ?1")?
        .query_row([&start_key.key], |row| Ok((row.get(0)?, row.get::<_, [u8; 32]>(1)?)))
        .optional()?;
    Ok(known.map(|(saga, digest)| {
        let saga = SagaId::from_bytes(saga);
        if digest == *start_key.payload_digest.as_bytes() {
            Appended::Duplicate(saga)
        } else {
            Appended::KeyReused(saga)
        }
    }))
}

fn put_row(statements: &mut Statements<'_>, row: &SagaRow, is_new: bool) -> rusqlite::Result<()> {
    if !is_new && update_row(statements, row)? {
        return Ok(());
    }
    let tags = (!row.tags.is_empty()).then(|| serde_json::to_string(&row.tags)).transpose();
    let tags = tags.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let delay = delay_of(row.id, row.started_at);
    if u128::try_from(delay).is_ok_and(|delay| delay > START_DELAY.as_millis()) {
        remember_start_delay(statements.connection, delay)?;
    }
    statements.insert_saga(params![
        row.id.as_bytes(),
        row.definition.as_str(),
        row.definition_digest.as_bytes(),
        row.status.as_str(),
        row.reason,
        row.started_at.as_millis(),
        row.ended_at.map(Timestamp::as_millis),
        row.deadline_at.map(Timestamp::as_millis),
        row.wake_at.map(Timestamp::as_millis),
        tags,
        row.key,
    ])?;
    for (name, value) in &row.tags {
        statements
            .connection
            .prepare_cached("INSERT INTO saga_tags VALUES (?1, ?2, ?3)")?
            .execute(params![name, value, row.id.as_bytes()])?;
    }
    Ok(())
}

/// Whether there is one.
fn update_row(statements: &mut Statements<'_>, row: &SagaRow) -> rusqlite::Result<bool> {
    let rows = statements.update_saga(params![
        row.id.as_bytes(),
        row.status.as_str(),
        row.reason,
        row.ended_at.map(Timestamp::as_millis),
        row.deadline_at.map(Timestamp::as_millis),
        row.wake_at.map(Timestamp::as_millis),
    ])?;
    Ok(rows > 0)
}

fn put_blob(
    connection: &Connection,
    kind: BlobKind,
    name: &str,
    (digest, at): (Digest, Timestamp),
    bytes: &[u8],
) -> rusqlite::Result<()> {
    failpoint("store.blob.before");
    connection
        .prepare_cached("INSERT OR IGNORE INTO blobs VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![kind.as_str(), digest.as_bytes(), name, at.as_millis(), bytes])?;
    failpoint("store.blob.written");
    Ok(())
}

impl Reply {
    /// Whoever asked may have gone; then nobody is told.
    fn send(self, error: Option<&StoreError>) {
        match self {
            Self::Append { result, to, .. } => {
                to.send(error.map_or(result, |error| Err(error.clone())));
            }
            Self::PutBlob(to) => {
                let _ = to.send(error.map_or(Ok(()), |error| Err(error.clone())));
            }
        }
    }
}

impl Job {
    pub(super) fn fail(self, error: StoreError) {
        match self {
            Self::Append { reply, .. } => reply.send(Err(error)),
            Self::PutBlob { reply, .. } => {
                let _ = reply.send(Err(error));
            }
            Self::Look { .. } | Self::Close => {}
        }
    }
}

/// `[["step.succeeded",{…}],["saga.completed",{}]]`
fn events_column(events: &[NewEvent]) -> String {
    const AROUND: usize = r#"["",],"#.len();
    let bytes = |event: &NewEvent| event.kind.len() + event.data.len() + AROUND;
    let mut column = String::with_capacity(events.iter().map(bytes).sum::<usize>() + 2);
    for event in events {
        column.push_str(if column.is_empty() { "[[\"" } else { ",[\"" });
        column.push_str(&event.kind);
        column.push_str("\",");
        column.push_str(&event.data);
        column.push(']');
    }
    column.push(']');
    column
}

/// Before the name in the stream of a service.
pub(super) const SERVICE_PREFIX: &str = "service/";

/// The stream of deploys. No name of a service is empty, and none of a plugin has a slash in it.
pub(super) const DEPLOYS: &str = "deploys/";

impl ToSql for Stream {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Saga(id) => id.as_bytes().as_slice().into(),
            Self::Plugin(name) => name.as_str().into(),
            // No name of a plugin has a slash in it.
            Self::Service(name) => format!("{SERVICE_PREFIX}{name}").into(),
            Self::Deploys => DEPLOYS.into(),
        })
    }
}

/// SQLite's integers are signed; versions and positions stay far below the difference.
fn to_integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

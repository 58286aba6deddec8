//! The loop of the writer: one transaction for everything that waits.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use amends_engine::{Digest, Position, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::{mpsc, oneshot};

use super::archive_job::{ArchiveDone, ArchiveJob};
use super::error::describe_write;
use super::job::{BackupJob, Job};
use super::outbox;
use super::rebuild_job::{RebuildDone, RebuildJob};
use super::schedules;
use super::statements::Statements;
use super::sum::sum_of;
use super::writer::{Writer, read_fence};
use crate::append::{AppendReply, Appended};
use crate::blob::{BlobChange, BlobKind};
use crate::error::{Fatal, StoreError};
use crate::paging::Cursor;
use crate::queue::{QueuedJob as _, to_owner};
use crate::shard_id::ShardId;
use amends_failpoint::failpoint;

/// The most jobs of one transaction. More would gain little, and the first would wait for the last.
const BATCH_MAX: usize = 1_024;

/// The most bytes of one transaction, see [`Job::bytes`]; a single job may have more. The pages of
/// a transaction stay in memory until it is committed.
const BATCH_BYTES_MAX: usize = 32 << 20;

/// One answer, to be sent once the transaction is durable or has failed.
enum JobReply {
    Append {
        result: Result<Appended, StoreError>,
        owner: Option<ShardId>,
        to: AppendReply,
        since: Instant,
    },
    Done(oneshot::Sender<Result<(), StoreError>>),
    Blob {
        result: Result<bool, StoreError>,
        to: oneshot::Sender<Result<bool, StoreError>>,
    },
    Archive {
        result: Result<ArchiveDone, StoreError>,
        to: oneshot::Sender<Result<ArchiveDone, StoreError>>,
    },
    Rebuild {
        result: Result<RebuildDone, StoreError>,
        to: oneshot::Sender<Result<RebuildDone, StoreError>>,
    },
}

impl Writer<'_> {
    /// Runs until a job closes the store or every sender is gone, and every queued job is done.
    pub(super) fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            if let Some(backup) = self.turn(&mut jobs, first) {
                self.back_up(&mut jobs, backup);
            }
        }
        failpoint("store.close.before");
        // Copies the log into the database. If this fails, the next open does it.
        let _ = self.connection.pragma_query(None, "wal_checkpoint", |_| Ok(()));
    }

    /// Does the jobs that wait, the first of which is `first`, in one transaction. Returns the part
    /// of a backup that is to be done next, if it was among them.
    pub(super) fn turn(
        &mut self,
        jobs: &mut mpsc::UnboundedReceiver<Job>,
        first: Job,
    ) -> Option<BackupJob> {
        let mut batch = Vec::new();
        let (mut next, mut bytes, mut looks, mut backup) = (Some(first), 0, false, None);
        while let Some(job) = next.take() {
            match job {
                Job::Close => {
                    jobs.close();
                    break;
                }
                Job::Backup(job) => {
                    backup = Some(job);
                    break;
                }
                Job::Look { .. } => looks = true,
                Job::Append { .. }
                | Job::Blob { .. }
                | Job::Archive(_)
                | Job::Rebuild(_)
                | Job::SaveSubscription { .. }
                | Job::SaveSchedule { .. } => {
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
        backup
    }

    /// Writes a batch of jobs, and answers them.
    fn write(&mut self, batch: &mut Vec<Job>) {
        if let Some(lost) = self.health.lost() {
            batch.drain(..).for_each(|job| job.fail(lost.clone()));
            return;
        }
        failpoint("store.transaction.before");
        let (size, before, began) = (batch.len(), self.cache.position, Instant::now());
        let mut replies = Vec::with_capacity(size);
        let result = self.transaction(batch, &mut replies);
        tell_archive(&mut replies, began.elapsed());
        let error = match result {
            Ok(()) => {
                self.health.worked();
                if self.cache.position > before {
                    self.acknowledged.write(self.cache.position);
                }
                self.count(&replies, before);
                self.head.send_replace(Cursor(self.cache.position.0));
                None
            }
            Err(error) => {
                self.cache.forget(before);
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
        // The jobs that the failed transaction did not reach.
        if let Some(error) = error {
            batch.drain(..).for_each(|job| job.fail(error.clone()));
        }
    }

    /// Writes the jobs of a batch in one transaction, and collects the answers. After an error, the
    /// batch has the jobs that were not reached.
    fn transaction(
        &mut self,
        batch: &mut Vec<Job>,
        replies: &mut Vec<JobReply>,
    ) -> Result<(), StoreError> {
        let Self { connection, cache, path, .. } = self;
        let failed = |error: rusqlite::Error| describe_write(path, error);
        connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
        if read_fence(connection).map_err(failed)? != self.fence {
            return Err(Fatal::Fenced.into());
        }
        let mut statements = Statements::new(connection);
        let mut jobs = batch.drain(..);
        while let Some(job) = jobs.next() {
            let written = match job {
                Job::Append { append, owner, reply: to, since } => {
                    // A refusal concerns this append alone; a failure of the database concerns all.
                    let done = cache.append(&mut statements, &append).map_err(failed);
                    let written = done.as_ref().map(|_| ()).map_err(StoreError::clone);
                    let result = done.and_then(|result| result);
                    replies.push(JobReply::Append { result, owner, to, since });
                    written
                }
                Job::Blob { kind, digest, change, reply: to, _place } => {
                    let done = change_blob(connection, kind, digest, &change).map_err(failed);
                    let written = done.as_ref().map(|_| ()).map_err(StoreError::clone);
                    replies.push(JobReply::Blob { result: done, to });
                    written
                }
                Job::Archive(ArchiveJob { task, reply: to }) => {
                    let done = cache.archive(connection, &task).map_err(failed);
                    let written = done.as_ref().map(|_| ()).map_err(StoreError::clone);
                    replies.push(JobReply::Archive { result: done.and_then(|done| done), to });
                    written
                }
                Job::Rebuild(RebuildJob { task, reply: to }) => {
                    let done = cache.rebuild(connection, &task).map_err(failed);
                    let written = done.as_ref().map(|_| ()).map_err(StoreError::clone);
                    replies.push(JobReply::Rebuild { result: done.and_then(|done| done), to });
                    written
                }
                Job::SaveSubscription { change, reply, _place } => {
                    replies.push(JobReply::Done(reply));
                    outbox::save(connection, &change).map_err(failed)
                }
                Job::SaveSchedule { row, reply, _place } => {
                    replies.push(JobReply::Done(reply));
                    schedules::save(connection, &row).map_err(failed)
                }
                Job::Backup(_) | Job::Look { .. } | Job::Close => Ok(()),
            };
            if let Err(error) = written {
                // They get the same error.
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

    /// Counts what a transaction has written.
    fn count(&self, replies: &[JobReply], before: Position) {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.transactions += 1;
        stats.events += self.cache.position.0 - before.0;
        for reply in replies {
            if let JobReply::Append { result: Ok(Appended::Done { .. }), since, .. } = reply {
                stats.appends += 1;
                metrics::histogram!("amends_store_append_seconds").record(since.elapsed());
            }
        }
    }
}

/// Tells whoever archives how long the transaction held the writer up, and whether appends were in it.
fn tell_archive(replies: &mut [JobReply], held: Duration) {
    let is_shared = replies.iter().any(|reply| matches!(reply, JobReply::Append { .. }));
    for reply in replies {
        if let JobReply::Archive { result: Ok(done), .. } = reply {
            (done.held, done.is_shared) = (held, is_shared);
        }
    }
}

/// Renews a blob. Returns how many there are of this digest.
fn renew_blob(
    connection: &Connection,
    kind: &str,
    digest: &[u8],
    at: Timestamp,
) -> rusqlite::Result<usize> {
    let known = connection
        .prepare_cached("SELECT name, at FROM blobs WHERE kind = ?1 AND digest = ?2")?
        .query_row(params![kind, digest], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))
        .optional()?;
    let Some((name, before)) = known else { return Ok(0) };
    let at = at.as_millis().max(before);
    if at > before {
        connection
            .prepare_cached("UPDATE blobs SET at = ?3, sum = ?4 WHERE kind = ?1 AND digest = ?2")?
            .execute(params![kind, digest, at, sum_of(params![kind, digest, name, at])?])?;
    }
    Ok(1)
}

/// Changes a blob. Returns false when there is nothing to change.
fn change_blob(
    connection: &Connection,
    kind: BlobKind,
    digest: Digest,
    change: &BlobChange,
) -> rusqlite::Result<bool> {
    let (kind, digest) = (kind.as_str(), digest.as_bytes().as_slice());
    failpoint("store.blob.before");
    let changed = match change {
        BlobChange::Put { name, at, bytes } => match renew_blob(connection, kind, digest, *at)? {
            0 => {
                let at = at.as_millis();
                let sum = sum_of(params![kind, digest, name, at])?;
                connection
                    .prepare_cached("INSERT INTO blobs VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                    .execute(params![kind, digest, name, at, bytes, sum])?
            }
            renewed => renewed,
        },
        BlobChange::Renew { at } => renew_blob(connection, kind, digest, *at)?,
        BlobChange::Remove { unused_since } => connection
            .prepare_cached("DELETE FROM blobs WHERE kind = ?1 AND digest = ?2 AND at < ?3")?
            .execute(params![kind, digest, unused_since.as_millis()])?,
    };
    failpoint("store.blob.written");
    Ok(changed > 0)
}

impl JobReply {
    /// Sends the answer, or `error` instead. A caller that no longer waits is not answered.
    fn send(self, error: Option<&StoreError>) {
        match self {
            Self::Append { result, owner, to, .. } => {
                to.send(error.map_or(result, |error| Err(to_owner(error.clone(), owner))));
            }
            Self::Done(to) => {
                let _ = to.send(error.map_or(Ok(()), |error| Err(error.clone())));
            }
            Self::Blob { result, to } => {
                let _ = to.send(error.map_or(result, |error| Err(error.clone())));
            }
            Self::Archive { result, to } => {
                let _ = to.send(error.map_or(result, |error| Err(error.clone())));
            }
            Self::Rebuild { result, to } => {
                let _ = to.send(error.map_or(result, |error| Err(error.clone())));
            }
        }
    }
}

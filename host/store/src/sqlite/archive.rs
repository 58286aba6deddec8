//! Moves ended sagas to the archive, and reads those that were moved.
//!
//! The order of the steps lets a crash lose and double nothing: the segment is written, made durable
//! and read back; its row is inserted; then a few sagas a transaction get their tombstones and leave.
//! Until its tombstone is there, a saga is found in the database. A file without a row in `segments`
//! is what a crash left, and the next pass removes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::{SagaId, SubjectKeyId, Timestamp, Version};
use amends_failpoint::failpoint;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::SqliteStore;
use super::archive_job::{
    ArchiveDone, ArchiveJob, ArchiveTask, Import, Removal, Returning, SegmentNumber,
};
use super::clock::now;
use super::job::Job;
use super::read;
use super::runs::runs;
use crate::archive::{
    Archive, ArchiveError, ArchiveSummary, ArchivedSaga, EndedPage, ImportedSaga, ToArchive,
    Tombstone,
};
use crate::archive_files::{ArchiveFiles, Orphan};
use crate::archive_place::ArchivePlace;
use crate::error::StoreError;
use crate::paging::PageBudget;
use crate::saga_query::SagaQuery;
use crate::segment::{
    SEGMENT_BYTES, SEGMENT_SAGAS_MAX, SagaLine, SegmentHeader, SegmentWriter, WrittenSegment,
    damaged, imported_line,
};

/// The sagas that are read at once.
const READ_MAX: usize = 128;

/// The sagas of the first transaction, and the most of any other. A larger one would write fewer pages, but
/// the appends in it and behind it would wait longer for its commit.
const REMOVED_FIRST: usize = 16;
const REMOVED_MAX: usize = 32;

/// So many times as long as a part held the writer up, whoever archives pauses then, while appends share the
/// transactions. They have three quarters of the writer's time.
const PAUSE_BESIDE_APPENDS: u32 = 3;

/// The most events that one transaction removes, or one saga.
const REMOVED_EVENTS_MAX: u64 = 1_000;

/// The most bytes of events that one transaction removes, or one saga.
const REMOVED_BYTES_MAX: usize = 4 << 20;

/// A transaction in which moving sagas takes longer than this is followed by one of half as many; one
/// that takes less than a quarter, by one of twice as many.
const REMOVE_TIME: Duration = Duration::from_millis(2);

/// How much a thread that compresses gives way, from 0 to 19.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 15;

/// The start keys that one transaction removes.
const KEYS_REMOVED_MAX: u32 = 200;

/// How often a saga that is brought back is read again, because it has moved meanwhile.
const BRING_BACK_TRIES: u32 = 3;

impl Archive for SqliteStore {
    fn ended(
        &self,
        before: Timestamp,
        after: Option<SagaId>,
        budget: PageBudget,
    ) -> BoxFuture<'_, Result<EndedPage, StoreError>> {
        SqliteStore::query(self, move |connection| read::ended(connection, before, after, budget))
    }

    fn archive(
        &self,
        mut sagas: Vec<ToArchive>,
    ) -> BoxFuture<'_, Result<ArchiveSummary, ArchiveError>> {
        async move {
            let place = Arc::clone(&self.archiving).try_acquire_owned();
            let _place = place.map_err(|_| ArchiveError::UnderWay)?;
            self.remove_orphans().await?;
            // A saga that ran another one has the smaller id, so it leaves first.
            sagas.sort_by_key(|saga| saga.id);
            sagas.dedup_by_key(|saga| saga.id);
            let mut summary = ArchiveSummary::default();
            while !sagas.is_empty() {
                self.archive_some(&mut sagas, &mut summary).await?;
            }
            Ok(summary)
        }
        .boxed()
    }

    fn tombstone(&self, id: SagaId) -> BoxFuture<'_, Result<Option<Tombstone>, StoreError>> {
        SqliteStore::query(self, move |connection| read::tombstone_of(connection, id))
    }

    fn read(&self, id: SagaId) -> BoxFuture<'_, Result<Option<ArchivedSaga>, ArchiveError>> {
        async move {
            let _place = self.archive_reads.acquire().await.map_err(|_| StoreError::Closed)?;
            let Some((files, file)) = self.segment_of(id).await? else { return Ok(None) };
            let found = in_background(move || {
                let failed = |error| files.failed(&file, error);
                let mut segment = files.segment(&file).map_err(failed)?;
                segment
                    .saga(id)
                    .map_err(failed)?
                    .ok_or_else(|| failed(damaged(format!("saga {id} is not in it"))))
            });
            found.await.map(Some)
        }
        .boxed()
    }

    fn list(&self, query: SagaQuery) -> BoxFuture<'_, Result<Vec<Tombstone>, StoreError>> {
        SqliteStore::query(self, move |connection| read::tombstones(connection, &query))
    }

    fn bring_back(&self, id: SagaId) -> BoxFuture<'_, Result<bool, ArchiveError>> {
        async move {
            let _place = self.archive_reads.acquire().await.map_err(|_| StoreError::Closed)?;
            // Nothing comes back of what was read when the saga has moved since.
            for _ in 0..BRING_BACK_TRIES {
                let Some(returning) = self.returning(id).await? else { return Ok(false) };
                let done = self.archive_job(ArchiveTask::BringBack(Box::new(returning))).await?;
                failpoint("store.archive.brought_back");
                if done.count > 0 {
                    return Ok(true);
                }
            }
            Err(ArchiveError::UnderWay)
        }
        .boxed()
    }

    fn import(&self, saga: ImportedSaga) -> BoxFuture<'_, Result<bool, ArchiveError>> {
        async move {
            let files = self.archive.clone().ok_or(ArchiveError::NoArchive)?;
            let line = imported_line(&saga)?;
            let place = Arc::clone(&self.archiving).acquire_owned().await;
            let _place = place.map_err(|_| StoreError::Closed)?;
            self.remove_orphans().await?;
            let (id, events) = (saga.row.id, saga.events.len() as u64);
            let mut writer = self.begin_segment(Arc::clone(&files)).await?;
            let writer = in_background({
                let files = Arc::clone(&files);
                move || {
                    let added = writer.add(id, &line, events);
                    added.map_err(|error| files.draft_failed(error))?;
                    Ok(writer)
                }
            });
            let Some(segment) = finish_segment(files, writer.await?).await? else {
                return Err(StoreError::Invalid("a saga that is imported has events").into());
            };
            let import = Import { segment, row: saga.row, start_key: saga.start_key };
            let done = self.archive_job(ArchiveTask::Import(Box::new(import))).await?;
            failpoint("store.import.recorded");
            // Without a row the file is an orphan.
            Ok(done.count > 0)
        }
        .boxed()
    }

    fn remove_keys(&self, before: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        async move {
            let mut removed = 0;
            loop {
                let keys = SqliteStore::query(self, move |connection| {
                    read::old_keys(connection, before, KEYS_REMOVED_MAX)
                });
                let keys = keys.await?;
                if keys.is_empty() {
                    return Ok(removed);
                }
                let done = self.archive_job(ArchiveTask::RemoveKeys(keys)).await?;
                removed += done.count;
                tokio::time::sleep(pause_after(&done, false)).await;
            }
        }
        .boxed()
    }

    fn oldest_ended(&self) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        SqliteStore::query(self, read::oldest_ended)
    }

    fn count_of_subject_key(&self, key: SubjectKeyId) -> BoxFuture<'_, Result<u64, StoreError>> {
        SqliteStore::query(self, move |connection| read::count_archived_of_key(connection, key))
    }

    fn place(&self) -> Option<&ArchivePlace> {
        self.archive.as_ref().map(|files| files.place())
    }
}

impl SqliteStore {
    /// Moves the first of some sagas: as many as one segment has.
    async fn archive_some(
        &self,
        sagas: &mut Vec<ToArchive>,
        summary: &mut ArchiveSummary,
    ) -> Result<(), ArchiveError> {
        let mut written = match &self.archive {
            Some(files) => Some(self.begin_segment(Arc::clone(files)).await?),
            None => None,
        };
        let mut removals = Vec::new();
        let mut taken = 0;
        while taken < sagas.len()
            && removals.len() < SEGMENT_SAGAS_MAX
            && written.as_ref().is_none_or(|writer| writer.bytes() < SEGMENT_BYTES)
        {
            let began = Instant::now();
            let room = SEGMENT_SAGAS_MAX - removals.len();
            let ids: Vec<_> =
                sagas[taken..].iter().take(room.min(READ_MAX)).map(|saga| saga.id).collect();
            let page = SqliteStore::query(self, move |connection| read::lines(connection, &ids));
            let mut lines = Vec::new();
            for (found, saga) in page.await?.into_iter().zip(&sagas[taken..]) {
                taken += 1;
                match found.content {
                    Ok(line) if line.version != saga.version => summary.changed += 1,
                    Ok(line) => {
                        removals.push(Removal {
                            id: saga.id,
                            version: line.version,
                            bytes: line.text.len(),
                            after: saga.after,
                            is_late: saga.is_late,
                        });
                        lines.push((saga.id, line));
                    }
                    Err(reason) => summary.unreadable.push((found.id, reason)),
                }
            }
            if let Some((mut writer, files)) = written.take().zip(self.archive.clone()) {
                let added = in_quiet(move || {
                    for (id, line) in &lines {
                        let added = writer.add(*id, &line.text, line.version.0);
                        added.map_err(|error| files.draft_failed(error))?;
                    }
                    Ok(writer)
                });
                written = Some(added.await?);
            }
            // Reading takes the processor's time of sagas, too.
            tokio::time::sleep(began.elapsed()).await;
        }
        sagas.drain(..taken);
        let written = match written.zip(self.archive.clone()) {
            Some((writer, files)) => finish_segment(files, writer).await?,
            None => None,
        };
        let segment = match written {
            Some(written) => {
                (summary.segments, summary.bytes) =
                    (summary.segments + 1, summary.bytes + written.bytes);
                let done = self.archive_job(ArchiveTask::Segment(written)).await?;
                failpoint("store.archive.recorded");
                Some(done.segment)
            }
            None => None,
        };
        self.remove(removals, segment, summary).await
    }

    async fn begin_segment(&self, files: Arc<ArchiveFiles>) -> Result<SegmentWriter, ArchiveError> {
        let header = SegmentHeader {
            store: self.run,
            fence: i64::try_from(self.epoch.0).unwrap_or(i64::MAX),
            at: now(),
        };
        in_background(move || files.begin(&header)).await
    }

    /// Puts tombstones in the place of sagas, a few at a time, with pauses in between.
    async fn remove(
        &self,
        removals: Vec<Removal>,
        segment: Option<SegmentNumber>,
        summary: &mut ArchiveSummary,
    ) -> Result<(), ArchiveError> {
        let (mut left, mut size) = (removals.as_slice(), REMOVED_FIRST);
        while !left.is_empty() {
            let (mut events, mut bytes) = (0, 0);
            let fits = |saga: &&Removal| {
                events += saga.version.0;
                bytes += saga.bytes;
                events <= REMOVED_EVENTS_MAX && bytes <= REMOVED_BYTES_MAX
            };
            let count = left.iter().take(size).take_while(fits).count().max(1);
            let (sagas, rest) = left.split_at(count);
            left = rest;
            let sagas = sagas.to_vec();
            let is_late = sagas.iter().any(|saga| saga.is_late);
            let done = self.archive_job(ArchiveTask::Remove { sagas, segment }).await?;
            failpoint("store.archive.removed");
            summary.sagas += done.count;
            summary.events += done.events;
            summary.changed += count as u64 - done.count;
            size = next_size(size, done.took);
            tokio::time::sleep(pause_after(&done, is_late)).await;
        }
        Ok(())
    }

    /// Has the writer do a part, and waits until it is durable.
    pub(super) async fn archive_job(&self, task: ArchiveTask) -> Result<ArchiveDone, StoreError> {
        let (reply, done) = oneshot::channel();
        self.queue.push(Job::Archive(ArchiveJob { task, reply }));
        done.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Reads a saga from the archive, to bring it back; none when it is not there.
    pub(super) async fn returning(&self, id: SagaId) -> Result<Option<Returning>, ArchiveError> {
        let Some(tombstone) = Archive::tombstone(self, id).await? else { return Ok(None) };
        let version = tombstone.version;
        let (files, file) = self.file_of(tombstone)?;
        let returning = in_background(move || {
            let failed = |error| files.failed(&file, error);
            let mut segment = files.segment(&file).map_err(failed)?;
            let line = segment.line(id).map_err(failed)?;
            let line = line.ok_or_else(|| failed(damaged(format!("saga {id} is not in it"))))?;
            let read = || {
                crate::segment::parse_line(&line, id)?;
                let line = SagaLine::from_text(&line)?;
                Ok((line.row()?, line.appends()?, line.is_imported()))
            };
            let (row, appends, is_imported) = read().map_err(failed)?;
            if is_imported {
                return Err(ArchiveError::Imported(id));
            }
            if appends.last().map(|(_, version, ..)| Version(*version)) != Some(version) {
                let what = format!("saga {id} does not end with event {} in it", version.0);
                return Err(failed(damaged(what)));
            }
            Ok(Returning { row, file, version, appends })
        });
        returning.await.map(Some)
    }

    /// Returns the file that has a saga; none when the saga was not moved.
    async fn segment_of(&self, id: SagaId) -> Result<Option<FileOfArchive>, ArchiveError> {
        let Some(tombstone) = Archive::tombstone(self, id).await? else { return Ok(None) };
        self.file_of(tombstone).map(Some)
    }

    fn file_of(&self, tombstone: Tombstone) -> Result<FileOfArchive, ArchiveError> {
        let Tombstone { id, file, ended_at, status, .. } = tombstone;
        match (file, &self.archive) {
            (None, _) => Err(ArchiveError::Deleted { id, ended_at, status }),
            (Some(file), None) => Err(ArchiveError::NoFolder { id, file }),
            (Some(file), Some(files)) => Ok((Arc::clone(files), file)),
        }
    }

    /// Removes files that a run of this store wrote and that it has no row for: a process ended before
    /// it recorded them, so their sagas are in the database. All other files stay: those of another
    /// store, those that another copy of this one wrote, because no copy knows the runs of another, and
    /// those with a saga that the database lacks, because it is an older copy.
    async fn remove_orphans(&self) -> Result<(), ArchiveError> {
        let Some(files) = self.archive.clone() else { return Ok(()) };
        let known = SqliteStore::query(self, read::segment_files).await?;
        let known = known.into_iter().collect();
        let runs = SqliteStore::query(self, runs).await?;
        let runs = runs.into_iter().collect();
        let (epoch, here) = (self.epoch.0, Arc::clone(&files));
        let orphans = in_background(move || here.orphans(known, &runs, epoch)).await?;
        for Orphan { file, sagas } in orphans {
            let unknown =
                SqliteStore::query(self, move |connection| read::first_unknown(connection, &sagas));
            if let Some(saga) = unknown.await? {
                files.keep_orphan(&file, saga);
            } else {
                let here = Arc::clone(&files);
                in_background(move || here.remove_orphan(&file)).await?;
            }
        }
        Ok(())
    }
}

/// The files of the archive, and the name of one.
type FileOfArchive = (Arc<ArchiveFiles>, String);

/// Completes a segment, reads it back and compares. None when it has no saga.
async fn finish_segment(
    files: Arc<ArchiveFiles>,
    writer: SegmentWriter,
) -> Result<Option<WrittenSegment>, ArchiveError> {
    let written = in_quiet(move || files.finish(writer)).await?;
    if written.is_some() {
        failpoint("store.archive.verified");
    }
    Ok(written)
}

/// Returns the number of sagas of the transaction after one that took this long.
fn next_size(size: usize, took: Duration) -> usize {
    if took > REMOVE_TIME {
        (size / 2).max(1)
    } else if took < REMOVE_TIME / 4 {
        (size * 2).min(REMOVED_MAX)
    } else {
        size
    }
}

/// Returns how long whoever archives leaves the writer to others after a part. Without appends the writer
/// has nothing else to do.
fn pause_after(done: &ArchiveDone, is_late: bool) -> Duration {
    let times = if done.is_shared && !is_late { PAUSE_BESIDE_APPENDS } else { 1 };
    done.held * times
}

/// Runs work that computes for long, on a thread that gives way to all others.
async fn in_quiet<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    let (reply, done) = oneshot::channel();
    let thread = std::thread::Builder::new().name("amends-archive".to_owned());
    let spawned = thread.spawn(move || {
        lower_priority();
        let _ = reply.send(work());
    });
    match spawned {
        Ok(_) => done.await.unwrap_or(Err(StoreError::Closed.into())),
        Err(source) => {
            let file = "a thread for the archive".to_owned();
            Err(ArchiveError::File { file, source: Arc::new(source) })
        }
    }
}

#[cfg(target_os = "linux")]
fn lower_priority() {
    // On Linux a thread has a priority of its own, by its own id. Without it, it is as before.
    let thread = rustix::thread::gettid();
    let _ = rustix::process::setpriority_process(Some(thread), NICENESS);
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}

/// Runs work on files off the async threads.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(StoreError::Closed.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_have_most_of_the_writer_unless_sagas_are_late() {
        let held = Duration::from_millis(4);
        let done = |is_shared| ArchiveDone { held, is_shared, ..ArchiveDone::default() };
        assert_eq!(pause_after(&done(true), false), held * 3);
        assert_eq!(pause_after(&done(true), true), held);
        assert_eq!(pause_after(&done(false), false), held);
    }

    #[test]
    fn a_transaction_adapts_to_the_time_that_the_one_before_took() {
        let ms = Duration::from_millis;
        assert_eq!(next_size(16, ms(3)), 8);
        assert_eq!(next_size(16, ms(1)), 16);
        assert_eq!(next_size(16, ms(0)), 32);
        assert_eq!(next_size(1, ms(100)), 1);
        assert_eq!(next_size(REMOVED_MAX, ms(0)), REMOVED_MAX);
    }
}

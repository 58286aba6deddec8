//! Moves ended sagas to the archive, and reads those that were moved.
//!
//! The steps and their order are those of the SQLite store: the segment is written, made durable and read back;
//! its row is inserted; then a few sagas a transaction get their tombstones and leave.

use std::sync::Arc;
use std::time::Duration;

use amends_engine::{SagaId, SubjectKeyId, Timestamp, Version};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::PostgresStore;
use super::archive_work::{self, Import, Removal, Returning};
use super::membership::Held;
use super::owned_shard::OwnedShard;
use super::read;
use crate::archive::{
    Archive, ArchiveError, ArchiveSummary, ArchivedSaga, EndedPage, ImportedSaga, ToArchive,
    Tombstone,
};
use crate::archive_files::{ArchiveFiles, Orphan};
use crate::archive_place::ArchivePlace;
use crate::clock::now;
use crate::error::StoreError;
use crate::paging::PageBudget;
use crate::saga_query::SagaQuery;
use crate::segment::{
    SEGMENT_BYTES, SEGMENT_SAGAS_MAX, SagaLine, SegmentHeader, SegmentWriter, damaged,
    imported_line,
};
use crate::shard_id::ShardId;

/// The most sagas that are read, and that one transaction removes.
const SAGAS_AT_ONCE: usize = 128;

/// The most events that one transaction removes, or one saga.
const REMOVED_EVENTS_MAX: u64 = 5_000;

/// The start keys that one transaction removes.
const KEYS_REMOVED_MAX: u32 = 200;

/// How often a saga that is brought back is read again, because it has moved meanwhile.
const BRING_BACK_TRIES: u32 = 3;

impl Archive for PostgresStore {
    fn ended(
        &self,
        before: Timestamp,
        after: Option<SagaId>,
        budget: PageBudget,
    ) -> BoxFuture<'_, Result<EndedPage, StoreError>> {
        self.read(move |pg| read::ended(pg, before, after, budget).boxed())
    }

    fn archive(
        &self,
        mut sagas: Vec<ToArchive>,
    ) -> BoxFuture<'_, Result<ArchiveSummary, ArchiveError>> {
        async move {
            let place = Arc::clone(&self.archiving).try_acquire_owned();
            let _place = place.map_err(|_| ArchiveError::UnderWay)?;
            let leader = self.leader()?;
            // The lines of sagas have the positions of their events.
            self.sequencer.place_all().await?;
            self.remove_orphans(leader).await?;
            // A saga that ran another one has the smaller id, so it leaves first.
            sagas.sort_by_key(|saga| saga.id);
            sagas.dedup_by_key(|saga| saga.id);
            let mut summary = ArchiveSummary::default();
            while !sagas.is_empty() {
                self.archive_some(leader, &mut sagas, &mut summary).await?;
            }
            Ok(summary)
        }
        .boxed()
    }

    fn tombstone(&self, id: SagaId) -> BoxFuture<'_, Result<Option<Tombstone>, StoreError>> {
        self.read(move |pg| read::tombstone(pg, id).boxed())
    }

    fn read(&self, id: SagaId) -> BoxFuture<'_, Result<Option<ArchivedSaga>, ArchiveError>> {
        async move {
            let _place = self.archive_reads.acquire().await.map_err(|_| StoreError::Closed)?;
            let Some(tombstone) = Archive::tombstone(self, id).await? else { return Ok(None) };
            let (files, file) = self.file_of(tombstone)?;
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
        let longest = Arc::clone(&self.longest);
        self.read(move |pg| async move { read::tombstones(pg, &query, &longest).await }.boxed())
    }

    fn bring_back(&self, id: SagaId) -> BoxFuture<'_, Result<bool, ArchiveError>> {
        async move {
            let _place = self.archive_reads.acquire().await.map_err(|_| StoreError::Closed)?;
            // Nothing comes back of what was read when the saga has moved since.
            for _ in 0..BRING_BACK_TRIES {
                let Some(returning) = self.returning(id).await? else { return Ok(false) };
                let done =
                    self.work(move |pg| archive_work::bring_back(pg, returning).boxed()).await?;
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
            let leader = self.leader()?;
            self.remove_orphans(leader).await?;
            let (id, events) = (saga.row.id, saga.events.len() as u64);
            let mut writer = self.begin_segment(leader, Arc::clone(&files)).await?;
            let segment = in_background(move || {
                let added = writer.add(id, &line, events);
                added.map_err(|error| files.draft_failed(error))?;
                files.finish(writer)
            });
            let Some(segment) = segment.await? else {
                return Err(StoreError::Invalid("a saga that is imported has events").into());
            };
            let import = Import { segment, row: saga.row, start_key: saga.start_key };
            let work = self.work(move |pg| archive_work::import(pg, leader, import).boxed());
            // Without a row the file is an orphan.
            Ok(work.await?.count > 0)
        }
        .boxed()
    }

    fn remove_keys(&self, before: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        async move {
            let mut removed = 0;
            loop {
                let keys =
                    self.read(move |pg| read::old_keys(pg, before, KEYS_REMOVED_MAX).boxed());
                let keys = keys.await?;
                if keys.is_empty() {
                    return Ok(removed);
                }
                let done = self.work(move |pg| archive_work::remove_keys(pg, keys).boxed()).await?;
                removed += done.count;
                tokio::time::sleep(done.took).await;
            }
        }
        .boxed()
    }

    fn oldest_ended(&self) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        self.read(|pg| read::oldest_ended(pg).boxed())
    }

    fn count_of_subject_key(&self, key: SubjectKeyId) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.read(move |pg| read::count_archived_of_key(pg, key).boxed())
    }

    fn place(&self) -> Option<&ArchivePlace> {
        self.archive.as_ref().map(|files| files.place())
    }
}

impl PostgresStore {
    /// Moves the first of some sagas: as many as one segment has.
    async fn archive_some(
        &self,
        leader: OwnedShard,
        sagas: &mut Vec<ToArchive>,
        summary: &mut ArchiveSummary,
    ) -> Result<(), ArchiveError> {
        let mut written = match &self.archive {
            Some(files) => Some(self.begin_segment(leader, Arc::clone(files)).await?),
            None => None,
        };
        let mut removals = Vec::new();
        let mut taken = 0;
        while taken < sagas.len()
            && removals.len() < SEGMENT_SAGAS_MAX
            && written.as_ref().is_none_or(|writer| writer.bytes() < SEGMENT_BYTES)
        {
            let room = SEGMENT_SAGAS_MAX - removals.len();
            let ids: Vec<_> =
                sagas[taken..].iter().take(room.min(SAGAS_AT_ONCE)).map(|saga| saga.id).collect();
            let page = self.read(move |pg| async move { read::lines(pg, &ids).await }.boxed());
            let mut added = Vec::new();
            for (line, saga) in page.await?.into_iter().zip(&sagas[taken..]) {
                taken += 1;
                match line {
                    Ok((version, _)) if version != saga.version => summary.changed += 1,
                    Ok((version, text)) => {
                        removals.push(Removal { id: saga.id, version, after: saga.after });
                        added.push((saga.id, version, text));
                    }
                    Err(reason) => summary.unreadable.push((saga.id, reason)),
                }
            }
            if let Some((mut writer, files)) = written.take().zip(self.archive.clone()) {
                let added = in_background(move || {
                    for (id, version, text) in &added {
                        let added = writer.add(*id, text, version.0);
                        added.map_err(|error| files.draft_failed(error))?;
                    }
                    Ok(writer)
                });
                written = Some(added.await?);
            }
        }
        sagas.drain(..taken);
        let written = match written.zip(self.archive.clone()) {
            Some((writer, files)) => in_background(move || files.finish(writer)).await?,
            None => None,
        };
        let segment = match written {
            Some(written) => {
                summary.segments += 1;
                summary.bytes += written.bytes;
                let done = self
                    .work(move |pg| archive_work::put_segment(pg, leader, written).boxed())
                    .await?;
                Some(done.segment)
            }
            None => None,
        };
        self.remove(removals, segment, summary).await
    }

    /// Returns the shard whose owner alone writes archive files: see [`ShardId::LEADER`].
    fn leader(&self) -> Result<OwnedShard, StoreError> {
        let id = ShardId::LEADER;
        match *self.membership.state().held(id) {
            Held::Owned { epoch, .. } => Ok(OwnedShard { id, epoch }),
            Held::Leaving { .. } | Held::Released { .. } | Held::No => {
                Err(StoreError::LostOwnership(id))
            }
        }
    }

    async fn begin_segment(
        &self,
        leader: OwnedShard,
        files: Arc<ArchiveFiles>,
    ) -> Result<SegmentWriter, ArchiveError> {
        let header = SegmentHeader { store: self.run, fence: leader.epoch, at: now() };
        in_background(move || files.begin(&header)).await
    }

    /// Puts tombstones in the place of sagas, a few at a time. In between, the writer has as much
    /// time for others as these took.
    async fn remove(
        &self,
        removals: Vec<Removal>,
        segment: Option<i64>,
        summary: &mut ArchiveSummary,
    ) -> Result<(), ArchiveError> {
        let mut left = removals.as_slice();
        while !left.is_empty() {
            let mut events = 0;
            let fits = |saga: &&Removal| {
                events += saga.version.0;
                events <= REMOVED_EVENTS_MAX
            };
            let count = left.iter().take(SAGAS_AT_ONCE).take_while(fits).count().max(1);
            let (sagas, rest) = left.split_at(count);
            left = rest;
            let sagas = sagas.to_vec();
            let done =
                self.work(move |pg| archive_work::remove(pg, sagas, segment).boxed()).await?;
            summary.sagas += done.count;
            summary.events += done.events;
            summary.changed += count as u64 - done.count;
            tokio::time::sleep(done.took.min(Duration::from_secs(1))).await;
        }
        Ok(())
    }

    /// Reads a saga from the archive, to bring it back; none when it is not there.
    async fn returning(&self, id: SagaId) -> Result<Option<Returning>, ArchiveError> {
        let Some(tombstone) = Archive::tombstone(self, id).await? else { return Ok(None) };
        let version = tombstone.version;
        let (files, file) = self.file_of(tombstone)?;
        let returning = in_background(move || {
            let failed = |error| files.failed(&file, error);
            let mut segment = files.segment(&file).map_err(failed)?;
            let line = segment.line(id).map_err(failed)?;
            let line = line.ok_or_else(|| failed(damaged(format!("saga {id} is not in it"))))?;
            let read = || {
                let saga = crate::segment::parse_line(&line, id)?;
                let line = SagaLine::from_text(&line)?;
                Ok((line.row()?, line.appends()?, saga.events, line.is_imported()))
            };
            let (row, appends, events, is_imported) = read().map_err(failed)?;
            if is_imported {
                return Err(ArchiveError::Imported(id));
            }
            if appends.last().map(|(_, version, ..)| Version(*version)) != Some(version) {
                let what = format!("saga {id} does not end with event {} in it", version.0);
                return Err(failed(damaged(what)));
            }
            Ok(Returning { row, file, version, appends, events })
        });
        returning.await.map(Some)
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
    /// it recorded them, so their sagas are in the database. All other files stay.
    async fn remove_orphans(&self, leader: OwnedShard) -> Result<(), ArchiveError> {
        let Some(files) = self.archive.clone() else { return Ok(()) };
        let (known, runs) = self
            .read(|pg| {
                async move { Ok((read::segment_files(pg).await?, read::runs(pg).await?)) }.boxed()
            })
            .await?;
        let known = known.into_iter().collect();
        let runs = runs.into_iter().collect();
        let (epoch, here) = (leader.epoch.unsigned_abs(), Arc::clone(&files));
        let orphans = in_background(move || here.orphans(known, &runs, epoch)).await?;
        for Orphan { file, sagas } in orphans {
            let unknown =
                self.read(move |pg| async move { read::first_unknown(pg, &sagas).await }.boxed());
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

/// Runs work on files off the async threads.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(StoreError::Closed.into()))
}

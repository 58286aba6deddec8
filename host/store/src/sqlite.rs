//! The embedded store: one SQLite file in WAL mode.
//!
//! One thread writes. Each time, it takes everything that waits into one transaction and one fsync.
//! A single append is committed at once. Reads have connections of their own.
//!
//! Deliberately absent: a wait that makes batches larger, an in-memory database, a second writer.

mod acknowledged;
mod append;
mod append_columns;
mod archive;
mod archive_check;
mod archive_job;
mod archived_columns;
mod backup;
mod clock;
mod column;
mod connection;
mod copied;
mod derive;
mod disk;
mod error;
mod failures;
mod file;
mod job;
mod look;
mod open;
mod outbox;
mod read;
mod readers;
mod rebuild;
mod rebuild_job;
mod restore;
mod runs;
mod saga_columns;
mod saga_index;
mod saga_life;
mod schedules;
mod schema;
mod start_delay;
mod state;
mod statements;
mod stopped;
mod stream_column;
mod sum;
#[cfg(test)]
mod tests;
mod upkeep;
mod write;
mod writer;
mod writer_cache;

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::{
    Digest, PluginName, SagaId, SagaStatus, StateQuery, SubjectKeyId, Timestamp, Version,
};
use amends_failpoint::failpoint;
use futures::future::{BoxFuture, ready};
use futures::{FutureExt as _, TryFutureExt as _};
use rusqlite::Connection;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::append::{Append, Appended};
use crate::archive::Archive;
use crate::archive_files::ArchiveFiles;
use crate::archive_place::ArchivePlace;
use crate::backup::{Backup, BackupError};
use crate::blob::{BLOB_BYTES_MAX, BlobChange, BlobKind, BlobRow, Blobs};
use crate::config::Durability;
use crate::error::{Fatal, Obstacle, OpenError, StoreError};
use crate::event_log::{EventLog, LogPage};
use crate::health::{self, Health};
use crate::maintenance::{Maintenance, StoreHealth, StoreStats};
use crate::outbox::{DeadLetter, Outbox, SubscriptionChange, SubscriptionRow};
use crate::ownership::{HostInfo, Ownership, OwnershipEvent, ShardOwner};
use crate::paging::{Cursor, PageBudget};
use crate::plugin_state::PluginState;
use crate::queue::Queue;
use crate::queue_shard::{Handed, QueueShard};
use crate::rebuild::{RebuildError, RebuildPlace, RebuildSlice};
use crate::saga_groups::{GroupBy, SagaGroups};
use crate::saga_index::SagaIndex;
use crate::saga_query::SagaQuery;
use crate::saga_row::{LiveSaga, LiveSagas, SagaRow};
use crate::schedules::{ScheduleRow, Schedules};
use crate::shard_id::{Epoch, ShardId};
use crate::store::Store;
use crate::stored_event::StoredEvent;
use crate::stream::Stream;
use crate::survey::StoreSurvey;

use acknowledged::Acknowledged;
use job::Job;
use readers::{READERS_MAX, Readers};
use upkeep::{Limits, Upkeep};
use writer::Writer;
use writer_cache::WriterCache;

pub use restore::restore;
pub use stopped::{StoppedStore, check_file, read_stream};

/// The folder of the archive beside the file, unless another one is named.
const ARCHIVE_FOLDER: &str = "archive";

/// Sagas that are read from the archive at once: each may have 64 MiB of events.
const ARCHIVE_READS_MAX: usize = 4;

/// A store in one SQLite file.
///
/// When it is dropped without [`Store::close`], it still writes what was queued, and closes the
/// file some moments later.
pub struct SqliteStore {
    queue: Arc<Queue<Job>>,
    readers: Arc<Readers>,
    /// The fence that this process set when it took the file over. It is the epoch of every shard.
    epoch: Epoch,
    handed: Arc<Mutex<Handed>>,
    head: watch::Receiver<Cursor>,
    stats: Arc<Mutex<StoreStats>>,
    health: watch::Receiver<StoreHealth>,
    path: PathBuf,
    /// The only place for a backup.
    backups: Arc<Semaphore>,
    /// The only place for a move to the archive.
    archiving: Arc<Semaphore>,
    /// The only place for a count by groups: it may read for long, and sagas need the other readers.
    counting: Semaphore,
    /// The only place for a slice of a rebuild: sagas need the other readers.
    rebuilding: Semaphore,
    /// One for each saga that is read from the archive, see [`ARCHIVE_READS_MAX`].
    archive_reads: Semaphore,
    /// The archive; none when sagas are deleted instead.
    archive: Option<Arc<ArchiveFiles>>,
    /// Says which files of the folder are those of this store.
    run: i64,
    /// Its sender is dropped when the writer has ended and the file is closed.
    ended: watch::Receiver<()>,
}

impl SqliteStore {
    /// Opens the file, creates it when there is none, and brings its schema up to date. Blocks
    /// meanwhile.
    ///
    /// # Errors
    /// When the file is in use, newer than this version, damaged, or cannot be written.
    pub fn open(path: &Path, durability: Durability) -> Result<Self, OpenError> {
        // SQLite takes these two for databases in memory, which are lost at the end.
        if path.as_os_str().is_empty() || path == Path::new(":memory:") {
            return Err(OpenError::Url(format!("sqlite:{}", path.display())));
        }
        let path = file::resolve(path)?;
        file::refuse_other_file(&path)?;
        let lock = file::lock(&path)?;
        let connection = open::open(&path, &lock, durability)?;
        file::keep_from_others(&path);
        Self::start(&path, lock, connection, Limits::default())
    }

    /// Has the archive in another place than the folder `archive` beside the file. With none, ended sagas
    /// are deleted instead.
    ///
    /// # Errors
    /// When the settings of a bucket in the environment cannot be used.
    pub fn with_archive(mut self, place: Option<&ArchivePlace>) -> Result<Self, OpenError> {
        let open = |place| ArchiveFiles::open(place, file::folder(&self.path)).map(Arc::new);
        self.archive = place.map(open).transpose()?;
        Ok(self)
    }

    /// Takes the opened file over, and starts the threads of the store.
    fn start(
        path: &Path,
        lock: File,
        connection: Connection,
        limits: Limits,
    ) -> Result<Self, OpenError> {
        let open::TakenOver { fence, run, position } = open::take_over(&connection, path)?;
        let folder = file::folder(path);
        let archive = ArchivePlace::from(folder.join(ARCHIVE_FOLDER));
        let archive = ArchiveFiles::open(&archive, folder)?;
        failpoint("store.opened");
        let (jobs, receiver) = mpsc::unbounded_channel();
        let (head_sender, head) = watch::channel(Cursor(position.0));
        let (ended_sender, ended) = watch::channel(());
        let (health_sender, health) = watch::channel(StoreHealth::Well);
        let stats = Arc::new(Mutex::new(StoreStats::default()));
        let readers = Arc::new(Readers::new(path.to_owned()));
        let (writer_path, writer_stats) = (path.to_owned(), Arc::clone(&stats));
        let health_of_writer = Health::new(health_sender.clone());
        let upkeep = Upkeep::new(limits, Arc::clone(&readers));
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let failed = |error: std::io::Error| StoreError::unavailable(Obstacle::Database, error);
        thread("amends-store-writer")
            .spawn(move || {
                // Dropped after the writer, also after a panic.
                let _ended = ended_sender;
                let run = AssertUnwindSafe(move || {
                    // Dropped after the connection, so that nobody else opens the file before.
                    let acknowledged = Acknowledged::new(lock);
                    let connection = connection;
                    let writer = Writer {
                        connection: &connection,
                        acknowledged: &acknowledged,
                        path: writer_path,
                        fence,
                        cache: WriterCache::new(position),
                        head: head_sender,
                        stats: writer_stats,
                        health: health_of_writer,
                        upkeep,
                    };
                    writer.run(receiver);
                });
                if catch_unwind(run).is_err() {
                    health::lose(&health_sender, &Fatal::WriterEnded.into());
                }
            })
            .map_err(failed)?;
        let weak = jobs.downgrade();
        thread("amends-store-clock")
            .spawn(move || upkeep::keep_looking(&weak, limits))
            .map_err(failed)?;
        let queue = Queue::new(jobs);
        Ok(Self {
            queue: Arc::new(queue),
            readers,
            epoch: Epoch(fence.unsigned_abs()),
            handed: Arc::default(),
            head,
            stats,
            health,
            path: path.to_owned(),
            backups: Arc::new(Semaphore::new(1)),
            archiving: Arc::new(Semaphore::new(1)),
            archive_reads: Semaphore::new(ARCHIVE_READS_MAX),
            counting: Semaphore::new(1),
            rebuilding: Semaphore::new(1),
            archive: Some(Arc::new(archive)),
            run,
            ended,
        })
    }

    /// Runs a read on a connection of its own, off the async threads. A read that takes too long is
    /// interrupted, see [`Readers`].
    fn query<T, F>(&self, query: F) -> BoxFuture<'_, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.query_for(true, query)
    }

    /// Runs a read; only when `is_limited` is it interrupted when it takes too long.
    fn query_for<T, F>(&self, is_limited: bool, query: F) -> BoxFuture<'_, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        async move {
            if self.queue.is_closing.load(Ordering::Acquire) {
                return Err(StoreError::Closed);
            }
            let readers = Arc::clone(&self.readers);
            let permits = Arc::clone(&readers.permits);
            let permit = permits.acquire_owned().await.map_err(|_| StoreError::Closed)?;
            let reading = tokio::task::spawn_blocking(move || {
                let result = readers.run(is_limited, query);
                // Held to the end of the query, even when its caller no longer waits.
                drop(permit);
                result
            });
            reading
                .await
                .unwrap_or_else(|error| Err(StoreError::unavailable(Obstacle::Database, error)))
        }
        .boxed()
    }
}

impl Store for SqliteStore {
    fn ownership(&self) -> &dyn Ownership {
        self
    }

    fn log(&self) -> &dyn EventLog {
        self
    }

    fn sagas(&self) -> &dyn SagaIndex {
        self
    }

    fn state(&self) -> &dyn PluginState {
        self
    }

    fn blobs(&self) -> &dyn Blobs {
        self
    }

    fn archive(&self) -> &dyn Archive {
        self
    }

    fn outbox(&self) -> &dyn Outbox {
        self
    }

    fn schedules(&self) -> &dyn Schedules {
        self
    }

    fn maintenance(&self) -> &dyn Maintenance {
        self
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            self.queue.is_closing.store(true, Ordering::Release);
            if let Some(files) = &self.archive {
                files.close();
            }
            // Readers first, because the connection that closes last removes the log.
            if let Ok(all) = self.readers.permits.acquire_many(READERS_MAX).await {
                all.forget();
                self.readers.permits.close();
            }
            self.readers.close_idle();
            // Queued after all other jobs. Fails when the writer has ended.
            let _ = self.queue.jobs.send(Job::Close);
            // Callers that wait for room get an error.
            self.queue.places.close();
            // Nothing is ever sent: the wait fails once the sender is gone.
            while self.ended.clone().changed().await.is_ok() {}
            Ok(())
        }
        .boxed()
    }
}

impl Ownership for SqliteStore {
    fn join(&self, _: HostInfo) {}

    fn owner_of(&self, shard: ShardId) -> ShardOwner {
        let handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
        if handed.has(shard) { ShardOwner::This } else { ShardOwner::Nobody }
    }

    fn others(&self) -> Vec<HostInfo> {
        Vec::new()
    }

    fn tick(&self) -> BoxFuture<'_, Result<Vec<OwnershipEvent>, StoreError>> {
        ready(self.changes()).boxed()
    }
}

impl SqliteStore {
    /// Returns what has changed of the ownership. The writer watches the fence, and reports when
    /// another process has raised it.
    fn changes(&self) -> Result<Vec<OwnershipEvent>, StoreError> {
        if self.queue.is_closing.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        let lost = match &*self.health.borrow() {
            StoreHealth::Lost(error) => Some(error.clone()),
            StoreHealth::Well | StoreHealth::NoWrites(_) => None,
        };
        let mut handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = lost else {
            let gained = handed.gain_all().map(|id| {
                let (queue, handed) = (Arc::clone(&self.queue), Arc::clone(&self.handed));
                OwnershipEvent::Gained(Box::new(QueueShard::new(id, self.epoch, queue, handed)))
            });
            return Ok(gained.collect());
        };
        // Only a raised fence means that somebody else has the shards.
        if !matches!(error, StoreError::Fatal(Fatal::Fenced)) {
            return Err(error);
        }
        let lost: Vec<_> = handed.lose_all().map(OwnershipEvent::Lost).collect();
        if lost.is_empty() { Err(error) } else { Ok(lost) }
    }

    /// Queues an append to a stream that belongs to no shard.
    fn append_unowned(
        &self,
        append: Append,
        may_change_state: bool,
    ) -> BoxFuture<'static, Result<Appended, StoreError>> {
        let checked = append.check().and_then(|()| append.check_shared(may_change_state));
        match checked {
            Ok(()) => self.queue.append(append, None),
            Err(error) => ready(Err(error)).boxed(),
        }
    }
}

impl EventLog for SqliteStore {
    fn stream(
        &self,
        stream: Stream,
        after: Version,
        budget: PageBudget,
    ) -> BoxFuture<'_, Result<Vec<StoredEvent>, StoreError>> {
        self.query(move |connection| read::events(connection, &stream, after, budget))
    }

    fn follow(
        &self,
        from: Cursor,
        budget: PageBudget,
    ) -> BoxFuture<'_, Result<LogPage, StoreError>> {
        self.query(move |connection| {
            let events = read::log(connection, from, budget)?;
            let next = events.last().map_or(from, StoredEvent::cursor);
            Ok(LogPage { events, next })
        })
    }

    fn head(&self) -> watch::Receiver<Cursor> {
        self.head.clone()
    }

    fn end(&self) -> BoxFuture<'_, Result<Cursor, StoreError>> {
        // The archive may have taken the last events.
        let head = *self.head.borrow();
        self.query(move |connection| Ok(Cursor(read::end(connection)?.0.max(head.0))))
    }

    fn append_shared(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        self.append_unowned(append, false)
    }
}

impl SagaIndex for SqliteStore {
    fn row(&self, id: SagaId) -> BoxFuture<'_, Result<Option<SagaRow>, StoreError>> {
        self.query(move |connection| read::saga(connection, id))
    }

    fn list(&self, query: SagaQuery) -> BoxFuture<'_, Result<Vec<SagaRow>, StoreError>> {
        self.query(move |connection| read::list(connection, &query))
    }

    fn groups(
        &self,
        query: SagaQuery,
        by: Vec<GroupBy>,
    ) -> BoxFuture<'_, Result<SagaGroups, StoreError>> {
        async move {
            let _place = self.counting.acquire().await.map_err(|_| StoreError::Closed)?;
            self.query(move |connection| read::groups(connection, &query, &by)).await
        }
        .boxed()
    }

    fn live(
        &self,
        shards: Vec<ShardId>,
        which: LiveSagas,
        after: Option<SagaId>,
        budget: PageBudget,
    ) -> BoxFuture<'_, Result<Vec<LiveSaga>, StoreError>> {
        self.query(move |connection| read::live(connection, &shards, which, after, budget))
    }

    fn read(&self, ids: Vec<SagaId>) -> BoxFuture<'_, Result<Vec<LiveSaga>, StoreError>> {
        self.query(move |connection| read::sagas(connection, &ids))
    }

    fn due(
        &self,
        shards: Vec<ShardId>,
        until: Timestamp,
        after: Option<(Timestamp, SagaId)>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<(Timestamp, SagaId)>, StoreError>> {
        self.query(move |connection| read::due(connection, &shards, until, after, limit))
    }

    fn waiting(
        &self,
        shards: Vec<ShardId>,
        after: Option<SagaId>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<(SagaId, Timestamp)>, StoreError>> {
        self.query(move |connection| read::waiting(connection, &shards, after, limit))
    }

    fn count_waiting(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.query(read::count_waiting)
    }

    fn oldest_live(&self) -> BoxFuture<'_, Result<Option<(SagaId, Timestamp)>, StoreError>> {
        self.query(read::oldest_live)
    }

    fn has_sealed(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.query(read::has_sealed)
    }

    fn of_subject_key(
        &self,
        key: SubjectKeyId,
        after: Option<SagaId>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<SagaRow>, StoreError>> {
        self.query(move |connection| read::of_subject_key(connection, key, after, limit))
    }

    fn was_any_live(
        &self,
        from: Timestamp,
        until: Timestamp,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.query(move |connection| read::was_any_live(connection, from, until))
    }

    fn key(&self, key: String) -> BoxFuture<'_, Result<Option<(SagaId, Digest)>, StoreError>> {
        self.query(move |connection| read::key(connection, &key))
    }

    fn counts(&self) -> BoxFuture<'_, Result<BTreeMap<SagaStatus, u64>, StoreError>> {
        self.query(read::counts)
    }
}

impl PluginState for SqliteStore {
    fn value(
        &self,
        plugin: PluginName,
        key: String,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>> {
        self.query(move |connection| state::get(connection, plugin.as_str(), &key))
    }

    fn keys(
        &self,
        plugin: PluginName,
        query: StateQuery,
    ) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        self.query(move |connection| state::keys(connection, plugin.as_str(), &query))
    }

    fn change(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        self.append_unowned(append, true)
    }
}

impl SqliteStore {
    fn change_blob(
        &self,
        kind: BlobKind,
        digest: Digest,
        change: BlobChange,
    ) -> BoxFuture<'static, Result<bool, StoreError>> {
        let bytes = match &change {
            BlobChange::Put { bytes, .. } => bytes.len(),
            BlobChange::Renew { .. } | BlobChange::Remove { .. } => 0,
        };
        let (reply, answer) = oneshot::channel();
        let job = move |place| Job::Blob { kind, digest, change, reply, _place: place };
        let queued = self.queue.push_when_room(bytes, job);
        async move {
            queued.await?;
            answer.await.unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }
}

impl Blobs for SqliteStore {
    fn put(
        &self,
        kind: BlobKind,
        name: String,
        digest: Digest,
        at: Timestamp,
        bytes: Vec<u8>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        if bytes.len() > BLOB_BYTES_MAX {
            return ready(Err(StoreError::Invalid("a blob is at most 256 MiB"))).boxed();
        }
        let change = BlobChange::Put { name, at, bytes };
        self.change_blob(kind, digest, change).map_ok(|_| ()).boxed()
    }

    fn renew(
        &self,
        kind: BlobKind,
        digest: Digest,
        at: Timestamp,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.change_blob(kind, digest, BlobChange::Renew { at })
    }

    fn remove(
        &self,
        kind: BlobKind,
        digest: Digest,
        unused_since: Timestamp,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.change_blob(kind, digest, BlobChange::Remove { unused_since })
    }

    fn get(
        &self,
        kind: BlobKind,
        digest: Digest,
    ) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        self.query(move |connection| read::blob(connection, kind, digest))
    }

    fn list(&self, kind: BlobKind) -> BoxFuture<'_, Result<Vec<BlobRow>, StoreError>> {
        self.query(move |connection| read::blobs(connection, kind))
    }
}

impl Outbox for SqliteStore {
    fn subscription(
        &self,
        name: String,
    ) -> BoxFuture<'_, Result<Option<SubscriptionRow>, StoreError>> {
        self.query(move |connection| outbox::subscription(connection, &name))
    }

    fn dead_letters(
        &self,
        name: String,
        after: Option<Cursor>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<DeadLetter>, StoreError>> {
        self.query(move |connection| outbox::dead_letters(connection, &name, after, limit))
    }

    fn save(&self, change: SubscriptionChange) -> BoxFuture<'_, Result<(), StoreError>> {
        let (reply, answer) = oneshot::channel();
        let change = Box::new(change);
        let job = move |place| Job::SaveSubscription { change, reply, _place: place };
        let queued = self.queue.push_when_room(0, job);
        async move {
            queued.await?;
            answer.await.unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }
}

impl Schedules for SqliteStore {
    fn schedule(&self, name: String) -> BoxFuture<'_, Result<Option<ScheduleRow>, StoreError>> {
        self.query(move |connection| schedules::schedule(connection, &name))
    }

    fn save_schedule(&self, row: ScheduleRow) -> BoxFuture<'_, Result<(), StoreError>> {
        let (reply, answer) = oneshot::channel();
        let row = Box::new(row);
        let job = move |place| Job::SaveSchedule { row, reply, _place: place };
        let queued = self.queue.push_when_room(0, job);
        async move {
            queued.await?;
            answer.await.unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }
}

impl Maintenance for SqliteStore {
    fn verify(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        let files = self.archive.clone();
        // It reads the whole store, so its time is not limited.
        self.query_for(false, move |connection| {
            let mut findings = read::verify(connection)?;
            if let Some(files) = files {
                findings.extend(archive_check::check_archive(connection, &files)?);
            }
            Ok(findings)
        })
    }

    fn rebuild(&self, from: RebuildPlace) -> BoxFuture<'_, Result<RebuildSlice, RebuildError>> {
        async move {
            let _place = self.rebuilding.try_acquire().map_err(|_| RebuildError::UnderWay)?;
            Ok(self.rebuild_slice(from).await?)
        }
        .boxed()
    }

    fn events(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.query(read::count_events)
    }

    fn survey(&self) -> BoxFuture<'_, Result<StoreSurvey, StoreError>> {
        let path = self.path.clone();
        self.query(move |connection| read::survey(connection, &path))
    }

    fn back_up(&self) -> BoxFuture<'_, Result<Backup, BackupError>> {
        async move {
            if self.queue.is_closing.load(Ordering::Acquire) {
                return Err(StoreError::Closed.into());
            }
            let place = Arc::clone(&self.backups).try_acquire_owned();
            let place = place.map_err(|_| BackupError::UnderWay)?;
            let (queue, path) = (Arc::clone(&self.queue), self.path.clone());
            let (answer, copied) = oneshot::channel();
            tokio::task::spawn_blocking(move || {
                let copied = backup::copy_while_written(&queue, &path, &|| answer.is_closed());
                // A caller that is gone leaves nothing: the file has no name any more.
                let _ =
                    answer.send(copied.map(|(file, summary)| Backup::new(file, summary, place)));
            });
            copied.await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
        }
        .boxed()
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.clone()
    }

    fn stats(&self) -> StoreStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The shared store: one PostgreSQL database.
//!
//! Several hosts share one database. Each owns some of the shards: see [`tick`] for leases, taking over and handing
//! over.
//!
//! One task of a host writes, over one connection, the lane. Each time, it takes everything that waits into one
//! transaction, whose statements it sends without waiting for answers in between, so a batch is one round
//! trip and one fsync of the server. Reads, ticks and the sequencer have connections of their own. All connections are
//! served by one thread of the store.
//!
//! Who may write is decided in the transaction itself: it locks the row of the lane and compares the epoch, see
//! [`transaction`]. Whoever takes a host over removes the row. The place of events in the log is given afterwards, see
//! [`sequencer`].
//!
//! Deliberately absent: backups (`pg_dump` and base backups make them), and sums of rows (`initdb
//! --data-checksums` makes those).

mod archive;
mod archive_work;
mod change;
mod columns;
mod connection;
mod control;
mod copied;
mod derive;
mod error;
mod job;
mod locks;
mod look;
mod lost;
mod membership;
mod open;
mod owned_shard;
mod place;
mod plan;
mod projections;
mod read;
mod readers;
mod rebuild;
mod rows;
mod schema;
mod seen;
mod sequencer;
mod strays;
mod text;
mod tick;
mod tls;
mod tls_url;
mod transaction;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::{
    Digest, PluginName, SagaId, SagaStatus, StateQuery, SubjectKeyId, Timestamp, Version,
};
use futures::future::{BoxFuture, ready};
use futures::{FutureExt as _, TryFutureExt as _};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::append::{Append, Appended};
use crate::archive::Archive;
use crate::archive_files::ArchiveFiles;
use crate::archive_place::ArchivePlace;
use crate::backup::{Backup, BackupError};
use crate::blob::{BLOB_BYTES_MAX, BlobChange, BlobKind, BlobRow, Blobs};
use crate::clock::now;
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
use crate::rebuild::{RebuildError, RebuildPlace, RebuildSlice};
use crate::saga_groups::{GroupBy, SagaGroups};
use crate::saga_index::SagaIndex;
use crate::saga_query::SagaQuery;
use crate::saga_row::{LiveSaga, LiveSagas, SagaRow};
use crate::schedules::{ScheduleRow, Schedules};
use crate::shard_id::ShardId;
use crate::store::Store;
use crate::stored_event::StoredEvent;
use crate::stream::Stream;
use crate::survey::StoreSurvey;

use connection::Pg;
use control::Control;
use error::Result as PgResult;
use job::{Job, WorkDone};
use membership::Membership;
use open::Registered;
use place::Place;
use plan::WriterCache;
use readers::{Lease, READERS_MAX, Readers};
use sequencer::Sequencer;
use writer::{Longest, Writer};

pub(crate) use copied::CopyTarget;
pub use tls_url::with_files_from;

/// Sagas that are read from the archive at once: each may have 64 MiB of events.
const ARCHIVE_READS_MAX: usize = 4;

/// A store in one PostgreSQL database.
///
/// When it is dropped without [`Store::close`], it still writes what was queued, and closes its connections
/// some moments later.
pub struct PostgresStore {
    queue: Arc<Queue<Job>>,
    readers: Arc<Readers>,
    membership: Arc<Membership>,
    /// Held by a tick.
    control: tokio::sync::Mutex<Control>,
    sequencer: Sequencer,
    head: watch::Receiver<Cursor>,
    stats: Arc<Mutex<StoreStats>>,
    health: watch::Receiver<StoreHealth>,
    longest: Arc<Longest>,
    /// The only place for a move to the archive.
    archiving: Arc<Semaphore>,
    /// The only place for a count by groups: it may read for long, and sagas need the other readers.
    counting: Semaphore,
    /// The only place for a slice of a rebuild: sagas need the other readers.
    rebuilding: Semaphore,
    /// One for each saga that is read from the archive, see [`ARCHIVE_READS_MAX`].
    archive_reads: Semaphore,
    /// The files of the archive; none when sagas are deleted instead.
    archive: Option<Arc<ArchiveFiles>>,
    /// Says which files of the folder are those of this store.
    run: i64,
    /// Its sender is dropped when the writer has ended.
    ended: watch::Receiver<()>,
}

/// What the thread of the store tells whoever opens it.
struct Opened {
    runtime: Handle,
    registered: Registered,
    membership: Arc<Membership>,
    sequencer: Sequencer,
}

impl PostgresStore {
    /// Connects, creates the tables in an empty database, and brings the schema up to date. The process owns
    /// nothing before its first tick. Blocks meanwhile.
    ///
    /// # Errors
    /// When the URL is not understood, the database cannot be reached or written, is newer than this
    /// version, or has tables of another program. No error has the password.
    pub fn open(url: &str, durability: Durability) -> Result<Self, OpenError> {
        let place = place::read_url(url)?;
        let (jobs, receiver) = mpsc::unbounded_channel();
        let (head_sender, head) = watch::channel(Cursor::START);
        let (ended_sender, ended) = watch::channel(());
        let (health_sender, health) = watch::channel(StoreHealth::Well);
        let (stats, longest) = (Arc::new(Mutex::new(StoreStats::default())), Arc::default());
        let (told, opened) = std::sync::mpsc::channel::<Result<Opened, OpenError>>();
        let thread = std::thread::Builder::new().name("amends-store-postgres".to_owned());
        let (writer_place, writer_stats) = (place.clone(), Arc::clone(&stats));
        let writer_longest: Arc<Longest> = Arc::clone(&longest);
        let run = move || {
            // Dropped after the writer, also after a panic.
            let _ended = ended_sender;
            let reported = health_sender.clone();
            let run = AssertUnwindSafe(move || {
                let health = Health::new(health_sender);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = match runtime {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let error = StoreError::unavailable(Obstacle::Database, error);
                        return drop(told.send(Err(error.into())));
                    }
                };
                runtime.block_on(async move {
                    let (pg, registered, end) = match begin(&writer_place, durability).await {
                        Ok(opened) => opened,
                        Err(error) => return drop(told.send(Err(error))),
                    };
                    head_sender.send_replace(Cursor(end.unsigned_abs()));
                    let place = writer_place.clone();
                    let membership = Arc::new(Membership::new(registered.lane.host));
                    let (sequencer, task) =
                        Sequencer::new(place, head_sender, Arc::clone(&membership));
                    tokio::spawn(task.run());
                    let mut writer = Writer {
                        place: writer_place,
                        setup: open::writer_setup(durability),
                        jobs: receiver,
                        pg: Some(pg),
                        lane: registered.lane,
                        run_number: registered.run,
                        batch: 0,
                        cache: WriterCache::new(),
                        longest: writer_longest,
                        membership: Arc::clone(&membership),
                        sequencer: sequencer.clone(),
                        stats: writer_stats,
                        health,
                        old_batches: VecDeque::new(),
                        looks: 0,
                        unsure: Vec::new(),
                        is_closing: false,
                    };
                    // Readers need what it finds.
                    writer.look().await;
                    let runtime = Handle::current();
                    let _ = told.send(Ok(Opened { runtime, registered, membership, sequencer }));
                    Box::pin(writer.run()).await;
                });
            });
            if catch_unwind(run).is_err() {
                health::lose(&reported, &Fatal::WriterEnded.into());
            }
        };
        let failed = |error: std::io::Error| StoreError::unavailable(Obstacle::Database, error);
        thread.spawn(run).map_err(failed)?;
        let opened = opened.recv().map_err(|_| StoreError::from(Fatal::WriterEnded))??;
        Ok(Self::of(opened, place, jobs, (head, health, ended), stats, longest))
    }

    fn of(
        Opened { runtime, registered, membership, sequencer }: Opened,
        place: Place,
        jobs: mpsc::UnboundedSender<Job>,
        (head, health, ended): (
            watch::Receiver<Cursor>,
            watch::Receiver<StoreHealth>,
            watch::Receiver<()>,
        ),
        stats: Arc<Mutex<StoreStats>>,
        longest: Arc<Longest>,
    ) -> Self {
        Self {
            queue: Arc::new(Queue::new(jobs)),
            readers: Arc::new(Readers::new(place, runtime)),
            membership,
            control: tokio::sync::Mutex::default(),
            sequencer,
            head,
            stats,
            health,
            longest,
            archiving: Arc::new(Semaphore::new(1)),
            counting: Semaphore::new(1),
            rebuilding: Semaphore::new(1),
            archive_reads: Semaphore::new(ARCHIVE_READS_MAX),
            archive: None,
            run: registered.run,
            ended,
        }
    }

    /// Has the archive in a folder or a bucket. With none, ended sagas are deleted instead. The drafts of
    /// files for a bucket are in the folder for temporary files.
    ///
    /// # Errors
    /// When the environment has settings of the bucket that cannot be used.
    pub fn with_archive(mut self, place: Option<&ArchivePlace>) -> Result<Self, OpenError> {
        let open = |place| ArchiveFiles::open(place, &std::env::temp_dir()).map(Arc::new);
        self.archive = place.map(open).transpose()?;
        Ok(self)
    }

    fn is_closing(&self) -> bool {
        self.queue.is_closing.load(Ordering::Acquire)
    }

    /// Waits for a connection that reads.
    async fn lease(&self) -> Result<Lease, StoreError> {
        if self.is_closing() {
            return Err(StoreError::Closed);
        }
        self.readers.lease().await
    }

    /// Runs a read on a connection of its own. When the future is dropped, the read ends with its connection.
    fn read<'s, T, F>(&'s self, read: F) -> BoxFuture<'s, Result<T, StoreError>>
    where
        T: Send + 's,
        F: for<'a> FnOnce(&'a Pg) -> BoxFuture<'a, PgResult<T>> + Send + 's,
    {
        async move {
            let lease = self.lease().await?;
            let found = read(&lease).await;
            lease.finish(found)
        }
        .boxed()
    }

    /// Reads a page of events. When what comes after it has no place in the log yet, it gets one first: so the page has
    /// what was durable before the call.
    fn placed<'s, F>(&'s self, read: F) -> BoxFuture<'s, Result<Vec<StoredEvent>, StoreError>>
    where
        F: for<'a> Fn(&'a Pg) -> BoxFuture<'a, PgResult<read::Placed>> + Send + Sync + 's,
    {
        async move {
            let lease = self.lease().await?;
            let found = read(&lease).await;
            let (events, has_more) = lease.finish(found)?;
            if !has_more {
                return Ok(events);
            }
            self.sequencer.place_all().await?;
            let lease = self.lease().await?;
            let found = read(&lease).await;
            Ok(lease.finish(found)?.0)
        }
        .boxed()
    }

    /// Has the writer do work in a transaction of its own, and waits until it is durable.
    async fn work<F>(&self, work: F) -> Result<WorkDone, StoreError>
    where
        F: for<'a> FnOnce(&'a Pg) -> BoxFuture<'a, PgResult<WorkDone>> + Send + 'static,
    {
        let (reply, done) = oneshot::channel();
        self.queue.push(Job::Work { work: Box::new(work), reply });
        done.await.unwrap_or(Err(StoreError::Closed))
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

    /// Returns why this process writes nothing any more, if that is so.
    fn lost_error(&self) -> Option<StoreError> {
        match &*self.health.borrow() {
            StoreHealth::Lost(error) => Some(error.clone()),
            StoreHealth::Well | StoreHealth::NoWrites(_) => None,
        }
    }
}

/// Opens the database, and returns the end of the log as well.
async fn begin(place: &Place, durability: Durability) -> Result<(Pg, Registered, i64), OpenError> {
    let (pg, registered) = open::open(place, durability).await?;
    let end = sequencer::place_all(&pg).await.map_err(StoreError::from)?;
    Ok((pg, registered, end))
}

impl Store for PostgresStore {
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
            // Reads that are under way end first: the thread of the store serves their connections.
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

impl Ownership for PostgresStore {
    fn join(&self, host: HostInfo) {
        self.membership.join(host);
    }

    fn owner_of(&self, shard: ShardId) -> ShardOwner {
        self.membership.owner_of(shard)
    }

    fn others(&self) -> Vec<HostInfo> {
        self.membership.others()
    }

    fn tick(&self) -> BoxFuture<'_, Result<Vec<OwnershipEvent>, StoreError>> {
        self.turn().boxed()
    }
}

impl EventLog for PostgresStore {
    fn stream(
        &self,
        stream: Stream,
        after: Version,
        budget: PageBudget,
    ) -> BoxFuture<'_, Result<Vec<StoredEvent>, StoreError>> {
        self.placed(move |pg| {
            let stream = stream.clone();
            async move { read::events(pg, &stream, after, budget).await }.boxed()
        })
    }

    fn follow(
        &self,
        from: Cursor,
        budget: PageBudget,
    ) -> BoxFuture<'_, Result<LogPage, StoreError>> {
        let page = self.placed(move |pg| read::log(pg, from, budget).boxed());
        page.map_ok(move |events| {
            let next = events.last().map_or(from, StoredEvent::cursor);
            LogPage { events, next }
        })
        .boxed()
    }

    fn head(&self) -> watch::Receiver<Cursor> {
        self.head.clone()
    }

    fn end(&self) -> BoxFuture<'_, Result<Cursor, StoreError>> {
        async {
            self.sequencer.place_all().await?;
            Ok(*self.head.borrow())
        }
        .boxed()
    }

    fn append_shared(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        self.append_unowned(append, false)
    }
}

impl SagaIndex for PostgresStore {
    fn row(&self, id: SagaId) -> BoxFuture<'_, Result<Option<SagaRow>, StoreError>> {
        PostgresStore::read(self, move |pg| read::saga(pg, id).boxed())
    }

    fn list(&self, query: SagaQuery) -> BoxFuture<'_, Result<Vec<SagaRow>, StoreError>> {
        let longest = Arc::clone(&self.longest);
        PostgresStore::read(self, move |pg| {
            async move { read::list(pg, &query, &longest).await }.boxed()
        })
    }

    fn groups(
        &self,
        query: SagaQuery,
        by: Vec<GroupBy>,
    ) -> BoxFuture<'_, Result<SagaGroups, StoreError>> {
        async move {
            let _place = self.counting.acquire().await.map_err(|_| StoreError::Closed)?;
            let longest = Arc::clone(&self.longest);
            PostgresStore::read(self, move |pg| {
                async move { read::groups(pg, &query, &by, &longest).await }.boxed()
            })
            .await
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
        PostgresStore::read(self, move |pg| {
            async move { read::live(pg, &shards, which, after, budget).await }.boxed()
        })
    }

    fn read(&self, ids: Vec<SagaId>) -> BoxFuture<'_, Result<Vec<LiveSaga>, StoreError>> {
        PostgresStore::read(self, move |pg| async move { read::sagas(pg, &ids).await }.boxed())
    }

    fn due(
        &self,
        shards: Vec<ShardId>,
        until: Timestamp,
        after: Option<(Timestamp, SagaId)>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<(Timestamp, SagaId)>, StoreError>> {
        PostgresStore::read(self, move |pg| {
            async move { read::due(pg, &shards, until, after, limit).await }.boxed()
        })
    }

    fn waiting(
        &self,
        shards: Vec<ShardId>,
        after: Option<SagaId>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<(SagaId, Timestamp)>, StoreError>> {
        PostgresStore::read(self, move |pg| {
            async move { read::waiting(pg, &shards, after, limit).await }.boxed()
        })
    }

    fn has_sealed(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
        PostgresStore::read(self, |pg| read::has_sealed(pg).boxed())
    }

    fn of_subject_key(
        &self,
        key: SubjectKeyId,
        after: Option<SagaId>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<SagaRow>, StoreError>> {
        PostgresStore::read(self, move |pg| read::of_subject_key(pg, key, after, limit).boxed())
    }

    fn count_waiting(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        PostgresStore::read(self, |pg| read::count_waiting(pg).boxed())
    }

    fn oldest_live(&self) -> BoxFuture<'_, Result<Option<(SagaId, Timestamp)>, StoreError>> {
        PostgresStore::read(self, |pg| read::oldest_live(pg).boxed())
    }

    fn was_any_live(
        &self,
        from: Timestamp,
        until: Timestamp,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        PostgresStore::read(self, move |pg| read::was_any_live(pg, from, until).boxed())
    }

    fn key(&self, key: String) -> BoxFuture<'_, Result<Option<(SagaId, Digest)>, StoreError>> {
        PostgresStore::read(self, move |pg| async move { read::key(pg, &key).await }.boxed())
    }

    fn counts(&self) -> BoxFuture<'_, Result<BTreeMap<SagaStatus, u64>, StoreError>> {
        PostgresStore::read(self, |pg| read::counts(pg).boxed())
    }
}

impl PluginState for PostgresStore {
    fn value(
        &self,
        plugin: PluginName,
        key: String,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>> {
        PostgresStore::read(self, move |pg| {
            async move { read::state_value(pg, plugin.as_str(), &key).await }.boxed()
        })
    }

    fn keys(
        &self,
        plugin: PluginName,
        query: StateQuery,
    ) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        PostgresStore::read(self, move |pg| {
            async move { seen::state_keys(pg, &plugin, &query).await }.boxed()
        })
    }

    fn change(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        self.append_unowned(append, true)
    }
}

impl PostgresStore {
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

impl Blobs for PostgresStore {
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
        PostgresStore::read(self, move |pg| read::blob(pg, kind, digest).boxed())
    }

    fn list(&self, kind: BlobKind) -> BoxFuture<'_, Result<Vec<BlobRow>, StoreError>> {
        PostgresStore::read(self, move |pg| read::blobs(pg, kind).boxed())
    }
}

impl Outbox for PostgresStore {
    fn subscription(
        &self,
        name: String,
    ) -> BoxFuture<'_, Result<Option<SubscriptionRow>, StoreError>> {
        PostgresStore::read(self, move |pg| {
            async move { read::subscription(pg, &name).await }.boxed()
        })
    }

    fn dead_letters(
        &self,
        name: String,
        after: Option<Cursor>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<DeadLetter>, StoreError>> {
        PostgresStore::read(self, move |pg| {
            async move { read::dead_letters(pg, &name, after, limit).await }.boxed()
        })
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

impl Schedules for PostgresStore {
    fn schedule(&self, name: String) -> BoxFuture<'_, Result<Option<ScheduleRow>, StoreError>> {
        PostgresStore::read(self, move |pg| async move { read::schedule(pg, &name).await }.boxed())
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

impl Maintenance for PostgresStore {
    fn verify(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        async move {
            let lease = self.lease().await?;
            // The connection is closed afterwards: its reads have no limit.
            Ok(read::verify(&lease).await?)
        }
        .boxed()
    }

    fn rebuild(&self, from: RebuildPlace) -> BoxFuture<'_, Result<RebuildSlice, RebuildError>> {
        async move {
            let _place = self.rebuilding.try_acquire().map_err(|_| RebuildError::UnderWay)?;
            Ok(self.rebuild_slice(from).await?)
        }
        .boxed()
    }

    fn events(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        PostgresStore::read(self, |pg| read::count_events(pg).boxed())
    }

    fn survey(&self) -> BoxFuture<'_, Result<StoreSurvey, StoreError>> {
        async move {
            // What it counts by position.
            self.sequencer.place_all().await?;
            PostgresStore::read(self, |pg| read::survey(pg, now()).boxed()).await
        }
        .boxed()
    }

    fn back_up(&self) -> BoxFuture<'_, Result<Backup, BackupError>> {
        let refused =
            if self.is_closing() { StoreError::Closed.into() } else { BackupError::Elsewhere };
        ready(Err(refused)).boxed()
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.clone()
    }

    fn stats(&self) -> StoreStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

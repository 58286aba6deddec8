//! The embedded store: one SQLite file in WAL mode.
//!
//! One thread writes. Each time, it takes everything that waits into one transaction and one fsync.
//! A single append is committed at once. Reads have connections of their own.
//!
//! Deliberately absent: a wait that makes batches larger, an in-memory database, a second writer.

mod append;
mod append_columns;
mod column;
mod connection;
mod error;
mod file;
mod health;
mod job;
mod look;
mod open;
mod queue;
mod read;
mod readers;
mod saga_columns;
mod schema;
mod shard;
mod start_delay;
mod state;
mod statements;
mod stream_column;
#[cfg(test)]
mod tests;
mod upkeep;
mod write;
mod writer;
mod writer_cache;

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::{Digest, PluginName, SagaId, SagaStatus, StateQuery, Timestamp, Version};
use amends_failpoint::failpoint;
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use rusqlite::Connection;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::append::{Append, Appended};
use crate::blob::{BLOB_BYTES_MAX, BlobKind, BlobRow, Blobs};
use crate::config::Durability;
use crate::error::{Fatal, Obstacle, OpenError, StoreError};
use crate::event_log::{EventLog, LogPage};
use crate::maintenance::{Maintenance, StoreHealth, StoreStats};
use crate::ownership::{Ownership, OwnershipEvent};
use crate::paging::{Cursor, PageBudget};
use crate::plugin_state::PluginState;
use crate::saga_index::SagaIndex;
use crate::saga_query::SagaQuery;
use crate::saga_row::{LiveSaga, SagaRow};
use crate::shard_id::{Epoch, ShardId};
use crate::store::Store;
use crate::stored_event::StoredEvent;
use crate::stream::Stream;

use health::Health;
use job::Job;
use queue::Queue;
use readers::{READERS_MAX, Readers};
use shard::{Handed, SqliteShard};
use upkeep::{Limits, Upkeep};
use writer::Writer;
use writer_cache::WriterCache;

pub use file::LOCK_SUFFIX;
pub use queue::APPENDS_WAITING_MAX;
pub use schema::SCHEMA_VERSION;

/// A store in one SQLite file.
///
/// When it is dropped without [`Store::close`], it still writes what was queued, and closes the
/// file some moments later.
pub struct SqliteStore {
    queue: Arc<Queue>,
    readers: Arc<Readers>,
    /// The fence that this process set when it took the file over. It is the epoch of every shard.
    epoch: Epoch,
    handed: Arc<Mutex<Handed>>,
    head: watch::Receiver<Cursor>,
    stats: Arc<Mutex<StoreStats>>,
    health: watch::Receiver<StoreHealth>,
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
        let connection = open::open(&path, durability)?;
        file::keep_from_others(&path);
        Self::start(&path, lock, connection, Limits::default())
    }

    /// Takes the opened file over, and starts the threads of the store.
    fn start(
        path: &Path,
        lock: File,
        connection: Connection,
        limits: Limits,
    ) -> Result<Self, OpenError> {
        let (fence, position) = open::take_over(&connection, path)?;
        failpoint("store.opened");
        let (jobs, receiver) = mpsc::unbounded_channel();
        let (head_sender, head) = watch::channel(Cursor(position.0));
        let (ended_sender, ended) = watch::channel(());
        let (health_sender, health) = watch::channel(StoreHealth::Well);
        let stats = Arc::new(Mutex::new(StoreStats::default()));
        let readers = Arc::new(Readers::new(path.to_owned()));
        let writer = Writer {
            connection,
            lock,
            path: path.to_owned(),
            fence,
            cache: WriterCache::new(position),
            head: head_sender,
            stats: Arc::clone(&stats),
            health: Health::new(health_sender.clone()),
            upkeep: Upkeep::new(limits, Arc::clone(&readers)),
        };
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let failed = |error: std::io::Error| StoreError::unavailable(Obstacle::Database, error);
        thread("amends-store-writer")
            .spawn(move || {
                // Dropped after the writer, also after a panic.
                let _ended = ended_sender;
                let run = AssertUnwindSafe(move || writer.run(receiver));
                if catch_unwind(run).is_err() {
                    health::lose(&health_sender, &Fatal::WriterEnded.into());
                }
            })
            .map_err(failed)?;
        let weak = jobs.downgrade();
        thread("amends-store-clock")
            .spawn(move || upkeep::keep_looking(&weak, limits))
            .map_err(failed)?;
        let queue = Queue {
            jobs,
            places: Arc::new(Semaphore::new(APPENDS_WAITING_MAX)),
            is_closing: AtomicBool::new(false),
        };
        Ok(Self {
            queue: Arc::new(queue),
            readers,
            epoch: Epoch(fence.unsigned_abs()),
            handed: Arc::default(),
            head,
            stats,
            health,
            ended,
        })
    }

    /// Runs a read on a connection of its own, off the async threads. A read that takes too long is
    /// interrupted, see [`Readers`].
    fn read<T, F>(&self, query: F) -> BoxFuture<'_, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.read_for(true, query)
    }

    /// Runs a read; only when `is_limited` is it interrupted when it takes too long.
    fn read_for<T, F>(&self, is_limited: bool, query: F) -> BoxFuture<'_, Result<T, StoreError>>
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

    fn maintenance(&self) -> &dyn Maintenance {
        self
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            self.queue.is_closing.store(true, Ordering::Release);
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
                OwnershipEvent::Gained(Box::new(SqliteShard::new(id, self.epoch, queue, handed)))
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
        self.read(move |connection| read::events(connection, &stream, after, budget))
    }

    fn follow(
        &self,
        from: Cursor,
        budget: PageBudget,
    ) -> BoxFuture<'_, Result<LogPage, StoreError>> {
        self.read(move |connection| {
            let events = read::log(connection, from, budget)?;
            let next = events.last().map_or(from, StoredEvent::cursor);
            Ok(LogPage { events, next })
        })
    }

    fn head(&self) -> watch::Receiver<Cursor> {
        self.head.clone()
    }

    fn append_shared(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        self.append_unowned(append, false)
    }
}

impl SagaIndex for SqliteStore {
    fn row(&self, id: SagaId) -> BoxFuture<'_, Result<Option<SagaRow>, StoreError>> {
        self.read(move |connection| read::saga(connection, id))
    }

    fn list(&self, query: SagaQuery) -> BoxFuture<'_, Result<Vec<SagaRow>, StoreError>> {
        self.read(move |connection| read::list(connection, &query))
    }

    fn live(
        &self,
        shards: Vec<ShardId>,
        after: Option<SagaId>,
        budget: PageBudget,
    ) -> BoxFuture<'_, Result<Vec<LiveSaga>, StoreError>> {
        self.read(move |connection| read::live(connection, &shards, after, budget))
    }

    fn key(&self, key: String) -> BoxFuture<'_, Result<Option<(SagaId, Digest)>, StoreError>> {
        self.read(move |connection| read::key(connection, &key))
    }

    fn counts(&self) -> BoxFuture<'_, Result<BTreeMap<SagaStatus, u64>, StoreError>> {
        self.read(read::counts)
    }
}

impl PluginState for SqliteStore {
    fn value(
        &self,
        plugin: PluginName,
        key: String,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>> {
        self.read(move |connection| state::get(connection, plugin.as_str(), &key))
    }

    fn keys(
        &self,
        plugin: PluginName,
        query: StateQuery,
    ) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        self.read(move |connection| state::keys(connection, plugin.as_str(), &query))
    }

    fn change(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        self.append_unowned(append, true)
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
        let (reply, answer) = oneshot::channel();
        let queued = self.queue.push_when_room(bytes.len(), move |place| Job::PutBlob {
            kind,
            name,
            digest,
            at,
            bytes,
            reply,
            _place: place,
        });
        async move {
            queued.await?;
            answer.await.unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }

    fn get(
        &self,
        kind: BlobKind,
        digest: Digest,
    ) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        self.read(move |connection| read::blob(connection, kind, digest))
    }

    fn list(&self, kind: BlobKind) -> BoxFuture<'_, Result<Vec<BlobRow>, StoreError>> {
        self.read(move |connection| read::blobs(connection, kind))
    }
}

impl Maintenance for SqliteStore {
    fn verify(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        // It reads the whole store, so its time is not limited.
        self.read_for(false, read::verify)
    }

    fn events(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.read(read::count_events)
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.clone()
    }

    fn stats(&self) -> StoreStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
mod start_delay;
mod state;
mod state_cache;
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

use amends_engine::{
    Digest, PluginName, Position, SagaId, SagaStatus, StateQuery, Timestamp, Version,
};
use amends_failpoint::failpoint;
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use rusqlite::Connection;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::append::{Append, AppendReply, Appended};
use crate::blob::{BLOB_BYTES_MAX, BlobKind, BlobRow};
use crate::config::Durability;
use crate::error::StoreError;
use crate::health::{StoreHealth, StoreStats};
use crate::saga_query::SagaQuery;
use crate::saga_row::{LiveSaga, SagaRow};
use crate::store::Store;
use crate::stored_event::StoredEvent;
use crate::stream::Stream;

use health::Health;
use job::Job;
use queue::Queue;
use readers::{READERS_MAX, Readers};
use state_cache::StateCache;
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
    state_cache: Arc<StateCache>,
    head: watch::Receiver<Position>,
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
    pub fn open(path: &Path, durability: Durability) -> Result<Self, StoreError> {
        // SQLite takes these two for databases in memory, which are lost at the end.
        if path.as_os_str().is_empty() || path == Path::new(":memory:") {
            return Err(StoreError::Url(format!("sqlite:{}", path.display())));
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
    ) -> Result<Self, StoreError> {
        let (fence, position) = open::take_over(&connection, path)?;
        failpoint("store.opened");
        let (jobs, receiver) = mpsc::unbounded_channel();
        let (head_sender, head) = watch::channel(position);
        let (ended_sender, ended) = watch::channel(());
        let (health_sender, health) = watch::channel(StoreHealth::Well);
        let stats = Arc::new(Mutex::new(StoreStats::default()));
        let state_cache = Arc::new(StateCache::default());
        let readers = Arc::new(Readers::new(path.to_owned()));
        let writer = Writer {
            connection,
            lock,
            path: path.to_owned(),
            fence,
            cache: WriterCache::new(position, Arc::clone(&state_cache)),
            head: head_sender,
            stats: Arc::clone(&stats),
            health: Health::new(health_sender.clone()),
            upkeep: Upkeep::new(limits, Arc::clone(&readers)),
        };
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let failed = |error| StoreError::Database(format!("no thread for the writer: {error}"));
        thread("amends-store-writer")
            .spawn(move || {
                // Dropped after the writer, also after a panic.
                let _ended = ended_sender;
                let run = AssertUnwindSafe(move || writer.run(receiver));
                if catch_unwind(run).is_err() {
                    health::lose(&health_sender, &StoreError::WriterEnded);
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
        Ok(Self { queue: Arc::new(queue), readers, state_cache, head, stats, health, ended })
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
            reading.await.unwrap_or_else(|error| Err(StoreError::Database(error.to_string())))
        }
        .boxed()
    }
}

impl Store for SqliteStore {
    fn append_then(&self, append: Append, reply: AppendReply) {
        match append.check() {
            Ok(()) => {
                self.state_cache.queued(&append.state);
                self.queue.push(Job::append(append, reply));
            }
            Err(error) => reply.send(Err(error)),
        }
    }

    fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        if let Err(error) = append.check() {
            return ready(Err(error)).boxed();
        }
        let (reply, answer) = oneshot::channel();
        let state_cache = Arc::clone(&self.state_cache);
        let queued = self.queue.push_when_room(append.bytes(), move |place| {
            state_cache.queued(&append.state);
            Job::append(append, AppendReply::new(|result| drop(reply.send(result))).holding(place))
        });
        async move {
            queued.await?;
            answer.await.unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }

    fn events(
        &self,
        stream: Stream,
        after: Version,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<StoredEvent>, StoreError>> {
        self.read(move |connection| read::events(connection, &stream, after, limit))
    }

    fn log(
        &self,
        after: Position,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<StoredEvent>, StoreError>> {
        self.read(move |connection| read::log(connection, after, limit))
    }

    fn saga(&self, id: SagaId) -> BoxFuture<'_, Result<Option<SagaRow>, StoreError>> {
        self.read(move |connection| read::saga(connection, id))
    }

    fn list(&self, query: SagaQuery) -> BoxFuture<'_, Result<Vec<SagaRow>, StoreError>> {
        self.read(move |connection| read::list(connection, &query))
    }

    fn live(
        &self,
        after: Option<SagaId>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<LiveSaga>, StoreError>> {
        self.read(move |connection| read::live(connection, after, limit))
    }

    fn key(&self, key: String) -> BoxFuture<'_, Result<Option<(SagaId, Digest)>, StoreError>> {
        self.read(move |connection| read::key(connection, &key))
    }

    fn put_blob(
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

    fn blob(
        &self,
        kind: BlobKind,
        digest: Digest,
    ) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        self.read(move |connection| read::blob(connection, kind, digest))
    }

    fn blobs(&self, kind: BlobKind) -> BoxFuture<'_, Result<Vec<BlobRow>, StoreError>> {
        self.read(move |connection| read::blobs(connection, kind))
    }

    fn state(
        &self,
        plugin: PluginName,
        key: String,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>> {
        if let Some(known) = self.state_cache.get(&plugin, &key) {
            return ready(Ok(known)).boxed();
        }
        let cache = Arc::clone(&self.state_cache);
        self.read(move |connection| {
            let forgotten = cache.forgotten();
            let value = state::get(connection, plugin.as_str(), &key)?;
            cache.read(&plugin, &key, value.clone(), forgotten);
            Ok(value)
        })
    }

    fn state_keys(
        &self,
        plugin: PluginName,
        query: StateQuery,
    ) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        self.read(move |connection| state::keys(connection, plugin.as_str(), &query))
    }

    fn counts(&self) -> BoxFuture<'_, Result<BTreeMap<SagaStatus, u64>, StoreError>> {
        self.read(read::counts)
    }

    fn verify(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        // It reads the whole store, so its time is not limited.
        self.read_for(false, read::verify)
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.head.clone()
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.clone()
    }

    fn stats(&self) -> StoreStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
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

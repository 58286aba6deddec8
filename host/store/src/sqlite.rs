//! The embedded store: one SQLite file in WAL mode.
//!
//! One thread writes. Everything that waits when it looks goes into one transaction and one
//! fsync; when one append waits, it is committed at once. Reads have connections of their own.
//!
//! Deliberately absent: a wait that makes batches larger, an in-memory database, a second writer.

mod health;
mod read;
mod schema;
mod state;
#[cfg(test)]
mod tests;
mod upkeep;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use amends_engine::{
    Digest, PluginName, Position, SagaId, SagaStatus, StateQuery, Timestamp, Version,
};
use amends_failpoint::failpoint;
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use rusqlite::{Connection, ErrorCode, InterruptHandle};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::types::{
    Append, AppendReply, Appended, BLOB_BYTES_MAX, BlobKind, BlobRow, Durability, LiveSaga,
    SagaQuery, SagaRow, StoreHealth, StoreStats, StoredEvent, Stream,
};
use crate::{Store, StoreError};

use health::Health;
pub use schema::{LOCK_SUFFIX, SCHEMA_VERSION};
use state::StateCache;
use upkeep::{Limits, Upkeep};
use write::{Books, Job, Writer};

/// What [`Store::append`] and [`Store::put_blob`] have handed in and is not written yet, in places
/// of [`PLACE_BYTES`]: past it callers wait before they hand theirs in, so that a disk that stalls
/// costs at most 64 MiB of memory. [`Store::append_then`] has no part in it: see there.
pub const APPENDS_WAITING_MAX: usize = 4_096;

/// A place of the queue: an append takes one, and one more for every so many bytes.
const PLACE_BYTES: usize = 16 << 10;

/// Places that one append or blob takes at most: a larger one must not wait for an empty queue.
const PLACES_OF_ONE_MAX: usize = APPENDS_WAITING_MAX / 4;

/// Read connections at once: reads are short, and more would only share two cores.
const READERS_MAX: u32 = 4;

/// A store in one SQLite file.
///
/// Dropped without [`Store::close`], it still writes what was handed in, and lets go of the file
/// some moments later.
pub struct SqliteStore {
    queue: Arc<Queue>,
    readers: Arc<Readers>,
    state_cache: Arc<StateCache>,
    head: watch::Receiver<Position>,
    stats: Arc<Mutex<StoreStats>>,
    health: watch::Receiver<StoreHealth>,
    /// Its sender is gone when the writer has ended and the file is let go of.
    ended: watch::Receiver<()>,
}

/// What waits for the writer.
struct Queue {
    jobs: mpsc::UnboundedSender<Job>,
    places: Arc<Semaphore>,
    is_closing: AtomicBool,
}

struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    /// Those that may not take for ever.
    running: Mutex<Vec<Running>>,
}

/// A read that is under way.
struct Running {
    number: u64,
    began: Instant,
    interrupt: InterruptHandle,
    /// It was ended for its length.
    is_ended: bool,
}

impl SqliteStore {
    /// Opens the file, makes it when there is none, and brings its schema up to date. Blocks
    /// while it does.
    ///
    /// # Errors
    /// When the file is in use, newer than this version, damaged, or cannot be written.
    pub fn open(path: &Path, durability: Durability) -> Result<Self, StoreError> {
        // To SQLite these two are databases in memory, gone at the end.
        if path.as_os_str().is_empty() || path == Path::new(":memory:") {
            return Err(StoreError::Url(format!("sqlite:{}", path.display())));
        }
        let path = schema::resolve(path)?;
        schema::refuse_other_file(&path)?;
        let lock = schema::lock(&path)?;
        let connection = schema::open(&path, durability)?;
        schema::keep_from_others(&path);
        Self::start(&path, lock, connection, Limits::default())
    }

    fn start(
        path: &Path,
        lock: File,
        connection: Connection,
        limits: Limits,
    ) -> Result<Self, StoreError> {
        let (fence, position) = schema::take_over(&connection, path)?;
        failpoint("store.opened");
        let (jobs, receiver) = mpsc::unbounded_channel();
        let (head_sender, head) = watch::channel(position);
        let (ended_sender, ended) = watch::channel(());
        let (told, health) = watch::channel(StoreHealth::Well);
        let stats = Arc::new(Mutex::new(StoreStats::default()));
        let state_cache = Arc::new(StateCache::default());
        let readers = Arc::new(Readers {
            path: path.to_owned(),
            idle: Mutex::new(Vec::new()),
            permits: Arc::new(Semaphore::new(READERS_MAX as usize)),
            running: Mutex::new(Vec::new()),
        });
        let writer = Writer {
            connection,
            lock,
            path: path.to_owned(),
            fence,
            books: Books {
                position,
                versions_cache: HashMap::new(),
                state_bytes: HashMap::new(),
                state_cache: Arc::clone(&state_cache),
            },
            head: head_sender,
            stats: Arc::clone(&stats),
            health: Health::new(told.clone()),
            upkeep: Upkeep::new(limits, Arc::clone(&readers)),
        };
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let failed = |error| StoreError::Database(format!("no thread for the writer: {error}"));
        thread("amends-store-writer")
            .spawn(move || {
                // Dropped after the writer, also when it panics.
                let _ended = ended_sender;
                let run = AssertUnwindSafe(move || writer.run(receiver));
                if catch_unwind(run).is_err() {
                    health::lose(&told, &StoreError::WriterEnded);
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

    /// Runs a read on a connection of its own, off the async threads. It is ended when it takes too
    /// long ([`upkeep`]).
    fn read<T, F>(&self, query: F) -> BoxFuture<'_, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.read_for(true, query)
    }

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
                // Held to the end of the query, even when nobody waits for it any more.
                drop(permit);
                result
            });
            reading.await.unwrap_or_else(|error| Err(StoreError::Database(error.to_string())))
        }
        .boxed()
    }
}

impl Queue {
    /// Hands a job to the writer; what becomes of it is told by the job's own reply.
    fn hand_in(&self, job: Job) {
        if self.is_closing.load(Ordering::Acquire) {
            return job.fail(StoreError::Closed);
        }
        // Nobody has closed it: the writer has ended by itself.
        if let Err(mpsc::error::SendError(job)) = self.jobs.send(job) {
            job.fail(StoreError::WriterEnded);
        }
    }

    /// Hands a job in that takes places for so many bytes: at once when there are as many, else as
    /// soon as there are and the future is polled. `job` is given what holds the places.
    fn hand_in_with_place(
        self: &Arc<Self>,
        bytes: usize,
        job: impl FnOnce(OwnedSemaphorePermit) -> Job + Send + 'static,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        let count = (1 + bytes / PLACE_BYTES).min(PLACES_OF_ONE_MAX);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if let Ok(places) = Arc::clone(&self.places).try_acquire_many_owned(count) {
            self.hand_in(job(places));
            return ready(Ok(())).boxed();
        }
        let queue = Arc::clone(self);
        async move {
            let places = Arc::clone(&queue.places).acquire_many_owned(count).await;
            queue.hand_in(job(places.map_err(|_| StoreError::Closed)?));
            Ok(())
        }
        .boxed()
    }
}

impl Readers {
    fn run<T>(
        &self,
        is_limited: bool,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(&self.path)?,
        };
        let number = is_limited.then(|| self.begin(&connection));
        let result = query(&connection);
        let ended = number.and_then(|number| self.end(number));
        let result = result.map_err(|error| match (error.sqlite_error_code(), ended) {
            (Some(ErrorCode::OperationInterrupted), Some(took)) => StoreError::TooLong(took),
            _ => schema::describe(&self.path, &error),
        });
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }

    fn begin(&self, connection: &Connection) -> u64 {
        let (began, interrupt) = (Instant::now(), connection.get_interrupt_handle());
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let number = running.iter().map(|read| read.number + 1).max().unwrap_or(0);
        running.push(Running { number, began, interrupt, is_ended: false });
        number
    }

    /// From here on the connection is not interrupted. How long the read took, if it was.
    fn end(&self, number: u64) -> Option<Duration> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let at = running.iter().position(|read| read.number == number)?;
        let read = running.swap_remove(at);
        read.is_ended.then(|| read.began.elapsed())
    }

    fn end_reads_longer_than(&self, limit: Duration) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for read in running.iter_mut().filter(|read| read.began.elapsed() > limit) {
            read.is_ended = true;
            read.interrupt.interrupt();
        }
    }
}

impl Store for SqliteStore {
    fn append_then(&self, append: Append, reply: AppendReply) {
        match append.check() {
            Ok(()) => {
                self.state_cache.hand_in(&append.state);
                self.queue.hand_in(Job::append(append, reply));
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
        let handed_in = self.queue.hand_in_with_place(append.bytes(), move |place| {
            state_cache.hand_in(&append.state);
            Job::append(append, AppendReply::new(|result| drop(reply.send(result))).holding(place))
        });
        async move {
            handed_in.await?;
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
        let handed_in = self.queue.hand_in_with_place(bytes.len(), move |place| Job::PutBlob {
            kind,
            name,
            digest,
            at,
            bytes,
            reply,
            _place: place,
        });
        async move {
            handed_in.await?;
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
        // It reads all that there is.
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
            // Readers first: the connection that closes last tidies up the log.
            if let Ok(all) = self.readers.permits.acquire_many(READERS_MAX).await {
                all.forget();
                self.readers.permits.close();
            }
            self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
            // After everything that was handed in before. Fails when the writer has ended.
            let _ = self.queue.jobs.send(Job::Close);
            // Whoever waits for a place hears that it is too late.
            self.queue.places.close();
            // Nothing is ever sent: it fails when the sender is gone.
            while self.ended.clone().changed().await.is_ok() {}
            Ok(())
        }
        .boxed()
    }
}

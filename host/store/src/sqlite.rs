//! The embedded store: one SQLite file in WAL mode.
//!
//! One thread writes. Everything that waits when it looks goes into one transaction and one
//! fsync; when one append waits, it is committed at once. Reads have connections of their own.

mod read;
mod schema;
mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use amends_engine::{Digest, Position, SagaId, SagaStatus, Timestamp, Version};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rusqlite::Connection;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::types::{
    Append, Appended, BlobKind, BlobRow, Durability, SagaQuery, SagaRow, StoreStats, StoredEvent,
    Stream,
};
use crate::{LiveSaga, Store, StoreError};

pub use schema::SCHEMA_VERSION;
pub use write::APPENDS_WAITING_MAX;
use write::{Job, Writer};

/// Read connections at once: reads are short, and more would only share two cores.
const READERS_MAX: usize = 4;

/// A store in one SQLite file.
pub struct SqliteStore {
    path: PathBuf,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    readers: Arc<Readers>,
    head: watch::Receiver<Position>,
    stats: Arc<Mutex<StoreStats>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Held while the store is open, so that no other process opens it.
    lock: Mutex<Option<File>>,
}

struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl SqliteStore {
    /// Opens the file, makes it when there is none, and brings its schema up to date.
    ///
    /// # Errors
    /// When the file is in use, newer than this version, damaged, or cannot be written.
    pub fn open(path: &Path, durability: Durability) -> Result<Self, StoreError> {
        let lock = schema::lock(path)?;
        let connection = schema::open(path, durability)?;
        let position = schema::last_position(&connection, path)?;
        let fence = schema::take_fence(&connection, path)?;
        let (jobs, receiver) = mpsc::channel(APPENDS_WAITING_MAX);
        let (head_sender, head) = watch::channel(position);
        let stats = Arc::new(Mutex::new(StoreStats::default()));
        let writer = Writer::new(connection, position, fence, head_sender, Arc::clone(&stats));
        let writer = std::thread::Builder::new()
            .name("amends-store-writer".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|error| StoreError::Database(format!("no thread for the writer: {error}")))?;
        let readers = Readers {
            path: path.to_owned(),
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(READERS_MAX),
        };
        Ok(Self {
            path: path.to_owned(),
            jobs: Mutex::new(Some(jobs)),
            readers: Arc::new(readers),
            head,
            stats,
            writer: Mutex::new(Some(writer)),
            lock: Mutex::new(Some(lock)),
        })
    }

    fn sender(&self) -> Result<mpsc::Sender<Job>, StoreError> {
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or(StoreError::Closed)
    }

    /// Hands a job to the writer now, in the order of the calls, if there is room; else when the
    /// future is polled.
    fn submit<T: Send + 'static>(
        &self,
        job: Job,
        answer: oneshot::Receiver<Result<T, StoreError>>,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let sent = self.sender().map(|sender| (sender.try_send(job), sender));
        async move {
            match sent? {
                (Ok(()), _) => {}
                (Err(mpsc::error::TrySendError::Full(job)), sender) => {
                    sender.send(job).await.map_err(|_| StoreError::Closed)?;
                }
                (Err(mpsc::error::TrySendError::Closed(_)), _) => return Err(StoreError::Closed),
            }
            answer.await.unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }

    /// Runs a read on a connection of its own, off the async threads.
    fn read<T, F>(&self, query: F) -> BoxFuture<'_, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        async move {
            self.sender()?;
            let readers = Arc::clone(&self.readers);
            let permit = readers.permits.acquire().await.map_err(|_| StoreError::Closed)?;
            let blocking = Arc::clone(&readers);
            let result = tokio::task::spawn_blocking(move || blocking.run(query)).await;
            drop(permit);
            result.unwrap_or_else(|error| Err(StoreError::Database(error.to_string())))
        }
        .boxed()
    }
}

impl Readers {
    fn run<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(&self.path)?,
        };
        let result =
            query(&connection).map_err(|error| schema::describe(&self.path, &error));
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }
}

impl Store for SqliteStore {
    fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        let (reply, answer) = oneshot::channel();
        self.submit(Job::append(append, reply), answer)
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
        let (reply, answer) = oneshot::channel();
        self.submit(Job::PutBlob { kind, name, digest, at, bytes, reply }, answer)
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

    fn counts(&self) -> BoxFuture<'_, Result<BTreeMap<SagaStatus, u64>, StoreError>> {
        self.read(read::counts)
    }

    fn verify(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        self.read(read::verify)
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.head.clone()
    }

    fn stats(&self) -> StoreStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            // The writer ends when the last sender is gone and everything handed in is done.
            drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
            let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(writer) = writer {
                let joined = tokio::task::spawn_blocking(move || writer.join()).await;
                if !matches!(joined, Ok(Ok(()))) {
                    tracing::error!(path = %self.path.display(), "the store's writer panicked");
                }
            }
            self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
            Ok(())
        }
        .boxed()
    }
}

//! The files of an archive in a bucket, each an object.
//!
//! Requests run on a thread of their own, so callers may be any thread that may block. Each request has a
//! deadline, retries included. An error is a short text: what a server answers is never repeated as a
//! whole.
//!
//! Deliberately absent: credentials. The environment or the machine's role has them, and they are read
//! by the client alone.

use std::collections::BTreeSet;
use std::fs::File;
use std::future::Future;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, ClientConfigKey, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _,
    PutMode, PutOptions, PutPayload, RetryConfig,
};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::refusal::{refused, short, unreachable};
use crate::archive_place::BucketPlace;
use crate::segment::{SEGMENT_SUFFIX, SegmentError, SegmentSource, damaged};

/// How long one saga may take to be read, with all its requests: somebody waits for it.
const SAGA_TIME_MAX: Duration = Duration::from_secs(20);

/// How long a request for a part of a file may take when the whole file is read, and one that removes a
/// file.
const PART_TIME_MAX: Duration = Duration::from_mins(1);

/// How long a file may take to be written: 50 MB at 4 MBit/s.
const WRITE_TIME_MAX: Duration = Duration::from_mins(2);

/// How long the list of all files may take.
const LIST_TIME_MAX: Duration = Duration::from_mins(1);

/// How long a connection may take, and how long a server may send nothing.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// How long reads of sagas fail at once after one that could not reach the object store: many callers may ask
/// for many sagas, and each would wait as long as the first.
const DOWN_PAUSE: Duration = Duration::from_secs(3);

/// How often a request is repeated, and the first and the last pause.
const RETRIES_MAX: usize = 2;
const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// The bytes of a part when a whole file is read, and of a piece of a file that is written.
const PART_BYTES: u64 = 8 << 20;

/// The unknown files that are listed at once. A pass removes those that it may, and the next pass sees
/// the rest.
const LISTED_MAX: usize = 5_000;

/// A part of a bucket.
pub(super) struct Bucket {
    place: BucketPlace,
    store: Arc<AmazonS3>,
    thread: Arc<Thread>,
}

/// The thread of requests.
struct Thread {
    /// Taken when it is dropped.
    runtime: Option<Runtime>,
    is_closed: watch::Sender<bool>,
    /// Until when reads of sagas fail at once, and why.
    down: Mutex<Option<(Instant, String)>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting is not permitted on an async thread, where this may be.
            runtime.shutdown_background();
        }
    }
}

impl Thread {
    fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("amends-archive")
            .enable_all()
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
            is_closed: watch::channel(false).0,
            down: Mutex::default(),
        })
    }

    /// Runs requests until they are done, or until a time.
    fn run<T: Send + 'static>(
        &self,
        until: Instant,
        requests: impl Future<Output = Result<T, SegmentError>> + Send + 'static,
    ) -> Result<T, SegmentError> {
        let Some(runtime) = &self.runtime else { return Err(unreachable("the host is stopping")) };
        let mut is_closed = self.is_closed.subscribe();
        let limit = until.saturating_duration_since(Instant::now());
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        drop(runtime.spawn(async move {
            let result = tokio::select! {
                result = tokio::time::timeout(limit, requests) => result.unwrap_or_else(|_| {
                    Err(unreachable("it did not answer in time"))
                }),
                _ = is_closed.wait_for(|is_closed| *is_closed) => {
                    Err(unreachable("the host is stopping"))
                }
            };
            let _ = sender.send(result);
        }));
        answer.recv().unwrap_or_else(|_| Err(unreachable("the request has ended unexpectedly")))
    }
}

impl Bucket {
    /// Reads the settings from the environment.
    ///
    /// # Errors
    /// A sentence about what cannot be used.
    pub(super) fn open(place: BucketPlace) -> Result<Self, String> {
        let options = [
            (ClientConfigKey::ConnectTimeout, CONNECT_TIME_MAX),
            (ClientConfigKey::ReadTimeout, SILENCE_MAX),
            (ClientConfigKey::Timeout, WRITE_TIME_MAX),
        ];
        let [init_backoff, max_backoff] = RETRY_PAUSES;
        let mut builder =
            AmazonS3Builder::from_env().with_bucket_name(place.name()).with_retry(RetryConfig {
                backoff: BackoffConfig { init_backoff, max_backoff, base: 2.0 },
                max_retries: RETRIES_MAX,
                retry_timeout: WRITE_TIME_MAX,
            });
        for (key, limit) in options {
            let limit = format!("{}s", limit.as_secs());
            builder = builder.with_config(AmazonS3ConfigKey::Client(key), limit);
        }
        // Nobody listens on the way to this machine.
        let endpoint = builder
            .get_config_value(&AmazonS3ConfigKey::S3Endpoint)
            .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
        if endpoint.is_some_and(|endpoint| is_loopback(&endpoint)) {
            builder = builder.with_allow_http(true);
        }
        // The TLS of its client, which panics when there is none. A process sets it once.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = builder.build().map_err(|error| short(&error))?;
        let thread = Thread::start().map_err(|error| error.to_string())?;
        Ok(Self { place, store: Arc::new(store), thread: Arc::new(thread) })
    }

    fn key(&self, file: &str) -> Key {
        Key::from(format!("{}/{file}", self.place.prefix()))
    }

    /// Writes a file, unless there is one with its name. The name has a hash of the content, so that one
    /// is the same or will be found to differ.
    pub(super) fn put(&self, file: &str, draft: &Path) -> Result<(), SegmentError> {
        let mut pieces = Vec::new();
        let mut draft = File::open(draft)?;
        loop {
            let mut piece = Vec::new();
            let read = draft.by_ref().take(PART_BYTES).read_to_end(&mut piece)?;
            if read == 0 {
                break;
            }
            pieces.push(bytes::Bytes::from(piece));
        }
        let payload = PutPayload::from_iter(pieces);
        let (store, key) = (Arc::clone(&self.store), self.key(file));
        self.thread.run(Instant::now() + WRITE_TIME_MAX, async move {
            let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match store.put_opts(&key, payload.clone(), create).await {
                Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
                // The operator has switched conditions off, because the server knows none.
                Err(object_store::Error::NotImplemented { .. }) => {
                    store.put(&key, payload).await.map(drop).map_err(|error| refused(&error))
                }
                Err(error) => Err(unreachable(short(&error))),
            }
        })
    }

    /// Returns a reader that asks for what it is asked for.
    pub(super) fn reader(&self, file: &str) -> Object {
        self.object(file, 0, Some(Instant::now() + SAGA_TIME_MAX))
    }

    /// Returns a reader that reads ahead.
    pub(super) fn reader_of_all(&self, file: &str) -> Object {
        self.object(file, PART_BYTES, None)
    }

    fn object(&self, file: &str, ahead: u64, until: Option<Instant>) -> Object {
        Object {
            store: Arc::clone(&self.store),
            thread: Arc::clone(&self.thread),
            key: self.key(file),
            ahead,
            until,
            bytes: 0,
            held: (0, Vec::new()),
        }
    }

    /// Returns the BLAKE3 hash of a file. One part of it is in memory at a time.
    pub(super) fn hash(&self, file: &str) -> Result<[u8; 32], SegmentError> {
        let mut object = self.reader_of_all(file);
        let (bytes, _) = object.end(1)?;
        let mut hasher = blake3::Hasher::new();
        let mut offset = 0;
        while offset < bytes {
            let length = (bytes - offset).min(PART_BYTES);
            hasher.update(&object.part(offset, length)?);
            offset += length;
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Returns the names of the files that are not `known`, at most [`LISTED_MAX`].
    pub(super) fn unknown(&self, known: BTreeSet<String>) -> Result<Vec<String>, SegmentError> {
        let (store, prefix) = (Arc::clone(&self.store), Key::from(self.place.prefix()));
        let parts = prefix.parts_count();
        self.thread.run(Instant::now() + LIST_TIME_MAX, async move {
            let (mut found, mut objects) = (Vec::new(), store.list(Some(&prefix)));
            // What is no file of an archive is passed over, however much of it there is.
            while found.len() < LISTED_MAX
                && let Some(object) = objects.try_next().await.map_err(|error| refused(&error))?
            {
                let is_within = object.location.parts_count() == parts + 1;
                found.extend(
                    object
                        .location
                        .filename()
                        .filter(|name| is_within && is_unknown(&known, name))
                        .map(str::to_owned),
                );
            }
            Ok(found)
        })
    }

    /// Removes a file. One that is not there is removed.
    pub(super) fn remove(&self, file: &str) -> Result<(), SegmentError> {
        let (store, key) = (Arc::clone(&self.store), self.key(file));
        self.thread.run(Instant::now() + PART_TIME_MAX, async move {
            match store.delete(&key).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(refused(&error)),
            }
        })
    }

    /// Ends what is under way, and refuses later requests.
    pub(super) fn close(&self) {
        let _ = self.thread.is_closed.send_replace(true);
    }
}

/// An object that is read in parts.
pub(super) struct Object {
    store: Arc<AmazonS3>,
    thread: Arc<Thread>,
    key: Key,
    /// How much is read at once at least.
    ahead: u64,
    /// When all requests have to be done; none when each has a time of its own.
    until: Option<Instant>,
    /// The size, which [`SegmentSource::end`] reads.
    bytes: u64,
    /// The part that was read last, and its place.
    held: (u64, Vec<u8>),
}

impl SegmentSource for Object {
    fn end(&mut self, bytes: usize) -> Result<(u64, Vec<u8>), SegmentError> {
        let asked = bytes as u64;
        let (size, content) = self.get(GetRange::Suffix(asked), asked)?;
        self.bytes = size;
        if content.len() as u64 != asked.min(size) {
            return Err(unreachable("it sent another part than was asked for"));
        }
        Ok((size, content))
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), SegmentError> {
        let (at, held) = &self.held;
        let begin = offset.checked_sub(*at).and_then(|begin| usize::try_from(begin).ok());
        let found = begin.and_then(|begin| held.get(begin..)?.get(..buffer.len()));
        if let Some(found) = found {
            buffer.copy_from_slice(found);
            return Ok(());
        }
        self.held = (0, Vec::new());
        let left = self.bytes.saturating_sub(offset);
        let content = self.part(offset, (buffer.len() as u64).max(self.ahead).min(left))?;
        let Some(found) = content.get(..buffer.len()) else {
            return Err(damaged("the file is cut off"));
        };
        buffer.copy_from_slice(found);
        if self.ahead > 0 {
            self.held = (offset, content);
        }
        Ok(())
    }
}

impl Object {
    /// Reads a part.
    fn part(&self, offset: u64, length: u64) -> Result<Vec<u8>, SegmentError> {
        if length == 0 {
            return Ok(Vec::new());
        }
        let (_, content) = self.get(GetRange::Bounded(offset..offset + length), length)?;
        if content.len() as u64 != length {
            return Err(unreachable("it sent another part than was asked for"));
        }
        Ok(content)
    }

    /// Reads a range of at most so many bytes. Returns the size of the object as well.
    fn get(&self, range: GetRange, bytes_max: u64) -> Result<(u64, Vec<u8>), SegmentError> {
        if self.until.is_some()
            && let Some((until, what)) = self.down().clone()
            && Instant::now() < until
        {
            return Err(unreachable(what));
        }
        let (store, key) = (Arc::clone(&self.store), self.key.clone());
        let until = self.until.unwrap_or_else(|| Instant::now() + PART_TIME_MAX);
        let found = self.thread.run(until, async move {
            let options = GetOptions { range: Some(range), ..GetOptions::default() };
            let found = store.get_opts(&key, options).await.map_err(|error| refused(&error))?;
            let (size, mut content) = (found.meta.size, Vec::new());
            let mut pieces = found.into_stream();
            while let Some(piece) = pieces.try_next().await.map_err(|error| refused(&error))? {
                // What a server sends beyond that is not kept.
                if (content.len() + piece.len()) as u64 > bytes_max {
                    return Err(unreachable("it sent more than was asked for"));
                }
                content.extend_from_slice(&piece);
            }
            Ok((size, content))
        });
        *self.down() = match &found {
            Err(SegmentError::Unreachable(what)) => {
                Some((Instant::now() + DOWN_PAUSE, what.clone()))
            }
            Ok(_) | Err(SegmentError::File(_) | SegmentError::Damaged(_)) => None,
        };
        found
    }

    fn down(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.thread.down.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns true when an endpoint is an address of this machine, without TLS.
fn is_loopback(endpoint: &str) -> bool {
    let Some(rest) = endpoint.strip_prefix("http://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    if let Ok(address) = authority.parse::<std::net::SocketAddr>() {
        return address.ip().is_loopback();
    }
    let host = authority.split_once(':').map_or(authority, |(host, _)| host);
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns true when a name is that of a file of an archive that is not known.
pub(super) fn is_unknown(known: &BTreeSet<String>, name: &str) -> bool {
    name.ends_with(SEGMENT_SUFFIX) && !known.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_reached_without_tls() {
        for endpoint in
            ["http://127.0.0.1:8333", "http://localhost/x", "http://[::1]:80", "http://127.9.9.9"]
        {
            assert!(is_loopback(endpoint), "{endpoint}");
        }
        for endpoint in [
            "https://127.0.0.1",
            "http://127.0.0.1.example.org",
            "http://127.0.0.1@example.org",
            "http://localhost@example.org:80",
            "http://10.0.0.1:8333",
            "127.0.0.1:80",
        ] {
            assert!(!is_loopback(endpoint), "{endpoint}");
        }
    }
}

//! The event store of Amends: append-only streams of events with a global order, and what is
//! derived from them in the same transaction.
//!
//! [`Store`] is the trait; [`open`] makes the one that a URL names. Every implementation passes
//! the same suite (`conformance`, behind the feature of that name).
//!
//! # What an append promises
//! All of it or nothing: events, the projection's row, the start key and what plugins change of
//! their state are one transaction. It
//! is durable before its future resolves. It fails with [`StoreError::Conflict`] when the stream
//! is not at the expected version, so of two writers one wins.
//!
//! Deliberately absent: any meaning of an event (its data is JSON text), updates and deletes.

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod sqlite;
mod types;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use amends_engine::{
    Digest, PluginName, Position, SagaId, SagaStatus, StateQuery, Timestamp, Version,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{oneshot, watch};

pub use error::StoreError;
pub use sqlite::{APPENDS_WAITING_MAX, LOCK_SUFFIX, SCHEMA_VERSION, SqliteStore};
pub use types::{
    APPEND_BYTES_MAX, Append, AppendReply, Appended, BLOB_BYTES_MAX, BlobKind, BlobRow, DiskRoom,
    Durability, EVENT_BYTES_MAX, EVENT_UNREADABLE, EVENTS_PAGE_BYTES_MAX, IdPart,
    LIVE_PAGE_BYTES_MAX, LiveSaga, NewEvent, SagaQuery, SagaRow, StartKey, StoreConfig,
    StoreHealth, StoreStats, StoredEvent, Stream,
};

/// An append-only event store.
///
/// Every future may be dropped at any time: a read is then given up, a write goes on. They run
/// inside a tokio runtime.
pub trait Store: Send + Sync + 'static {
    /// Appends, and tells when it is durable. It is handed in by the call; to one stream, one after
    /// the other is made when the one before was answered.
    ///
    /// What waits is kept in memory, however much it is: whoever calls bounds how many appends, and
    /// how many bytes, of his are under way. Others use [`Self::append`].
    ///
    /// What is told is [`StoreError::Conflict`] when the stream is not at the expected version.
    /// Whatever the error, nothing of the append is there, and no other append fails with it,
    /// unless the database failed.
    fn append_then(&self, append: Append, reply: AppendReply);

    /// Appends; resolves when it is durable. It is handed in by the call, not by the first poll;
    /// dropping the future does not undo it. Exception: where the store keeps as much as it may
    /// ([`APPENDS_WAITING_MAX`]), the future waits, and hands it in when there is room.
    ///
    /// # Errors
    /// As for [`Self::append_then`].
    fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        let (reply, answer) = oneshot::channel();
        self.append_then(append, AppendReply::new(|result| drop(reply.send(result))));
        async move { answer.await.unwrap_or(Err(StoreError::Closed)) }.boxed()
    }

    /// Up to `limit` events of a stream after a version, in order: the version of each is greater than
    /// that of the one before. An append that cannot be read is one event of the type
    /// [`EVENT_UNREADABLE`]; where its version cannot be read either, that is the one after the append
    /// before it.
    ///
    /// A page ends early where it would hold more than [`EVENTS_PAGE_BYTES_MAX`]; it is empty only
    /// when there are no more. The next one is that after its last event.
    fn events(
        &self,
        stream: Stream,
        after: Version,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<StoredEvent>, StoreError>>;

    /// Up to `limit` events of the whole store after a position, in order. Its pages end as those of
    /// [`Self::events`] do, and so it is with what cannot be read.
    fn log(
        &self,
        after: Position,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<StoredEvent>, StoreError>>;

    /// A saga's row.
    fn saga(&self, id: SagaId) -> BoxFuture<'_, Result<Option<SagaRow>, StoreError>>;

    /// Sagas that match, the newest first. One whose row cannot be read is left out, and logged
    /// as an error.
    fn list(&self, query: SagaQuery) -> BoxFuture<'_, Result<Vec<SagaRow>, StoreError>>;

    /// Up to `limit` sagas that have not ended, by id after `after`, with all their events, as
    /// they were at one moment. One that cannot be read does not fail the others.
    ///
    /// A page ends early, with the saga that reaches [`LIVE_PAGE_BYTES_MAX`]; it is empty only
    /// when there are no more. The next one is that after its last id.
    fn live(
        &self,
        after: Option<SagaId>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<LiveSaga>, StoreError>>;

    /// The saga that a key started, and the digest of what it was started with.
    fn key(&self, key: String) -> BoxFuture<'_, Result<Option<(SagaId, Digest)>, StoreError>>;

    /// Keeps bytes under their digest; does nothing when they are there. The digest is taken on
    /// trust.
    fn put_blob(
        &self,
        kind: BlobKind,
        name: String,
        digest: Digest,
        at: Timestamp,
        bytes: Vec<u8>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The bytes of a digest.
    fn blob(
        &self,
        kind: BlobKind,
        digest: Digest,
    ) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>>;

    /// What is kept of a kind, the oldest first.
    fn blobs(&self, kind: BlobKind) -> BoxFuture<'_, Result<Vec<BlobRow>, StoreError>>;

    /// The value of a key of a plugin's state, a JSON text; none when it is not there. It may be
    /// one that was handed in and is not durable yet, or that was refused meanwhile: an append
    /// with a [`StateChange`] that saw it tells.
    fn state(
        &self,
        plugin: PluginName,
        key: String,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>>;

    /// Keys of a plugin's state, in the order of their bytes; of what is durable.
    fn state_keys(
        &self,
        plugin: PluginName,
        query: StateQuery,
    ) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;

    /// How many sagas have each status.
    fn counts(&self) -> BoxFuture<'_, Result<BTreeMap<SagaStatus, u64>, StoreError>>;

    /// Reads everything and compares it with itself; each finding is a sentence.
    fn verify(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;

    /// The last durable position, as it moves; it has moved before an append is answered.
    fn head(&self) -> watch::Receiver<Position>;

    /// Whether it takes writes, as that changes. It says [`StoreHealth::NoWrites`] before the first
    /// append that failed for that is answered, and [`StoreHealth::Well`] once writes have worked
    /// again for a moment: whoever could not append waits for that and need not try.
    fn health(&self) -> watch::Receiver<StoreHealth>;

    /// Counts since the store was opened.
    fn stats(&self) -> StoreStats;

    /// Waits for what was handed in, and closes. Later calls fail with [`StoreError::Closed`].
    /// Once it has answered, the store can be opened again; a second call waits for the same.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// Opens the store that a config names; makes it when there is none. Blocks while it does.
///
/// # Errors
/// When the URL is not understood, or the store cannot be used; it is never made anew over
/// something that is there.
pub fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    if config.url.starts_with("postgres:") || config.url.starts_with("postgresql:") {
        return Err(StoreError::NoPostgres);
    }
    let Some(path) = config.url.strip_prefix("sqlite:") else {
        return Err(StoreError::Url(config.url.clone()));
    };
    let store = SqliteStore::open(Path::new(path), config.durability)?;
    Ok(Arc::new(store))
}

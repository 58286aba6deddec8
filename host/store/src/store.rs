//! The trait that every event store implements.

use std::collections::BTreeMap;
use std::sync::Arc;

use amends_engine::{
    Digest, PluginName, Position, SagaId, SagaStatus, StateQuery, Timestamp, Version,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{oneshot, watch};

use crate::append::{Append, AppendReply, Appended};
use crate::blob::{BlobKind, BlobRow};
use crate::error::StoreError;
use crate::health::{StoreHealth, StoreStats};
use crate::saga_query::SagaQuery;
use crate::saga_row::{LiveSaga, SagaRow};
use crate::stored_event::StoredEvent;
use crate::stream::Stream;

/// An append-only event store.
///
/// Every future may be dropped at any time: a dropped read is cancelled, a dropped write still
/// happens. The futures run inside a tokio runtime.
pub trait Store: Send + Sync + 'static {
    /// Queues an append, and calls `reply` once it is durable or has failed. Callers make the next
    /// append to a stream only after the one before was answered.
    ///
    /// The queue has no limit here: the caller bounds how many appends and bytes it has under way.
    /// Callers without such a bound use [`Self::append`].
    ///
    /// The reply is [`StoreError::Conflict`] when the stream is not at the expected version. After
    /// any error, nothing of the append is stored. Other appends do not fail with it, unless the
    /// database itself failed.
    fn append_then(&self, append: Append, reply: AppendReply);

    /// Appends, and resolves when the append is durable. The call itself queues the append, not the
    /// first poll; dropping the future does not cancel it. Exception: when the queue is full
    /// ([`crate::APPENDS_WAITING_MAX`]), the future waits for room and queues the append then.
    ///
    /// # Errors
    /// As for [`Self::append_then`].
    fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        let (reply, answer) = oneshot::channel();
        self.append_then(append, AppendReply::new(|result| drop(reply.send(result))));
        async move { answer.await.unwrap_or(Err(StoreError::Closed)) }.boxed()
    }

    /// Returns up to `limit` events of a stream after a version, by ascending version.
    ///
    /// An append that cannot be read appears as one event of the type [`crate::EVENT_UNREADABLE`].
    /// If its version cannot be read either, the event has the version after the append before it.
    ///
    /// A page ends early where it would hold more than [`crate::EVENTS_PAGE_BYTES_MAX`]. It is
    /// empty only when there are no more events. The next page starts after the last event of this
    /// one.
    fn events(
        &self,
        stream: Stream,
        after: Version,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<StoredEvent>, StoreError>>;

    /// Returns up to `limit` events of the whole store after a position, by ascending position.
    /// Pages and unreadable appends are as in [`Self::events`].
    fn log(
        &self,
        after: Position,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<StoredEvent>, StoreError>>;

    /// Returns a saga's row.
    fn saga(&self, id: SagaId) -> BoxFuture<'_, Result<Option<SagaRow>, StoreError>>;

    /// Returns the sagas that match, the newest first. A saga whose row cannot be read is left out
    /// and logged as an error.
    fn list(&self, query: SagaQuery) -> BoxFuture<'_, Result<Vec<SagaRow>, StoreError>>;

    /// Returns up to `limit` sagas that have not ended, by ascending id after `after`, each with
    /// all its events. Rows and events are of one snapshot. A saga that cannot be read does not
    /// fail the others.
    ///
    /// A page ends early with the saga that reaches [`crate::LIVE_PAGE_BYTES_MAX`]. It is empty
    /// only when there are no more sagas. The next page starts after the last id of this one.
    fn live(
        &self,
        after: Option<SagaId>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<LiveSaga>, StoreError>>;

    /// Returns the saga that a key started, and the digest of the payload it was started with.
    fn key(&self, key: String) -> BoxFuture<'_, Result<Option<(SagaId, Digest)>, StoreError>>;

    /// Stores bytes under their digest, unless they are stored already. The store trusts the digest
    /// and does not compute it.
    fn put_blob(
        &self,
        kind: BlobKind,
        name: String,
        digest: Digest,
        at: Timestamp,
        bytes: Vec<u8>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Returns the bytes that are stored under a digest.
    fn blob(
        &self,
        kind: BlobKind,
        digest: Digest,
    ) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>>;

    /// Returns the blobs of a kind without their bytes, the oldest first.
    fn blobs(&self, kind: BlobKind) -> BoxFuture<'_, Result<Vec<BlobRow>, StoreError>>;

    /// Returns the value of a key of a plugin's state as JSON text, or none when there is no such
    /// key. The value may come from an append that is not durable yet or that fails later. An
    /// append whose [`crate::StateChange`] saw such a value is then refused.
    fn state(
        &self,
        plugin: PluginName,
        key: String,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>>;

    /// Returns keys of a plugin's state in the order of their bytes. Only durable keys count.
    fn state_keys(
        &self,
        plugin: PluginName,
        query: StateQuery,
    ) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;

    /// Returns how many sagas have each status.
    fn counts(&self) -> BoxFuture<'_, Result<BTreeMap<SagaStatus, u64>, StoreError>>;

    /// Reads the whole store and checks that it is consistent. Each finding is a sentence.
    fn verify(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;

    /// Returns a watch of the last durable position. It moves before an append is answered.
    fn head(&self) -> watch::Receiver<Position>;

    /// Returns a watch that says whether the store takes writes. It changes to
    /// [`StoreHealth::NoWrites`] before the first failed append is answered. It changes back to
    /// [`StoreHealth::Well`] once writes have worked again for a moment, so a caller whose append
    /// failed waits for that instead of trying again and again.
    fn health(&self) -> watch::Receiver<StoreHealth>;

    /// Returns counts since the store was opened.
    fn stats(&self) -> StoreStats;

    /// Writes what was queued before, then closes the store. Later calls fail with
    /// [`StoreError::Closed`]. Once the future has resolved, the store can be opened again. A
    /// second call waits for the same end.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

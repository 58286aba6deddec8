//! A store in which a test has a hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use amends_engine::{
    Digest, PluginName, Position, SagaId, SagaStatus, StateQuery, Timestamp, Version,
};
use amends_store::{
    Append, AppendReply, BlobKind, BlobRow, LiveSaga, SagaQuery, SagaRow, Store, StoreError,
    StoreHealth, StoreStats, StoredEvent, Stream,
};
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use tokio::sync::watch;

/// What becomes of an append: the hook hands it on, or not.
pub(crate) type Hook = dyn Fn(&Arc<dyn Store>, Append, AppendReply) + Send + Sync;

/// What a list of keys of state waits for, or why there is none.
pub(crate) type ListHook = dyn Fn() -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync;

/// What the bytes of a digest wait for, or why there are none.
pub(crate) type BlobHook =
    dyn Fn(Digest) -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync;

/// What is told of the events of a stream that were read.
pub(crate) type EventsHook = dyn Fn(Vec<StoredEvent>) -> Vec<StoredEvent> + Send + Sync;

/// The rest is the store's.
pub(crate) struct Hooked {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hook: Box<Hook>,
    /// How often events of a stream were read.
    pub(crate) reads: Arc<AtomicUsize>,
    pub(crate) told_events: Box<EventsHook>,
    /// Before keys of state are listed.
    pub(crate) before_list: Box<ListHook>,
    /// Before bytes are read.
    pub(crate) before_blob: Box<BlobHook>,
}

impl Hooked {
    /// Appends go as the hook has them.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        hook: impl Fn(&Arc<dyn Store>, Append, AppendReply) + Send + Sync + 'static,
    ) -> Self {
        Self {
            store,
            hook: Box::new(hook),
            reads: Arc::default(),
            told_events: Box::new(|events| events),
            before_list: Box::new(|| ready(Ok(())).boxed()),
            before_blob: Box::new(|_| ready(Ok(())).boxed()),
        }
    }
}

impl Store for Hooked {
    fn append_then(&self, append: Append, reply: AppendReply) {
        (self.hook)(&self.store, append, reply);
    }

    fn events(
        &self,
        stream: Stream,
        after: Version,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<StoredEvent>, StoreError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let events = self.store.events(stream, after, limit);
        async move { events.await.map(&self.told_events) }.boxed()
    }

    fn log(
        &self,
        after: Position,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<StoredEvent>, StoreError>> {
        self.store.log(after, limit)
    }

    fn saga(&self, id: SagaId) -> BoxFuture<'_, Result<Option<SagaRow>, StoreError>> {
        self.store.saga(id)
    }

    fn list(&self, query: SagaQuery) -> BoxFuture<'_, Result<Vec<SagaRow>, StoreError>> {
        self.store.list(query)
    }

    fn live(
        &self,
        after: Option<SagaId>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<LiveSaga>, StoreError>> {
        self.store.live(after, limit)
    }

    fn key(&self, key: String) -> BoxFuture<'_, Result<Option<(SagaId, Digest)>, StoreError>> {
        self.store.key(key)
    }

    fn put_blob(
        &self,
        kind: BlobKind,
        name: String,
        digest: Digest,
        at: Timestamp,
        bytes: Vec<u8>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.put_blob(kind, name, digest, at, bytes)
    }

    fn blob(
        &self,
        kind: BlobKind,
        digest: Digest,
    ) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        let before = (self.before_blob)(digest);
        async move {
            before.await?;
            self.store.blob(kind, digest).await
        }
        .boxed()
    }

    fn blobs(&self, kind: BlobKind) -> BoxFuture<'_, Result<Vec<BlobRow>, StoreError>> {
        self.store.blobs(kind)
    }

    fn state(
        &self,
        plugin: PluginName,
        key: String,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>> {
        self.store.state(plugin, key)
    }

    fn state_keys(
        &self,
        plugin: PluginName,
        query: StateQuery,
    ) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        let before = (self.before_list)();
        async move {
            before.await?;
            self.store.state_keys(plugin, query).await
        }
        .boxed()
    }

    fn counts(&self) -> BoxFuture<'_, Result<BTreeMap<SagaStatus, u64>, StoreError>> {
        self.store.counts()
    }

    fn verify(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        self.store.verify()
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.store.head()
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.store.health()
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.close()
    }
}

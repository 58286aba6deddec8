//! A store in which a test has a hand.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use amends_engine::{Digest, PluginName, StateQuery, Timestamp, Version};
use amends_store::{
    Append, AppendReply, Appended, BlobKind, BlobRow, Blobs, Cursor, Epoch, EventLog, LogPage,
    Maintenance, Ownership, OwnershipEvent, PageBudget, PluginState, SagaIndex, Shard, ShardId,
    Store, StoreError, StoredEvent, Stream,
};
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use tokio::sync::{oneshot, watch};

/// Where an append would go without the hook.
#[derive(Clone)]
pub(crate) enum Next {
    /// To a saga of this shard.
    Shard(Arc<dyn Shard>),
    /// To a stream that all hosts share.
    Shared(Arc<dyn Store>),
}

impl Next {
    /// Hands an append on.
    pub(crate) fn append_then(&self, append: Append, reply: AppendReply) {
        match self {
            Self::Shard(shard) => shard.append_then(append, reply),
            Self::Shared(store) => {
                let appended = store.log().append_shared(append);
                tokio::spawn(async move { reply.send(appended.await) });
            }
        }
    }

    /// Hands an append on, and waits for what comes of it.
    pub(crate) async fn append(&self, append: Append) -> Result<Appended, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.append_then(append, AppendReply::new(|result| drop(reply.send(result))));
        answer.await.unwrap()
    }
}

/// What becomes of an append: the hook hands it on, or not.
pub(crate) type Hook = dyn Fn(&Next, Append, AppendReply) + Send + Sync;

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
    pub(crate) hook: Arc<Hook>,
    /// How often events of a stream were read.
    pub(crate) reads: Arc<AtomicUsize>,
    pub(crate) told_events: Box<EventsHook>,
    /// Before keys of state are listed.
    pub(crate) before_list: Box<ListHook>,
    /// Before bytes are read.
    pub(crate) before_blob: Box<BlobHook>,
    /// Whether this handle takes a shard: of two hosts of one store, each has its own.
    pub(crate) owns: fn(ShardId) -> bool,
}

impl Hooked {
    /// Appends go as the hook has them.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        hook: impl Fn(&Next, Append, AppendReply) + Send + Sync + 'static,
    ) -> Self {
        Self {
            store,
            hook: Arc::new(hook),
            reads: Arc::default(),
            told_events: Box::new(|events| events),
            before_list: Box::new(|| ready(Ok(())).boxed()),
            before_blob: Box::new(|_| ready(Ok(())).boxed()),
            owns: |_| true,
        }
    }
}

impl Store for Hooked {
    fn ownership(&self) -> &dyn Ownership {
        self
    }

    fn log(&self) -> &dyn EventLog {
        self
    }

    fn sagas(&self) -> &dyn SagaIndex {
        self.store.sagas()
    }

    fn state(&self) -> &dyn PluginState {
        self
    }

    fn blobs(&self) -> &dyn Blobs {
        self
    }

    fn maintenance(&self) -> &dyn Maintenance {
        self.store.maintenance()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.close()
    }
}

impl Ownership for Hooked {
    fn tick(&self) -> BoxFuture<'_, Result<Vec<OwnershipEvent>, StoreError>> {
        async {
            let events = self.store.ownership().tick().await?;
            let hooked = |event| match event {
                OwnershipEvent::Gained(shard) if !(self.owns)(shard.id()) => None,
                OwnershipEvent::Gained(shard) => {
                    let (shard, hook) = (Arc::from(shard), Arc::clone(&self.hook));
                    Some(OwnershipEvent::Gained(Box::new(HookedShard { shard, hook })))
                }
                lost @ OwnershipEvent::Lost(_) => Some(lost),
            };
            Ok(events.into_iter().filter_map(hooked).collect())
        }
        .boxed()
    }
}

struct HookedShard {
    shard: Arc<dyn Shard>,
    hook: Arc<Hook>,
}

impl fmt::Debug for HookedShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shard.fmt(f)
    }
}

impl Shard for HookedShard {
    fn id(&self) -> ShardId {
        self.shard.id()
    }

    fn epoch(&self) -> Epoch {
        self.shard.epoch()
    }

    fn append_then(&self, append: Append, reply: AppendReply) {
        (self.hook)(&Next::Shard(Arc::clone(&self.shard)), append, reply);
    }
}

impl EventLog for Hooked {
    fn stream(
        &self,
        stream: Stream,
        after: Version,
        budget: PageBudget,
    ) -> BoxFuture<'_, Result<Vec<StoredEvent>, StoreError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let events = self.store.log().stream(stream, after, budget);
        async move { events.await.map(&self.told_events) }.boxed()
    }

    fn follow(
        &self,
        from: Cursor,
        budget: PageBudget,
    ) -> BoxFuture<'_, Result<LogPage, StoreError>> {
        self.store.log().follow(from, budget)
    }

    fn head(&self) -> watch::Receiver<Cursor> {
        self.store.log().head()
    }

    fn append_shared(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        let (reply, answer) = oneshot::channel();
        let reply = AppendReply::new(|result| drop(reply.send(result)));
        (self.hook)(&Next::Shared(Arc::clone(&self.store)), append, reply);
        async move { answer.await.unwrap() }.boxed()
    }
}

impl PluginState for Hooked {
    fn value(
        &self,
        plugin: PluginName,
        key: String,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>> {
        self.store.state().value(plugin, key)
    }

    fn keys(
        &self,
        plugin: PluginName,
        query: StateQuery,
    ) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        let before = (self.before_list)();
        async move {
            before.await?;
            self.store.state().keys(plugin, query).await
        }
        .boxed()
    }

    fn change(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        self.store.state().change(append)
    }
}

impl Blobs for Hooked {
    fn put(
        &self,
        kind: BlobKind,
        name: String,
        digest: Digest,
        at: Timestamp,
        bytes: Vec<u8>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.blobs().put(kind, name, digest, at, bytes)
    }

    fn get(
        &self,
        kind: BlobKind,
        digest: Digest,
    ) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        let before = (self.before_blob)(digest);
        async move {
            before.await?;
            self.store.blobs().get(kind, digest).await
        }
        .boxed()
    }

    fn list(&self, kind: BlobKind) -> BoxFuture<'_, Result<Vec<BlobRow>, StoreError>> {
        self.store.blobs().list(kind)
    }
}

//! A store in which a test has a hand.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use amends_engine::{Digest, PluginName, StateQuery, Timestamp, Version};
use amends_store::{
    Append, AppendReply, Appended, Archive, BlobKind, BlobRow, Blobs, Cursor, Epoch, EventLog,
    HostInfo, LogPage, Maintenance, Outbox, Ownership, OwnershipEvent, PageBudget, PluginState,
    SagaIndex, Schedules, Shard, ShardId, ShardOwner, Store, StoreError, StoredEvent, Stream,
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

/// What a value of state waits for after it was read.
pub(crate) type ValueHook = dyn Fn() -> BoxFuture<'static, ()> + Send + Sync;

/// Who owns a shard.
pub(crate) type Owners = dyn Fn(ShardId) -> ShardOwner + Send + Sync;

/// What the bytes of a digest wait for, or why there are none.
pub(crate) type BlobHook =
    dyn Fn(Digest) -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync;

/// The rest is the store's.
pub(crate) struct Hooked {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hook: Arc<Hook>,
    /// How often events of a stream were read.
    pub(crate) reads: Arc<AtomicUsize>,
    /// Before keys of state are listed.
    pub(crate) before_list: Box<ListHook>,
    /// After a value of state was read, before it is given.
    pub(crate) after_value: Box<ValueHook>,
    /// Before bytes are read.
    pub(crate) before_blob: Box<BlobHook>,
    /// Who owns a shard: of two hosts of one store, each has its own. A test may move a shard.
    pub(crate) owners: Box<Owners>,
    /// Whether the lease of the host runs. A test may let it run out.
    pub(crate) lease: Arc<AtomicBool>,
    /// Set by a test: the next tick tells that every shard was lost and gained again.
    pub(crate) regains: Arc<AtomicBool>,
    /// The shards that this handle has. They are released when the host drops them.
    owned: Mutex<Vec<(Weak<dyn Shard>, Epoch)>>,
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
            before_list: Box::new(|| ready(Ok(())).boxed()),
            after_value: Box::new(|| ready(()).boxed()),
            before_blob: Box::new(|_| ready(Ok(())).boxed()),
            owners: Box::new(|_| ShardOwner::This),
            lease: Arc::new(AtomicBool::new(true)),
            regains: Arc::default(),
            owned: Mutex::default(),
        }
    }
}

impl Hooked {
    fn shard(&self, shard: Arc<dyn Shard>, epoch: Epoch) -> HookedShard {
        let (hook, lease) = (Arc::clone(&self.hook), Arc::clone(&self.lease));
        HookedShard { shard, epoch, hook, lease }
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

    fn archive(&self) -> &dyn Archive {
        self.store.archive()
    }

    fn schedules(&self) -> &dyn Schedules {
        self.store.schedules()
    }

    fn outbox(&self) -> &dyn Outbox {
        self.store.outbox()
    }

    fn maintenance(&self) -> &dyn Maintenance {
        self.store.maintenance()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.close()
    }
}

impl Ownership for Hooked {
    fn join(&self, host: HostInfo) {
        self.store.ownership().join(host);
    }

    fn owner_of(&self, shard: ShardId) -> ShardOwner {
        match (self.owners)(shard) {
            ShardOwner::This => self.store.ownership().owner_of(shard),
            other @ (ShardOwner::Other(_) | ShardOwner::Nobody) => other,
        }
    }

    fn others(&self) -> Vec<HostInfo> {
        let mut others = Vec::new();
        for shard in ShardId::all() {
            if let ShardOwner::Other(host) = (self.owners)(shard)
                && !others.contains(&host)
            {
                others.push(host);
            }
        }
        others
    }

    fn tick(&self) -> BoxFuture<'_, Result<Vec<OwnershipEvent>, StoreError>> {
        async {
            let events = self.store.ownership().tick().await?;
            let mut owned = self.owned.lock().unwrap();
            let mut told = Vec::new();
            if self.regains.swap(false, Ordering::SeqCst) {
                for (shard, epoch) in owned.iter_mut() {
                    let Some(shard) = shard.upgrade() else { continue };
                    epoch.0 += 1;
                    told.push(OwnershipEvent::Lost(shard.id()));
                    let shard = self.shard(shard, *epoch);
                    told.push(OwnershipEvent::Gained(Box::new(shard)));
                }
            }
            let owns = |shard| matches!((self.owners)(shard), ShardOwner::This);
            // What was given away is released once the host has dropped it.
            owned.retain(|(shard, _)| {
                let Some(shard) = shard.upgrade() else { return false };
                let stays = owns(shard.id());
                if !stays {
                    told.push(OwnershipEvent::Lost(shard.id()));
                }
                stays
            });
            for event in events {
                match event {
                    OwnershipEvent::Gained(shard) if !owns(shard.id()) => {}
                    OwnershipEvent::Gained(shard) => {
                        let epoch = shard.epoch();
                        let shard = self.shard(Arc::from(shard), epoch);
                        owned.push((Arc::downgrade(&shard.shard), epoch));
                        told.push(OwnershipEvent::Gained(Box::new(shard)));
                    }
                    lost @ OwnershipEvent::Lost(_) => told.push(lost),
                }
            }
            Ok(told)
        }
        .boxed()
    }
}

struct HookedShard {
    shard: Arc<dyn Shard>,
    epoch: Epoch,
    hook: Arc<Hook>,
    lease: Arc<AtomicBool>,
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
        self.epoch
    }

    fn has_lease(&self) -> bool {
        self.lease.load(Ordering::SeqCst) && self.shard.has_lease()
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
        self.store.log().stream(stream, after, budget)
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

    fn end(&self) -> BoxFuture<'_, Result<Cursor, StoreError>> {
        self.store.log().end()
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
        async move {
            let value = self.store.state().value(plugin, key).await;
            (self.after_value)().await;
            value
        }
        .boxed()
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

    fn renew(
        &self,
        kind: BlobKind,
        digest: Digest,
        at: Timestamp,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.store.blobs().renew(kind, digest, at)
    }

    fn remove(
        &self,
        kind: BlobKind,
        digest: Digest,
        unused_since: Timestamp,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.store.blobs().remove(kind, digest, unused_since)
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

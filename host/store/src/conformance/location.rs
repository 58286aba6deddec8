//! Where the suite keeps a store, and how it writes to it.

use std::ops::Deref;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::append::{Append, Appended};
use crate::backup::Backup;
use crate::error::{OpenError, StoreError};
use crate::ownership::OwnedShards;
use crate::store::Store;
use crate::stream::Stream;

/// The place of one store, new for each check of the suite.
pub trait StoreLocation: Send + Sync {
    /// Opens the store that is there. The first time, that is an empty store.
    fn open_store(&self) -> BoxFuture<'_, Result<Arc<dyn Store>, OpenError>>;

    /// Opens the store while another handle on it is open, as another host does that takes it over.
    fn take_over_store(&self) -> BoxFuture<'_, Result<Arc<dyn Store>, OpenError>>;

    /// Whether the store itself makes backups.
    fn makes_backups(&self) -> bool {
        true
    }

    /// Opens a store that was made of a backup alone, in a place of its own.
    fn open_backup(&self, backup: Backup) -> BoxFuture<'_, Result<Arc<dyn Store>, OpenError>>;

    /// Opens another store, which is empty, in a place of its own.
    fn open_empty_store(&self) -> BoxFuture<'_, Result<Arc<dyn Store>, OpenError>>;

    /// Opens the other store and gains its shards.
    fn open_empty(&self) -> BoxFuture<'_, Result<TestStore, OpenError>> {
        async { Ok(TestStore::of(self.open_empty_store().await?).await?) }.boxed()
    }

    /// Opens the store and gains its shards.
    fn open(&self) -> BoxFuture<'_, Result<TestStore, OpenError>> {
        async { Ok(TestStore::of(self.open_store().await?).await?) }.boxed()
    }

    /// Takes the store over and gains its shards.
    fn take_over(&self) -> BoxFuture<'_, Result<TestStore, OpenError>> {
        async { Ok(TestStore::of(self.take_over_store().await?).await?) }.boxed()
    }
}

/// A store and its shards, for tests that append to any stream.
#[derive(Clone)]
pub struct TestStore {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The shards that its first tick gained.
    pub shards: Arc<OwnedShards>,
}

impl TestStore {
    /// Gains the shards of a store.
    ///
    /// # Errors
    /// When the store is closed or lost.
    pub async fn of(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let shards = Arc::new(OwnedShards::gain(store.ownership()).await?);
        Ok(Self { store, shards })
    }

    /// Appends to whichever stream the append names.
    #[must_use]
    pub fn append(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>> {
        match append.stream {
            Stream::Saga(_) => self.shards.append(append),
            Stream::Plugin(_) => self.store.state().change(append),
            Stream::Service(_)
            | Stream::Deploys
            | Stream::Erasures
            | Stream::Tokens
            | Stream::Audit => self.store.log().append_shared(append),
        }
    }
}

impl Deref for TestStore {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

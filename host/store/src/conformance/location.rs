//! Where the suite keeps a store.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::error::StoreError;
use crate::store::Store;

/// The place of one store, new for each check of the suite.
pub trait StoreLocation: Send + Sync {
    /// Opens the store that is there. The first time, that is an empty store.
    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn Store>, StoreError>>;
}

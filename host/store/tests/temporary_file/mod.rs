//! A SQLite file in a folder of its own.

use std::path::PathBuf;
use std::sync::Arc;

use amends_store::conformance::StoreLocation;
use amends_store::{Durability, LOCK_SUFFIX, OpenError, SqliteStore, Store};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tempfile::TempDir;

/// Gone with its folder when it is dropped.
pub(crate) struct TemporaryFile {
    folder: TempDir,
}

impl TemporaryFile {
    /// The file is not there yet.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("amends.db")
    }
}

impl StoreLocation for TemporaryFile {
    fn open_store(&self) -> BoxFuture<'_, Result<Arc<dyn Store>, OpenError>> {
        let store = SqliteStore::open(&self.path(), Durability::Full);
        async move { Ok(Arc::new(store?) as Arc<dyn Store>) }.boxed()
    }

    /// The other host does not see the lock, as on a file system that has none.
    fn take_over_store(&self) -> BoxFuture<'_, Result<Arc<dyn Store>, OpenError>> {
        std::fs::remove_file(self.path().with_extension(format!("db-{LOCK_SUFFIX}"))).unwrap();
        self.open_store()
    }
}

//! A SQLite file in a folder of its own.

use std::path::PathBuf;
use std::sync::Arc;

use amends_store::conformance::StoreLocation;
use amends_store::{Backup, Durability, OpenError, SqliteStore, Store};
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

    fn open_empty_store(&self) -> BoxFuture<'_, Result<Arc<dyn Store>, OpenError>> {
        let path = self.folder.path().join("empty").join("amends.db");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let store = SqliteStore::open(&path, Durability::Full);
        async move { Ok(Arc::new(store?) as Arc<dyn Store>) }.boxed()
    }

    /// The backup is copied beside the store. Nothing but the one file is there.
    fn open_backup(&self, backup: Backup) -> BoxFuture<'_, Result<Arc<dyn Store>, OpenError>> {
        let path = self.folder.path().join("copy").join("amends.db");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let mut file = std::fs::File::create_new(&path).unwrap();
        std::io::copy(&mut &backup.file, &mut file).unwrap();
        let store = SqliteStore::open(&path, Durability::Full);
        async move { Ok(Arc::new(store?) as Arc<dyn Store>) }.boxed()
    }

    /// The other host does not see the lock, as on a file system that has none.
    fn take_over_store(&self) -> BoxFuture<'_, Result<Arc<dyn Store>, OpenError>> {
        std::fs::remove_file(self.path().with_extension("db-lock")).unwrap();
        self.open_store()
    }
}

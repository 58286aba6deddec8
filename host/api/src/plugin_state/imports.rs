//! Imports of plugin state wait for each other.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// An import waits this long for the one before it.
const IMPORT_WAIT_MAX: Duration = Duration::from_secs(10);

/// Lets one import run at a time: a few of them have as many bytes as all bodies may have together.
#[derive(Debug, Clone)]
pub(crate) struct Imports(Arc<Semaphore>);

impl Default for Imports {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Imports {
    /// Waits for the import before this one. `None`: it takes too long. The next import waits until the
    /// permit is dropped.
    pub(crate) async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.0).acquire_owned();
        tokio::time::timeout(IMPORT_WAIT_MAX, place).await.ok()?.ok()
    }
}

//! What a host has recorded, for readers: its log, its list of sagas, and the health of its store.

use std::collections::BTreeMap;

use amends_engine::{Digest, Position, SagaId, SagaStatus, Version};
use amends_store::{SagaQuery, SagaRow, StoreError, StoreHealth, StoreStats, StoredEvent, Stream};
use tokio::sync::watch;

use super::Host;

impl Host {
    /// Returns the sagas that match, the newest first, as they are in the store.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sagas(&self, query: SagaQuery) -> Result<Vec<SagaRow>, StoreError> {
        self.inner.store.list(query).await
    }

    /// Returns a saga's row in the store. None when there is no such saga.
    ///
    /// # Errors
    /// When the store fails, or the row cannot be read.
    pub async fn saga(&self, id: SagaId) -> Result<Option<SagaRow>, StoreError> {
        self.inner.store.saga(id).await
    }

    /// Returns the saga that an idempotency key started, and the digest of the payload that it was
    /// started with.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn key(&self, key: String) -> Result<Option<(SagaId, Digest)>, StoreError> {
        self.inner.store.key(key).await
    }

    /// Returns how many sagas have each status.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn counts(&self) -> Result<BTreeMap<SagaStatus, u64>, StoreError> {
        self.inner.store.counts().await
    }

    /// Returns up to `limit` events of a stream after a version, by ascending version. A page of
    /// large events ends early; only the end of the stream is an empty page.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn events(
        &self,
        stream: Stream,
        after: Version,
        limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.inner.store.events(stream, after, limit).await
    }

    /// Returns up to `limit` events of all streams after a position, by ascending position. Pages
    /// are as in [`Self::events`].
    ///
    /// # Errors
    /// When the store fails.
    pub async fn log(&self, after: Position, limit: u32) -> Result<Vec<StoredEvent>, StoreError> {
        self.inner.store.log(after, limit).await
    }

    /// Returns a watch of the last durable position of the log.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Position> {
        self.inner.store.head()
    }

    /// Returns counts of the store since it was opened.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.inner.store.stats()
    }

    /// Whether the store takes writes.
    #[must_use]
    pub fn store_health(&self) -> StoreHealth {
        self.inner.store.health().borrow().clone()
    }

    /// Why the store is lost to this process, once it is: from then on nothing is recorded, and the
    /// process should end. May be cancelled at any time.
    pub async fn store_lost(&self) -> StoreError {
        let lost = |health: &StoreHealth| {
            if let StoreHealth::Lost(error) = health { Some(error.clone()) } else { None }
        };
        self.until_store(lost).await
    }

    /// Waits until the store fails in this way. For ever when the store is closed before.
    pub(super) async fn until_store(
        &self,
        failure: impl Fn(&StoreHealth) -> Option<StoreError>,
    ) -> StoreError {
        let mut health = self.inner.store.health();
        loop {
            if let Some(error) = failure(&health.borrow_and_update()) {
                return error;
            }
            if health.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

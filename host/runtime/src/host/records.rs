//! What a host has recorded, for readers: its log, its list of sagas, and the health of its store.

use std::collections::BTreeMap;

use amends_engine::{Digest, SagaId, SagaStatus, Version};
use amends_store::{
    Backup, BackupError, BlobKind, Cursor, GroupBy, PageBudget, RebuildError, RebuildPlace,
    RebuildSlice, SagaGroups, SagaQuery, SagaRow, StoreError, StoreHealth, StoreStats, StoreSurvey,
    StoredEvent, Stream,
};
use tokio::sync::watch;

use super::Host;
use crate::action::{Action, authorize};
use crate::error::RuntimeError;
use crate::principal::Principal;
use crate::unseal::open_events;

impl Host {
    /// Returns the sagas that match, the newest first, as they are in the store.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sagas(&self, query: SagaQuery) -> Result<Vec<SagaRow>, StoreError> {
        self.inner.store.sagas().list(query).await
    }

    /// Counts the sagas that match, by what they have in common. The limit does not apply.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn saga_groups(
        &self,
        query: SagaQuery,
        by: Vec<GroupBy>,
    ) -> Result<SagaGroups, StoreError> {
        self.inner.store.sagas().groups(query, by).await
    }

    /// Returns a saga's row in the store. None when there is no such saga.
    ///
    /// # Errors
    /// When the store fails, or the row cannot be read.
    pub async fn saga(&self, id: SagaId) -> Result<Option<SagaRow>, StoreError> {
        self.inner.store.sagas().row(id).await
    }

    /// Returns the saga that an idempotency key started, and the digest of the payload that it was
    /// started with.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn key(&self, key: String) -> Result<Option<(SagaId, Digest)>, StoreError> {
        self.inner.store.sagas().key(key).await
    }

    /// Returns the bytes of a component. None when the store has them no more.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn component(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.store.blobs().get(BlobKind::Component, digest).await
    }

    /// Returns how many sagas have each status.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn counts(&self) -> Result<BTreeMap<SagaStatus, u64>, StoreError> {
        self.inner.store.sagas().counts().await
    }

    /// Returns up to `limit` events of a stream after a version, by ascending version. A page of
    /// large events ends early; only the end of the stream is an empty page. Those of an archived saga
    /// come from the archive. Personal values of a saga are opened.
    ///
    /// # Errors
    /// When the store fails, or the saga is archived and cannot be read.
    pub async fn events(
        &self,
        stream: Stream,
        after: Version,
        limit: u32,
    ) -> Result<Vec<StoredEvent>, RuntimeError> {
        let saga = stream.saga();
        let page = self.inner.store.log().stream(stream, after, PageBudget::items(limit)).await?;
        let Some(id) = saga else { return Ok(page) };
        let page =
            if page.is_empty() { self.archived_events(id, after, limit).await? } else { page };
        open_events((&*self.inner.store, &self.inner.keys), id, page).await
    }

    /// Returns up to `limit` events of all streams after a cursor, in order. Pages are as in
    /// [`Self::events`], but personal values are sealed in them.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn log(&self, from: Cursor, limit: u32) -> Result<Vec<StoredEvent>, StoreError> {
        Ok(self.inner.store.log().follow(from, PageBudget::items(limit)).await?.events)
    }

    /// Returns a watch of the end of the log.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Cursor> {
        self.inner.store.log().head()
    }

    /// Returns the end of the log as the store has it now, see [`amends_store::EventLog::end`].
    ///
    /// # Errors
    /// When the store fails.
    pub async fn end(&self) -> Result<Cursor, StoreError> {
        self.inner.store.log().end().await
    }

    /// Returns counts of the store since it was opened.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.inner.store.maintenance().stats()
    }

    /// Returns what the store holds and how fast it grows. It never reads the whole log.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn survey(&self) -> Result<StoreSurvey, StoreError> {
        self.inner.store.maintenance().survey().await
    }

    /// Compares the projections of the store with its events, and writes anew what differs: one slice,
    /// see [`amends_store::Maintenance::rebuild`].
    ///
    /// # Errors
    /// When another slice is being done, or the store fails.
    pub async fn rebuild(
        &self,
        principal: &Principal,
        from: RebuildPlace,
    ) -> Result<RebuildSlice, RebuildError> {
        authorize(principal, &Action::Rebuild);
        self.inner.store.maintenance().rebuild(from).await
    }

    /// Copies the store while it is written to. One backup of a store exists at a time. When the
    /// future is dropped, the copying ends.
    ///
    /// # Errors
    /// When another backup exists, the disk has no room for the copy, or the store fails.
    pub async fn back_up(&self) -> Result<Backup, BackupError> {
        self.inner.store.maintenance().back_up().await
    }

    /// Whether the store takes writes.
    #[must_use]
    pub fn store_health(&self) -> StoreHealth {
        self.inner.store.maintenance().health().borrow().clone()
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
        let mut health = self.inner.store.maintenance().health();
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

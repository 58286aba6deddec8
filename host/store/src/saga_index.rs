//! The index of sagas: one row for each, derived from its events.

use std::collections::BTreeMap;

use amends_engine::{Digest, SagaId, SagaStatus};
use futures::future::BoxFuture;

use crate::error::StoreError;
use crate::paging::PageBudget;
use crate::saga_query::SagaQuery;
use crate::saga_row::{LiveSaga, SagaRow};
use crate::shard_id::ShardId;

/// Finds sagas.
///
/// # Errors
/// Each method fails with [`StoreError::Unavailable`] (try again), or with [`StoreError::Damaged`]
/// or [`StoreError::Closed`] (it fails again).
pub trait SagaIndex: Send + Sync {
    /// Returns the row of a saga.
    fn row(&self, id: SagaId) -> BoxFuture<'_, Result<Option<SagaRow>, StoreError>>;

    /// Returns the sagas that match, the newest first. A saga whose row cannot be read is left out
    /// and logged as an error.
    fn list(&self, query: SagaQuery) -> BoxFuture<'_, Result<Vec<SagaRow>, StoreError>>;

    /// Returns the sagas of some shards that have not ended, by ascending id after `after`, each
    /// with all its events. Rows and events are of one snapshot. A saga that cannot be read does not
    /// fail the others.
    ///
    /// The budget counts sagas. A page also ends with the saga that reaches
    /// [`crate::LIVE_PAGE_BYTES_MAX`]. It is empty only when there are no more sagas. The next page
    /// starts after the last id of this one.
    fn live(
        &self,
        shards: Vec<ShardId>,
        after: Option<SagaId>,
        budget: PageBudget,
    ) -> BoxFuture<'_, Result<Vec<LiveSaga>, StoreError>>;

    /// Returns the saga that a key started, and the digest of the payload it was started with.
    fn key(&self, key: String) -> BoxFuture<'_, Result<Option<(SagaId, Digest)>, StoreError>>;

    /// Returns how many sagas have each status.
    fn counts(&self) -> BoxFuture<'_, Result<BTreeMap<SagaStatus, u64>, StoreError>>;
}

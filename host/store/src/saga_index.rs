//! The index of sagas: one row for each, derived from its events.

use std::collections::BTreeMap;

use amends_engine::{Digest, SagaId, SagaStatus, SubjectKeyId, Timestamp};
use futures::future::BoxFuture;

use crate::error::StoreError;
use crate::paging::PageBudget;
use crate::saga_groups::{GroupBy, SagaGroups};
use crate::saga_query::SagaQuery;
use crate::saga_row::{LiveSaga, LiveSagas, SagaRow};
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

    /// Counts the sagas that match, by what they have in common; by nothing: all of them as one group.
    /// The cursor applies, the limit does not.
    fn groups(
        &self,
        query: SagaQuery,
        by: Vec<GroupBy>,
    ) -> BoxFuture<'_, Result<SagaGroups, StoreError>>;

    /// Returns the sagas of some shards that have not ended, by ascending id after `after`, each
    /// with all its events. Rows and events are of one snapshot. A saga that cannot be read does not
    /// fail the others.
    ///
    /// The budget counts sagas. A page also ends with the saga that reaches
    /// `LIVE_PAGE_BYTES_MAX`. It is empty only when there are no more sagas. The next page
    /// starts after the last id of this one.
    fn live(
        &self,
        shards: Vec<ShardId>,
        which: LiveSagas,
        after: Option<SagaId>,
        budget: PageBudget,
    ) -> BoxFuture<'_, Result<Vec<LiveSaga>, StoreError>>;

    /// Returns the sagas of these ids, each with all its events, in the order of the ids. Rows and
    /// events are of one snapshot. A saga without a row is left out. A page ends with the saga that
    /// reaches `LIVE_PAGE_BYTES_MAX`; it is empty only when there are no sagas of these ids.
    fn read(&self, ids: Vec<SagaId>) -> BoxFuture<'_, Result<Vec<LiveSaga>, StoreError>>;

    /// Returns up to `limit` sagas of some shards whose status is `waiting` and whose `wake_at` is not
    /// later than `until`, with that time. They are ordered by it and by id, and begin after `after`.
    fn due(
        &self,
        shards: Vec<ShardId>,
        until: Timestamp,
        after: Option<(Timestamp, SagaId)>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<(Timestamp, SagaId)>, StoreError>>;

    /// Returns up to `limit` sagas of some shards whose status is `waiting`, by ascending id after
    /// `after`, each with the latest time of its events.
    fn waiting(
        &self,
        shards: Vec<ShardId>,
        after: Option<SagaId>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<(SagaId, Timestamp)>, StoreError>>;

    /// Returns the rows of up to `limit` sagas whose personal values are sealed with the key of a
    /// subject, by ascending id after `after`.
    fn of_subject_key(
        &self,
        key: SubjectKeyId,
        after: Option<SagaId>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<SagaRow>, StoreError>>;

    /// Returns whether a saga in the store has personal values that are sealed.
    fn has_sealed(&self) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Returns how many sagas have the status `waiting`, of all shards.
    fn count_waiting(&self) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Returns the saga that began first of those that have not ended, of all shards, and when it began.
    fn oldest_live(&self) -> BoxFuture<'_, Result<Option<(SagaId, Timestamp)>, StoreError>>;

    /// Returns whether a saga of the store began before `until` and had not ended before `from`. Of a store
    /// in which that cannot be said from the 100,000 sagas that began last before `until`, it returns true.
    fn was_any_live(
        &self,
        from: Timestamp,
        until: Timestamp,
    ) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Returns the saga that a key started, and the digest of the payload it was started with.
    fn key(&self, key: String) -> BoxFuture<'_, Result<Option<(SagaId, Digest)>, StoreError>>;

    /// Returns how many sagas have each status.
    fn counts(&self) -> BoxFuture<'_, Result<BTreeMap<SagaStatus, u64>, StoreError>>;
}

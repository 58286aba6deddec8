//! Schedules: up to which time each has been decided, and what it did last.

use amends_engine::{SagaId, Timestamp};
use futures::future::BoxFuture;

use crate::error::StoreError;

/// What a store keeps of one schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    /// The name of the schedule.
    pub name: String,
    /// The pattern and the time zone that the other fields are about, as text.
    pub pattern: String,
    /// Each time of the pattern up to here has started its saga, or was skipped.
    pub decided_until: Timestamp,
    /// The last time that started a saga, and the saga.
    pub started: Option<(Timestamp, SagaId)>,
    /// The last time that was skipped, and the reason in words.
    pub skipped: Option<(Timestamp, String)>,
}

/// Keeps the schedules of a store.
///
/// # Errors
/// Each method fails with [`StoreError::Unavailable`] (try again), or with [`StoreError::Damaged`],
/// [`StoreError::Closed`] or [`StoreError::Fatal`] (it fails again).
pub trait Schedules: Send + Sync {
    /// Returns what is kept of a schedule; none when nothing is.
    fn schedule(&self, name: String) -> BoxFuture<'_, Result<Option<ScheduleRow>, StoreError>>;

    /// Makes a row durable in place of an earlier one of the same name.
    fn save_schedule(&self, row: ScheduleRow) -> BoxFuture<'_, Result<(), StoreError>>;
}

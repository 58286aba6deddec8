//! Subscriptions: how far each has delivered the log, and which events it could not deliver.

use amends_engine::{Timestamp, Version};
use futures::future::BoxFuture;

use crate::error::StoreError;
use crate::paging::Cursor;
use crate::stream::Stream;

/// What a store keeps of one subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionRow {
    /// Every event before this place is delivered, filtered out, or a dead letter.
    pub cursor: Cursor,
    /// The reason why nothing is delivered any more; none while the subscription is active.
    pub disabled: Option<String>,
    /// The number of its dead letters.
    pub dead_letters: u64,
}

/// An event that a subscription could not deliver. The event itself stays in the log until its saga is
/// archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The place in the log before the event: [`crate::EventLog::follow`] reads the event from here.
    pub place: Cursor,
    /// The stream of the event.
    pub stream: Stream,
    /// The version of the event.
    pub version: Version,
    /// The type of the event.
    pub kind: String,
    /// When the event became a dead letter.
    pub at: Timestamp,
    /// How often the event was sent in vain.
    pub attempts: u32,
    /// The last error, in words.
    pub error: String,
}

/// A change of what a store keeps of one subscription. It is one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionChange {
    /// The name of the subscription.
    pub name: String,
    /// The new cursor.
    pub cursor: Cursor,
    /// The reason why nothing is delivered any more; none makes the subscription active.
    pub disabled: Option<String>,
    /// Dead letters to add. One of the same place is replaced.
    pub dead: Vec<DeadLetter>,
    /// The places of dead letters to remove, because they are delivered.
    pub delivered: Vec<Cursor>,
}

/// Keeps the subscriptions of a store.
///
/// # Errors
/// Each method fails with [`StoreError::Unavailable`] (try again), or with [`StoreError::Damaged`],
/// [`StoreError::Closed`] or [`StoreError::Fatal`] (it fails again).
pub trait Outbox: Send + Sync {
    /// Returns what is kept of a subscription; none when nothing is.
    fn subscription(
        &self,
        name: String,
    ) -> BoxFuture<'_, Result<Option<SubscriptionRow>, StoreError>>;

    /// Returns up to `limit` dead letters of a subscription, by ascending place: those after the place of
    /// an earlier one, or from the first on.
    fn dead_letters(
        &self,
        name: String,
        after: Option<Cursor>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<DeadLetter>, StoreError>>;

    /// Makes a change durable. Several changes are made in the order of the calls.
    fn save(&self, change: SubscriptionChange) -> BoxFuture<'_, Result<(), StoreError>>;
}

//! The log of events: streams, the whole log in order, and the streams that all hosts share.

use amends_engine::Version;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::append::{Append, Appended};
use crate::error::StoreError;
use crate::paging::{Cursor, PageBudget};
use crate::stored_event::StoredEvent;
use crate::stream::Stream;

/// A page of the whole log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    /// The events, in order. Empty only when there are no more.
    pub events: Vec<StoredEvent>,
    /// The place after the last of them, where the next page begins.
    pub next: Cursor,
}

/// The events of a store.
///
/// An append that cannot be read appears as one event of the type [`crate::EVENT_UNREADABLE`]. If
/// its version cannot be read either, the event has the version after the append before it.
pub trait EventLog: Send + Sync {
    /// Returns the events of a stream after a version, by ascending version. A page also ends where
    /// it would hold more than `EVENTS_PAGE_BYTES_MAX`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: try again. [`StoreError::Damaged`] and [`StoreError::Closed`]:
    /// it fails again.
    fn stream(
        &self,
        stream: Stream,
        after: Version,
        budget: PageBudget,
    ) -> BoxFuture<'_, Result<Vec<StoredEvent>, StoreError>>;

    /// Returns the events of the whole store after a cursor, in order. Pages end as in
    /// [`Self::stream`]. Whoever follows the log reads until a page is empty, and reads on when
    /// [`Self::head`] has moved.
    ///
    /// # Errors
    /// As for [`Self::stream`].
    fn follow(
        &self,
        from: Cursor,
        budget: PageBudget,
    ) -> BoxFuture<'_, Result<LogPage, StoreError>>;

    /// Returns a watch of the end of the log. It moves a moment after an append of any host. So
    /// [`Self::follow`] may answer with events that it does not have yet.
    fn head(&self) -> watch::Receiver<Cursor>;

    /// Returns the end of the log as the database has it now. Whatever any host has made durable before the call is
    /// before it.
    ///
    /// # Errors
    /// As for [`Self::stream`].
    fn end(&self) -> BoxFuture<'_, Result<Cursor, StoreError>>;

    /// Appends to a stream that belongs to no saga: that of the deploys, of the erasures, of the
    /// tokens, of the audit, of a plugin or of a service.
    /// Every host writes to these streams, and the expected version decides who was first. Resolves
    /// when the append is durable. The call itself queues the append, as [`crate::Shard::append`].
    ///
    /// # Errors
    /// [`StoreError::Conflict`]: read the stream again. [`StoreError::Unavailable`]: try again.
    /// [`StoreError::Invalid`]: the append is to a saga or changes state, which belong to
    /// [`crate::Shard`] and [`crate::PluginState`]. After any error, nothing is stored.
    fn append_shared(&self, append: Append) -> BoxFuture<'static, Result<Appended, StoreError>>;
}

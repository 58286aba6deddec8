//! A receiver within the host.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::event::NamedEvent;

/// Takes the events of a subscription within the host.
pub trait TakesEvents: fmt::Debug + Send + Sync {
    /// Takes an event. It comes again when the process ends before the cursor is written, and when it was
    /// not taken. Dropping the future may leave it taken.
    fn take(&self, event: Arc<NamedEvent>) -> BoxFuture<'_, Result<(), NotTaken>>;

    /// Says in words where the events go.
    fn target(&self) -> String;
}

/// Why an event was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotTaken {
    /// The reason in words.
    pub error: String,
    /// True when no event could be taken now: that says nothing about this one.
    pub is_passing: bool,
    /// True when the event waits for something that may come, such as the saga of a signal.
    pub is_early: bool,
}

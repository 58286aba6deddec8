//! The events of a service's stream.

use amends_engine::{ServiceName, Timestamp};
use amends_store::{NewEvent, StoreError};
use tokio::sync::oneshot;

/// The events of a service's stream: the last says where its breaker is.
pub(super) const OPENED: &str = "breaker.opened";
pub(super) const CLOSED: &str = "breaker.closed";

/// A change of a breaker that is to be written to the service's stream.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) service: ServiceName,
    pub(super) at: Timestamp,
    pub(super) event: NewEvent,
    /// Receives the result of the first try.
    pub(super) told: oneshot::Sender<Result<(), StoreError>>,
}

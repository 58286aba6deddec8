//! The trait that every event store implements.

use futures::future::BoxFuture;

use crate::archive::Archive;
use crate::blob::Blobs;
use crate::error::StoreError;
use crate::event_log::EventLog;
use crate::maintenance::Maintenance;
use crate::outbox::Outbox;
use crate::ownership::Ownership;
use crate::plugin_state::PluginState;
use crate::saga_index::SagaIndex;
use crate::schedules::Schedules;

/// An append-only event store, opened once by a process. Its parts are traits of their own, so that
/// a user of the store names the part that it needs.
///
/// Every future may be dropped at any time: a dropped read is cancelled, a dropped write still
/// happens. The futures run inside a tokio runtime.
///
/// No request ends with an unknown result: the store finds out first. The one exception is a store whose
/// writer ends unexpectedly; [`crate::Fatal::WriterEnded`] ends the process then.
pub trait Store: Send + Sync + 'static {
    /// Returns who owns which shards. Only the owner of a shard appends to its sagas.
    fn ownership(&self) -> &dyn Ownership;

    /// Returns the log of events.
    fn log(&self) -> &dyn EventLog;

    /// Returns the index of sagas.
    fn sagas(&self) -> &dyn SagaIndex;

    /// Returns the state of plugins.
    fn state(&self) -> &dyn PluginState;

    /// Returns the blobs.
    fn blobs(&self) -> &dyn Blobs;

    /// Returns the archive of ended sagas.
    fn archive(&self) -> &dyn Archive;
    /// Returns the subscriptions.
    fn outbox(&self) -> &dyn Outbox;

    /// Returns the schedules.
    fn schedules(&self) -> &dyn Schedules;

    /// Returns what keeps the store in order.
    fn maintenance(&self) -> &dyn Maintenance;

    /// Writes what was queued before, then closes the store. Later calls fail with
    /// [`StoreError::Closed`]. Once the future has resolved, the store can be opened again. A
    /// second call waits for the same end.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

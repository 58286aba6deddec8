//! What the parts of a host ask of one another without knowing the host.

use std::sync::Arc;

use amends_engine::{Definition, DefinitionName, Saga, SagaId, ServiceName, Start, Verb};
use amends_store::StoreError;
use futures::future::BoxFuture;

use crate::error::{OperateError, StartError};
use crate::room_key::RoomKey;
use crate::saga_state::{SagaState, Started};

/// How a saga reaches another one. Does not keep the host alive.
pub(crate) trait SagaPort: Send + Sync + std::fmt::Debug {
    /// The definition of this name in the config.
    fn definition(&self, name: &DefinitionName) -> Option<Arc<Definition>>;

    /// Starts a saga with the id that it is given, unless there is one.
    fn start(&self, start: Start) -> BoxFuture<'_, Result<Started, StartError>>;

    /// Gives an operator's order to a saga, for the saga that runs it.
    fn operate(
        &self,
        parent: SagaId,
        id: SagaId,
        verb: Verb,
        reason: String,
    ) -> BoxFuture<'_, Result<SagaState, OperateError>>;

    /// Whether there is such a saga.
    fn exists(&self, id: SagaId) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Returns the saga when it has ended; none when the host stops before.
    fn wait_for_end(&self, id: SagaId) -> BoxFuture<'_, Option<Saga>>;
}

/// Wakes the workers whose sagas may have what they wait for.
pub(crate) trait Wake: Send + Sync + std::fmt::Debug {
    /// Calls have given back room for which these workers wait: a bit for each, its number modulo 64.
    fn room(&self, workers: u64, key: &RoomKey);

    /// The breaker of a service has closed, or is held open until another time.
    fn breaker_has_changed(&self, service: &ServiceName);

    /// A call that was to try a service did not begin: another may in its place.
    fn trial_is_free(&self, service: &ServiceName);
}

//! How a saga reaches another one: the host's handle, for what runs inside of it.

use std::sync::{Arc, OnceLock, Weak};

use amends_engine::{Definition, DefinitionName, Order, Saga, SagaId, ServiceName, Start};
use amends_store::StoreError;
use tokio::sync::oneshot;

use super::{Inner, Runtime, State};
use crate::error::{OperateError, RuntimeError, StartError};
use crate::live::Waiter;
use crate::runtime::Started;
use crate::shard::Message;

/// Cheap to clone. Does not keep the host alive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sagas {
    inner: Arc<OnceLock<Weak<Inner>>>,
}

impl Sagas {
    pub(super) fn connect(&self, inner: &Arc<Inner>) {
        let _ = self.inner.set(Arc::downgrade(inner));
    }

    pub(crate) fn runtime(&self) -> Option<Runtime> {
        Some(Runtime { inner: self.inner.get()?.upgrade()? })
    }

    /// The definition of this name in the config.
    pub(crate) fn definition(&self, name: &DefinitionName) -> Option<Arc<Definition>> {
        self.runtime()?.definitions().named(name.as_str()).cloned()
    }

    /// Starts a saga with the id that it is given, unless there is one.
    pub(crate) async fn start(&self, start: Start) -> Result<Started, StartError> {
        self.runtime().ok_or(StartError::Stopping)?.start_as(start).await
    }

    /// As [`Runtime::operate`].
    pub(crate) async fn operate(&self, id: SagaId, order: Order) -> Result<State, OperateError> {
        self.runtime().ok_or(RuntimeError::Stopping)?.operate(id, order).await
    }

    /// Whether there is such a saga.
    pub(crate) async fn exists(&self, id: SagaId) -> Result<bool, StoreError> {
        let Some(runtime) = self.runtime() else { return Err(StoreError::Closed) };
        Ok(runtime.store().saga(id).await?.is_some())
    }

    /// The saga when it has ended; none when the host stops before.
    pub(crate) async fn wait_for_end(&self, id: SagaId) -> Option<Saga> {
        loop {
            let runtime = self.runtime()?;
            let (reply, answer) = oneshot::channel();
            runtime
                .send(id, Message::Wait { id, waiter: Waiter { reply, until_end: true } })
                .ok()?;
            let state = runtime.state(id).await;
            // A host that stops must not be kept by those who wait.
            drop(runtime);
            if let Ok(Some(state)) = state
                && state.saga.has_ended()
            {
                return Some(state.saga);
            }
            if let Ok(saga) = answer.await
                && saga.has_ended()
            {
                return Some(saga);
            }
            // Its shard has stopped, or the store failed.
            if self.runtime()?.is_stopping() {
                return None;
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }

    /// The breaker of a service has closed, or is held open until another time: who waits for it tries again.
    pub(crate) fn breaker_has_changed(&self, service: &ServiceName) {
        self.tell_shards(|| Message::BreakerHasChanged(service.clone()));
    }

    /// The breaker of a service lets another call try.
    pub(crate) fn trial_is_free(&self, service: &ServiceName) {
        self.tell_shards(|| Message::TrialIsFree(service.clone()));
    }

    fn tell_shards(&self, message: impl Fn() -> Message) {
        let Some(runtime) = self.runtime() else { return };
        for shard in &runtime.inner.shards {
            let _ = shard.inbox.send(message());
        }
    }
}

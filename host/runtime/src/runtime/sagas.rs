//! How a saga reaches another one of the same host.

use std::sync::Arc;

use amends_engine::{Definition, DefinitionName, Order, Saga, SagaId, Start};
use amends_store::StoreError;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::WeakRuntime;
use crate::error::{OperateError, RuntimeError, StartError};
use crate::message::{Message, Waiter};
use crate::ports::SagaPort;
use crate::saga_state::{SagaState, Started};

impl SagaPort for WeakRuntime {
    fn definition(&self, name: &DefinitionName) -> Option<Arc<Definition>> {
        self.runtime()?.definitions().named(name.as_str()).cloned()
    }

    fn start(&self, start: Start) -> BoxFuture<'_, Result<Started, StartError>> {
        async { self.runtime().ok_or(StartError::Stopping)?.start_as(start).await }.boxed()
    }

    fn operate(&self, id: SagaId, order: Order) -> BoxFuture<'_, Result<SagaState, OperateError>> {
        let operated =
            async move { self.runtime().ok_or(RuntimeError::Stopping)?.operate(id, order).await };
        operated.boxed()
    }

    fn exists(&self, id: SagaId) -> BoxFuture<'_, Result<bool, StoreError>> {
        let found = async move {
            let Some(runtime) = self.runtime() else { return Err(StoreError::Closed) };
            Ok(runtime.store().sagas().row(id).await?.is_some())
        };
        found.boxed()
    }

    fn wait_for_end(&self, id: SagaId) -> BoxFuture<'_, Option<Saga>> {
        self.end_of(id).boxed()
    }
}

impl WeakRuntime {
    /// The saga when it has ended; none when the host stops before.
    async fn end_of(&self, id: SagaId) -> Option<Saga> {
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
}

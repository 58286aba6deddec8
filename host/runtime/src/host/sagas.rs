//! How a saga reaches another one of the same host.

use std::sync::Arc;

use amends_engine::{Definition, DefinitionName, Saga, SagaId, Start, Verb};
use amends_store::StoreError;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::WeakHost;
use crate::action::{Action, authorize};
use crate::error::{OperateError, RuntimeError, StartError};
use crate::message::{Message, Waiter};
use crate::ports::SagaPort;
use crate::principal::Principal;
use crate::saga_state::{SagaState, Started};

impl SagaPort for WeakHost {
    fn definition(&self, name: &DefinitionName) -> Option<Arc<Definition>> {
        self.host()?.inner.definitions.named(name.as_str()).cloned()
    }

    fn start(&self, start: Start) -> BoxFuture<'_, Result<Started, StartError>> {
        let started = async move {
            let host = self.host().ok_or(StartError::Stopping)?;
            if let Some(parent) = &start.parent {
                let definition = start.definition.name().as_str();
                authorize(&Principal::of_saga(parent.saga), &Action::Start { definition });
            }
            host.start_as(start).await
        };
        started.boxed()
    }

    fn operate(
        &self,
        parent: SagaId,
        id: SagaId,
        verb: Verb,
        reason: String,
    ) -> BoxFuture<'_, Result<SagaState, OperateError>> {
        let operated = async move {
            let host = self.host().ok_or(RuntimeError::Stopping)?;
            host.operate(&Principal::of_saga(parent), id, verb, reason).await
        };
        operated.boxed()
    }

    fn exists(&self, id: SagaId) -> BoxFuture<'_, Result<bool, StoreError>> {
        let found = async move {
            let Some(host) = self.host() else { return Err(StoreError::Closed) };
            // The third look is for one that was brought back between the other two.
            Ok(host.saga(id).await?.is_some()
                || host.tombstone(id).await?.is_some()
                || host.saga(id).await?.is_some())
        };
        found.boxed()
    }

    fn wait_for_end(&self, id: SagaId) -> BoxFuture<'_, Option<Saga>> {
        self.end_of(id).boxed()
    }
}

impl WeakHost {
    /// The saga when it has ended; none when the host stops before.
    async fn end_of(&self, id: SagaId) -> Option<Saga> {
        loop {
            let host = self.host()?;
            let (reply, answer) = oneshot::channel();
            host.send(id, Message::Wait { id, waiter: Waiter { reply, until_end: true } }).ok()?;
            let state = host.state(id).await;
            // A host that stops must not be kept by those who wait.
            drop(host);
            if let Ok(Some(state)) = state
                && state.saga.has_ended()
            {
                return Some(state.saga);
            }
            if let Ok(state) = answer.await
                && state.saga.has_ended()
            {
                return Some(state.saga);
            }
            // Its worker has stopped, or the store failed.
            if self.host()?.is_stopping() {
                return None;
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }
}

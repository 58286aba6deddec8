//! Which definition a saga has: its first event says so, and so does the index of sagas.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::SagaId;
use amends_store::{Store, StoreError, StoredEvent, Stream};
use serde::Deserialize;

use crate::event::NamedEvent;
use crate::limits::DEFINITIONS_REMEMBERED_MAX;

/// Names the definitions of events, and remembers those of the last sagas. A clone shares them.
#[derive(Clone)]
pub struct DefinitionNames {
    store: Arc<dyn Store>,
    known: Arc<Mutex<HashMap<SagaId, Arc<str>>>>,
}

/// The part of a saga's first event that is wanted.
#[derive(Deserialize)]
struct Started<'e> {
    #[serde(borrow)]
    definition: std::borrow::Cow<'e, str>,
}

impl DefinitionNames {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, known: Arc::default() }
    }

    /// Adds the definition of its saga to an event.
    ///
    /// # Errors
    /// When the store cannot be read now, is closed or lost.
    pub async fn name(&self, event: StoredEvent) -> Result<NamedEvent, StoreError> {
        let definition = match event.stream {
            Stream::Saga(id) => self.definition(id, &event).await?,
            Stream::Plugin(_)
            | Stream::Service(_)
            | Stream::Deploys
            | Stream::Erasures
            | Stream::Tokens
            | Stream::Audit => None,
        };
        Ok(NamedEvent { event, definition })
    }

    async fn definition(
        &self,
        id: SagaId,
        event: &StoredEvent,
    ) -> Result<Option<Arc<str>>, StoreError> {
        if let Some(known) = self.lock().get(&id) {
            return Ok(Some(Arc::clone(known)));
        }
        let said = (event.kind == "saga.started")
            .then(|| serde_json::from_str::<Started<'_>>(&event.data).ok())
            .flatten();
        let name: Arc<str> = match said {
            Some(started) => started.definition.into(),
            None => match self.store.sagas().row(id).await {
                Ok(Some(row)) => row.definition.as_str().into(),
                // Nobody can tell any more, and the event goes on.
                Ok(None) | Err(StoreError::Damaged { .. }) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        let mut known = self.lock();
        if known.len() >= DEFINITIONS_REMEMBERED_MAX {
            known.clear();
        }
        known.insert(id, Arc::clone(&name));
        Ok(Some(name))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SagaId, Arc<str>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for DefinitionNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DefinitionNames")
    }
}

//! Reads sagas from the store.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use amends_engine::{Definition, SagaId};
use amends_keys::Keys;
use amends_store::{LiveSaga, LiveSagas, ShardId, Store, StoreError};
use futures::FutureExt as _;
use tokio::sync::Semaphore;

use crate::definitions::Definitions;
use crate::error::RuntimeError;
use crate::limits::{LOADS_MAX, SAGAS_PER_READ};
use crate::recovery;
use crate::saga_state::{Found, Loaded, NotLoaded};

/// Reads sagas with their definitions.
pub(crate) struct Loader {
    store: Arc<dyn Store>,
    definitions: Arc<Definitions>,
    keys: Arc<Keys>,
    /// One for each page that is read, until its worker has it: see [`LOADS_MAX`].
    pub(crate) loads: Semaphore,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").finish_non_exhaustive()
    }
}

impl Loader {
    pub(crate) fn new(
        store: &Arc<dyn Store>,
        definitions: &Arc<Definitions>,
        keys: &Arc<Keys>,
    ) -> Self {
        let (store, definitions, keys) =
            (Arc::clone(store), Arc::clone(definitions), Arc::clone(keys));
        Self { store, definitions, keys, loads: Semaphore::new(LOADS_MAX) }
    }

    /// Reads the first of these sagas: one at least, and fewer than all when their logs are large or the
    /// log of one is damaged.
    pub(crate) async fn page(&self, ids: &[SagaId]) -> Vec<(SagaId, Found)> {
        let mut read = self.store.sagas().read(ids.to_vec()).await;
        let mut ids = ids;
        while ids.len() > 1 && matches!(read, Err(StoreError::Damaged { .. })) {
            // One of them is. It must not keep the others from going on.
            ids = &ids[..ids.len() / 2];
            read = self.store.sagas().read(ids.to_vec()).await;
        }
        let page = match read {
            Ok(page) => page,
            Err(error) => {
                if let [id] = ids {
                    let error = RuntimeError::from(error);
                    let is_lost = self.is_lost(*id, &error).await;
                    return vec![(*id, Err(NotLoaded { error, is_lost }))];
                }
                let failed = || NotLoaded { error: error.clone().into(), is_lost: false };
                return ids.iter().map(|id| (*id, Err(failed()))).collect();
            }
        };
        let mut found = Vec::new();
        let mut left = ids.iter();
        for live in page {
            let id = live.id;
            let absent = left.by_ref().take_while(|other| **other != id);
            found.extend(absent.map(|absent| (*absent, Ok(None))));
            found.push((
                id,
                match self.fold(live).await {
                    Ok(loaded) => Ok(Some(loaded)),
                    Err(error) => {
                        let is_lost = self.is_lost(id, &error).await;
                        Err(NotLoaded { error, is_lost })
                    }
                },
            ));
        }
        // Without any of them there is none.
        if found.is_empty() { ids.iter().map(|id| (*id, Ok(None))).collect() } else { found }
    }

    /// Whether a saga that was not read for this error has not ended and cannot be read by trying again.
    pub(crate) async fn is_lost(&self, id: SagaId, error: &RuntimeError) -> bool {
        let is_unreadable = matches!(
            error,
            RuntimeError::Unreadable { .. }
                | RuntimeError::DefinitionLost { .. }
                | RuntimeError::Store(StoreError::Damaged { .. })
        );
        if !is_unreadable {
            return false;
        }
        let row = self.store.sagas().row(id).await;
        !row.is_ok_and(|row| row.is_some_and(|row| row.ended_at.is_some()))
    }

    /// A saga whose fold panics must cost no other.
    async fn fold(&self, live: LiveSaga) -> Result<Loaded, RuntimeError> {
        let saga = live.id;
        let folded =
            AssertUnwindSafe(recovery::read(live, &*self.store, (&*self.definitions, &*self.keys)));
        folded.catch_unwind().await.unwrap_or_else(|_| {
            let message = "the engine broke an invariant of its own".to_owned();
            Err(RuntimeError::Unreadable { saga, message })
        })
    }
}

/// Reads the sagas that have not ended page by page, each once, as the store has them. Those that
/// cannot be read are left out: they are quarantined, or will be when something happens to them.
pub(crate) struct LivePages {
    loader: Arc<Loader>,
    after: Option<SagaId>,
}

impl LivePages {
    pub(crate) fn new(loader: &Arc<Loader>) -> Self {
        Self { loader: Arc::clone(loader), after: None }
    }

    /// Returns the sagas of the next page that have such definitions; none after the last page.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn next(
        &mut self,
        is_wanted: impl Fn(&Definition) -> bool,
    ) -> Result<Option<Vec<Loaded>>, StoreError> {
        let Loader { store, definitions, .. } = &*self.loader;
        let shards = ShardId::all().collect();
        let page = store.sagas().live(shards, LiveSagas::All, self.after, SAGAS_PER_READ).await?;
        let Some(last) = page.last() else { return Ok(None) };
        self.after = Some(last.id);
        let mut sagas = Vec::new();
        for live in page {
            let Ok((row, _)) = &live.content else { continue };
            let definition = definitions.pinned(live.id, row.definition_digest, &**store).await;
            if definition.is_ok_and(|definition| is_wanted(&definition)) {
                let id = live.id;
                match self.loader.fold(live).await {
                    Ok(loaded) => sagas.push(loaded),
                    Err(error) => tracing::debug!(saga_id = %id, %error, "saga is left out"),
                }
            }
        }
        Ok(Some(sagas))
    }
}

//! The archive of a host: sagas that have left the store, and the pass that moves them.

use std::sync::Arc;

use amends_engine::{Definition, SagaId, Version};
use amends_store::{SagaQuery, SagaRow, StoreError, StoredEvent, Tombstone};

use super::Host;
use crate::action::{Action, authorize};
use crate::archiver::ArchivePass;
use crate::error::{ArchivePassError, OperateError, RuntimeError};
use crate::limits::ARCHIVED_EVENTS_BYTES_MAX;
use crate::principal::Principal;
use crate::recovery;
use crate::saga_state::{Loaded, RowState, SagaState};
use crate::unseal::open_log;

impl Host {
    /// Moves sagas to the archive whose retention is over, now. The host does that by itself from time
    /// to time.
    ///
    /// # Errors
    /// When the config has no retention, another pass is under way, or the archive or the store fails.
    /// Sagas that were moved before an error are moved.
    pub async fn archive(&self, principal: &Principal) -> Result<ArchivePass, ArchivePassError> {
        authorize(principal, &Action::Archive);
        let archiver = self.inner.archiver.clone().ok_or(ArchivePassError::NoRetention)?;
        // In a task of its own: when its caller goes, it still ends before the next one begins.
        let pass = tokio::spawn(async move { archiver.pass().await });
        pass.await.unwrap_or(Err(ArchivePassError::Stopping))
    }

    /// Brings a saga back from the archive. It can be compensated again, and is archived again by a
    /// later pass. Returns false when the saga is not archived.
    ///
    /// # Errors
    /// When the saga was deleted, or the archive or the store fails.
    pub async fn bring_back(
        &self,
        principal: &Principal,
        id: SagaId,
    ) -> Result<bool, ArchivePassError> {
        authorize(principal, &Action::BringBack { saga: id });
        Ok(self.inner.store.archive().bring_back(id).await?)
    }

    /// Returns the archived sagas that match, the newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn archived_sagas(&self, query: SagaQuery) -> Result<Vec<Tombstone>, StoreError> {
        self.inner.store.archive().list(query).await
    }

    /// Returns what is left in the store of an archived saga. None when it is not archived.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tombstone(&self, id: SagaId) -> Result<Option<Tombstone>, StoreError> {
        self.inner.store.archive().tombstone(id).await
    }

    /// Returns the definition that a saga is pinned to.
    pub(super) async fn pinned(&self, row: &SagaRow) -> Result<Arc<Definition>, RuntimeError> {
        let store = &*self.inner.store;
        self.inner.definitions.pinned(row.id, row.definition_digest, store).await
    }

    /// Returns why nothing is done to a saga that is archived.
    pub(super) async fn archived_refusal(&self, id: SagaId) -> OperateError {
        match self.inner.store.archive().read(id).await {
            Ok(Some(found)) if found.is_imported => OperateError::Imported(id),
            Ok(_) | Err(_) => OperateError::Archived(id),
        }
    }

    /// Reads a saga from the archive; none when it is not there.
    pub(super) async fn archived_state(
        &self,
        id: SagaId,
    ) -> Result<Option<SagaState>, RuntimeError> {
        let Some(found) = self.inner.store.archive().read(id).await? else { return Ok(None) };
        let definition = self.pinned(&found.row).await?;
        let (opened, key) = open_log(&self.inner.keys, id, &found.events).await?;
        let saga = recovery::replay(id, definition, &opened)?;
        let last_at = recovery::last_at(saga.started_at(), &found.events);
        let state = SagaState::from(Loaded { saga, last_at, row: RowState::from(&found.row), key });
        Ok(Some(SagaState { is_archived: true, is_imported: found.is_imported, ..state }))
    }

    /// Returns a page of the events of an archived saga, see [`Host::events`]. It is empty when the saga
    /// is not archived.
    pub(super) async fn archived_events(
        &self,
        id: SagaId,
        after: Version,
        limit: u32,
    ) -> Result<Vec<StoredEvent>, RuntimeError> {
        let archive = self.inner.store.archive();
        // Most often the saga is in the store and has no more events.
        let tombstone = archive.tombstone(id).await?;
        if tombstone.is_none_or(|saga| saga.version <= after) {
            return Ok(Vec::new());
        }
        let found = archive.read(id).await?.map(|saga| saga.events).unwrap_or_default();
        let mut bytes = 0;
        let has_room = |event: &StoredEvent| {
            let is_first = bytes == 0;
            bytes += event.data.len().max(1);
            is_first || bytes <= ARCHIVED_EVENTS_BYTES_MAX
        };
        let page = found.into_iter().filter(|event| event.version > after).take(limit as usize);
        Ok(page.take_while(has_room).collect())
    }
}

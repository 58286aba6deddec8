//! The sagas projection: one row a saga, derived from its events.

use std::collections::BTreeMap;

use amends_engine::{
    DefinitionName, Digest, IndexName, IndexValue, SEALED_REASON, Saga, SagaId, SagaStatus,
    SubjectKeyId, Timestamp, is_sealed,
};

use crate::stored_event::StoredEvent;

/// The size at which a page of live sagas ends, in bytes of their events' data. The last saga may
/// exceed it. A host that starts holds one page beside the sagas that it recovered from the pages
/// before.
pub(crate) const LIVE_PAGE_BYTES_MAX: usize = 64 << 20;

/// One row of the sagas projection: what lists and timers need, derived from the saga's events.
///
/// The first row that is written sets the id, the definition, `started_at`, the tags, the index and the
/// key.
/// Later rows change only the other columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaRow {
    /// The id of the saga.
    pub id: SagaId,
    /// The name of its definition.
    pub definition: DefinitionName,
    /// The digest of the definition that the saga is pinned to.
    pub definition_digest: Digest,
    /// The status of the saga.
    pub status: SagaStatus,
    /// The reason why the saga is blocked or was compensated, if it was.
    pub reason: Option<String>,
    /// When the saga started.
    pub started_at: Timestamp,
    /// When the saga ended, if it has.
    pub ended_at: Option<Timestamp>,
    /// When the saga is compensated unless it has completed by then.
    pub deadline_at: Option<Timestamp>,
    /// When the clock alone makes something due next.
    pub wake_at: Option<Timestamp>,
    /// The tags by which callers find the saga.
    pub tags: BTreeMap<String, String>,
    /// The values by which callers find the saga: those of the index of its definition.
    pub index: BTreeMap<IndexName, IndexValue>,
    /// The idempotency key of the caller.
    pub key: Option<String>,
    /// The key of the subject whose personal values the saga has, if it has one.
    pub subject_key: Option<SubjectKeyId>,
}

impl SagaRow {
    /// Returns the row of a saga. Whoever appends its events and whoever rebuilds its row use this. A
    /// reason that is sealed in the events is [`SEALED_REASON`].
    #[must_use]
    pub fn of(saga: &Saga) -> Self {
        let started = saga.started();
        Self {
            id: saga.id(),
            definition: started.definition.clone(),
            definition_digest: started.definition_digest,
            status: saga.status(),
            reason: saga.reason().map(shown),
            started_at: saga.started_at(),
            ended_at: saga.ended_at(),
            deadline_at: saga.deadline_at(),
            wake_at: saga.wake_at(),
            tags: started.tags.clone(),
            index: started.index.clone(),
            key: started.key.clone(),
            subject_key: started.sealed_key.as_ref().map(|key| key.subject_key),
        }
    }
}

fn shown(reason: &str) -> String {
    if is_sealed(reason) { SEALED_REASON } else { reason }.to_owned()
}

/// Which sagas that have not ended are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveSagas {
    /// All of them.
    All,
    /// Those whose status is not `waiting`.
    NotWaiting,
}

/// One saga, as a host reads it to go on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSaga {
    /// The id of the saga.
    pub id: SagaId,
    /// The row and all events of the saga; or the reason why they cannot be read, for the operator.
    pub content: Result<(SagaRow, Vec<StoredEvent>), String>,
}

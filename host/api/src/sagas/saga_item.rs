//! Shows a saga of a list.

use std::collections::BTreeMap;

use amends_api_types::SagaItem;
use amends_runtime::{SagaRow, Tombstone};

/// Shows a saga as its row has it.
pub(crate) fn saga_item(row: SagaRow) -> SagaItem {
    SagaItem {
        id: row.id.to_string(),
        definition: row.definition.to_string(),
        status: row.status.to_string(),
        reason: row.reason,
        started_at: row.started_at,
        ended_at: row.ended_at,
        deadline_at: row.deadline_at,
        next_at: row.wake_at.filter(|_| row.ended_at.is_none()),
        key: row.key,
        tags: row.tags,
        index: row.index,
        activity: None,
        archived: false,
    }
}

/// Shows an archived saga as its tombstone has it.
pub(crate) fn archived_item(saga: Tombstone) -> SagaItem {
    SagaItem {
        id: saga.id.to_string(),
        definition: saga.definition.to_string(),
        status: saga.status.to_string(),
        reason: None,
        started_at: saga.started_at,
        ended_at: Some(saga.ended_at),
        deadline_at: None,
        next_at: None,
        key: saga.key,
        tags: BTreeMap::new(),
        index: BTreeMap::new(),
        activity: None,
        archived: true,
    }
}

//! Shows a saga of a list.

use amends_api_types::SagaItem;
use amends_runtime::SagaRow;

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
        activity: None,
    }
}

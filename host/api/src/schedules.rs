//! Schedules: how they stand.

use axum::extract::State;

use amends_api_types::{Page, ScheduleView};
use amends_runtime::ScheduleStatus;

use crate::answer::Json;
use crate::api_state::ApiState;

/// Lists the schedules, in the order of the config.
#[utoipa::path(get, path = "/v1/schedules", operation_id = "list_schedules", tag = "operators",
    security(("token" = ["read"])),
    responses((status = 200, body = Page<ScheduleView>, description = "The schedules.")))]
pub(crate) async fn list(State(state): State<ApiState>) -> Json<Page<ScheduleView>> {
    let items = state.host.schedules().into_iter().map(schedule_view).collect();
    Json(Page { items, next_cursor: None })
}

fn schedule_view(status: ScheduleStatus) -> ScheduleView {
    let (started_at, saga) = status.started.unzip();
    let (skipped_at, skipped_reason) = status.skipped.unzip();
    ScheduleView {
        name: status.name,
        definition: status.definition,
        cron: status.cron,
        timezone: status.timezone,
        next: status.next,
        started_at,
        saga: saga.map(|saga| saga.to_string()),
        skipped_at,
        skipped_reason,
        error: status.error,
    }
}

//! What a compensation of a saga would do.

use axum::extract::State;

use amends_api_types::{Page, PlannedView};
use amends_runtime::Planned;

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::error::{ApiError, archived, imported};
use crate::extract::Path;
use crate::ids::parse_id;
use crate::payloads::Payloads;
use crate::sagas::saga_lookup::unknown;

/// Lists the undos that a compensation would run now, in their order.
#[utoipa::path(get, path = "/v1/sagas/{id}/undo-plan", operation_id = "get_undo_plan", tag = "operators",
    security(("token" = ["read"])),
    params(("id" = String, Path, format = "uuid", description = "The id of the saga.")),
    responses(
        (status = 200, body = Page<PlannedView>, description = "The undos that a compensation would run now.")))]
pub(crate) async fn undo_plan(
    State(state): State<ApiState>,
    payloads: Payloads,
    Path(id): Path<String>,
) -> Result<Json<Page<PlannedView>>, ApiError> {
    let id = parse_id(&id)?;
    if state.host.tombstone(id).await?.is_some() {
        let what = format!("saga {id} is archived, so it cannot be compensated");
        let found = state.host.state(id).await?;
        let is_imported = found.is_some_and(|found| found.is_imported);
        return Err(if is_imported { imported(what) } else { archived(what) });
    }
    let plan = state.host.undo_plan(id).await?.ok_or_else(|| unknown(&id.to_string()))?;
    let items = plan.into_iter().map(|planned| planned_view(planned, payloads)).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

fn planned_view(planned: Planned, payloads: Payloads) -> PlannedView {
    let undo = planned.undo;
    PlannedView {
        step: undo.step.to_string(),
        wave: undo.wave,
        plugin: undo.plugin.map(|plugin| plugin.to_string()),
        child: undo.child.map(|child| child.to_string()),
        digest: planned.digest.map(|digest| digest.to_string()),
        note: planned.note,
        input: payloads.optional(undo.input),
        output: payloads.optional(undo.output),
        status: undo.status.to_string(),
    }
}

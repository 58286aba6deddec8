//! What a compensation of a saga would do.

use axum::extract::State;

use amends_api_types::{Page, PlannedView, Problem};
use amends_runtime::Planned;

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::error::{ApiError, archived};
use crate::extract::Path;
use crate::ids::parse_id;
use crate::sagas::saga_lookup::unknown;

/// Lists the undos that a compensation would run now, in their order.
#[utoipa::path(get, path = "/v1/sagas/{id}/undo-plan", tag = "operators",
    params(("id" = String, Path)),
    responses((status = 200, body = Page<PlannedView>), (status = "default", body = Problem)))]
pub(crate) async fn undo_plan(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Page<PlannedView>>, ApiError> {
    let id = parse_id(&id)?;
    if state.host.tombstone(id).await?.is_some() {
        return Err(archived(format!("saga {id} is archived, so it cannot be compensated")));
    }
    let plan = state.host.undo_plan(id).await?.ok_or_else(|| unknown(&id.to_string()))?;
    let items = plan.into_iter().map(planned_view).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

fn planned_view(planned: Planned) -> PlannedView {
    let undo = planned.undo;
    PlannedView {
        step: undo.step.to_string(),
        wave: undo.wave,
        plugin: undo.plugin.map(|plugin| plugin.to_string()),
        child: undo.child.map(|child| child.to_string()),
        digest: planned.digest.map(|digest| digest.to_string()),
        note: planned.note,
        input: undo.input,
        output: undo.output,
        status: undo.status.to_string(),
    }
}

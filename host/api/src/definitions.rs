//! The definitions in force, and the one that a saga is pinned to.

use axum::extract::State;

use amends_api_types::{DefinitionView, Page};
use amends_engine::{Definition, Payload};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::extract::Path;
use crate::ids::parse_id;
use crate::sagas::saga_lookup::unknown;

/// Lists the definitions of the config.
#[utoipa::path(get, path = "/v1/definitions", operation_id = "list_definitions", tag = "definitions",
    security(("token" = ["read"])),
    responses((status = 200, body = Page<DefinitionView>, description = "The definitions in force.")))]
pub(crate) async fn list(State(state): State<ApiState>) -> Json<Page<DefinitionView>> {
    let current = state.host.definitions();
    let items = current.map(|definition| definition_view(definition)).collect();
    Json(Page { items, next_cursor: None })
}

/// Reads the definition that a saga is pinned to, also when the config has another one by now.
#[utoipa::path(get, path = "/v1/sagas/{id}/definition", operation_id = "get_saga_definition", tag = "sagas",
    security(("token" = ["read"])),
    params(("id" = String, Path, format = "uuid", description = "The id of the saga.")),
    responses(
        (status = 200, body = DefinitionView, description = "The definition that the saga is pinned to.")))]
pub(crate) async fn of_saga(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<DefinitionView>, ApiError> {
    let id = parse_id(&id)?;
    let definition = state.host.definition_of(id).await?;
    let definition = definition.ok_or_else(|| unknown(&id.to_string()))?;
    Ok(Json(definition_view(&definition)))
}

/// Shows a definition.
pub(crate) fn definition_view(definition: &Definition) -> DefinitionView {
    DefinitionView {
        name: definition.name().to_string(),
        digest: definition.digest().to_string(),
        spec: Payload::parse(&definition.canonical()).unwrap_or_else(|_| Payload::null()),
    }
}

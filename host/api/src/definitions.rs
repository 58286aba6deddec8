//! The definitions in force.

use axum::extract::State;

use amends_api_types::{DefinitionView, Page};
use amends_engine::{Definition, Payload};

use crate::answer::Json;
use crate::api_state::ApiState;

/// Lists the definitions of the config.
#[utoipa::path(get, path = "/v1/definitions", tag = "definitions",
    responses((status = 200, body = Page<DefinitionView>)))]
pub(crate) async fn list(State(state): State<ApiState>) -> Json<Page<DefinitionView>> {
    let current = state.host.definitions().current();
    let items = current.map(|definition| definition_view(definition)).collect();
    Json(Page { items, next_cursor: None })
}

fn definition_view(definition: &Definition) -> DefinitionView {
    DefinitionView {
        name: definition.name().to_string(),
        digest: definition.digest().to_string(),
        spec: Payload::parse(&definition.canonical()).unwrap_or_else(|_| Payload::null()),
    }
}

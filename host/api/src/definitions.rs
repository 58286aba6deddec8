//! The definitions in force.

use axum::extract::State;

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::page::Page;
use crate::views::DefinitionView;

/// Lists the definitions of the config.
#[utoipa::path(get, path = "/v1/definitions", tag = "definitions",
    responses((status = 200, body = Page<DefinitionView>)))]
pub(crate) async fn list(State(state): State<ApiState>) -> Json<Page<DefinitionView>> {
    let current = state.runtime.definitions().current();
    let items = current.map(|definition| DefinitionView::from(&**definition)).collect();
    Json(Page { items, next_cursor: None })
}

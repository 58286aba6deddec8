//! The plugins of the host.

use axum::extract::State;

use amends_api_types::{Page, PluginView, Problem};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::extract::Path;
use crate::ids::parse_name;
use crate::plugins::plugin_lookup::plugin;
use crate::plugins::plugin_view::plugin_view;

/// Lists the plugins, by name.
#[utoipa::path(get, path = "/v1/plugins", tag = "plugins",
    responses((status = 200, body = Page<PluginView>)))]
pub(crate) async fn list(State(state): State<ApiState>) -> Json<Page<PluginView>> {
    let items = state.host.plugins().into_iter().map(plugin_view).collect();
    Json(Page { items, next_cursor: None })
}

/// Reads a plugin.
#[utoipa::path(get, path = "/v1/plugins/{name}", tag = "plugins", params(("name" = String, Path)),
    responses((status = 200, body = PluginView), (status = "default", body = Problem)))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<PluginView>, ApiError> {
    plugin(&state, &parse_name(&name)?).map(plugin_view).map(Json)
}

//! The plugins of the host.

use axum::extract::State;

use amends_api_types::{Page, PluginView};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::error::ApiError;
use crate::extract::Path;
use crate::ids::parse_name;
use crate::plugins::plugin_lookup::plugin;
use crate::plugins::plugin_view::plugin_view;

/// Lists the plugins, by name.
#[utoipa::path(get, path = "/v1/plugins", operation_id = "list_plugins", tag = "plugins",
    security(("token" = ["read"])),
    responses((status = 200, body = Page<PluginView>, description = "The plugins.")))]
pub(crate) async fn list(State(state): State<ApiState>) -> Json<Page<PluginView>> {
    let items = state.host.plugins().into_iter().map(plugin_view).collect();
    Json(Page { items, next_cursor: None })
}

/// Reads a plugin.
#[utoipa::path(get, path = "/v1/plugins/{name}", operation_id = "get_plugin", tag = "plugins",
    security(("token" = ["read"])),
    params(
        ("name" = String, Path, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$",
            description = "The name of the plugin.")),
    responses((status = 200, body = PluginView, description = "The plugin.")))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<PluginView>, ApiError> {
    plugin(&state, &parse_name(&name)?).map(plugin_view).map(Json)
}

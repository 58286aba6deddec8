//! The plugins of the host.

use axum::Json;
use axum::extract::State;

use crate::ApiState;
use crate::page::Page;
use crate::problem::{Path, Problem};
use crate::views::PluginView;

/// Lists the plugins, by name.
#[utoipa::path(get, path = "/v1/plugins", tag = "plugins",
    responses((status = 200, body = Page<PluginView>)))]
pub(crate) async fn list(State(state): State<ApiState>) -> Json<Page<PluginView>> {
    let items = state.runtime.plugins().list().into_iter().map(PluginView::from).collect();
    Json(Page { items, next_cursor: None })
}

/// Reads a plugin.
#[utoipa::path(get, path = "/v1/plugins/{name}", tag = "plugins", params(("name" = String, Path)),
    responses((status = 200, body = PluginView), (status = "default", body = Problem)))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<PluginView>, Problem> {
    let parsed = name.parse().map_err(|error: amends_engine::IdError| {
        Problem::new(400, "bad_name", error.to_string())
    })?;
    let info = state.runtime.plugins().info(&parsed).ok_or_else(|| {
        Problem::new(404, "plugin_unknown", format!("there is no plugin `{name}`"))
            .with_remedy("GET /v1/plugins lists the plugins of this host")
    })?;
    Ok(Json(PluginView::from(info)))
}

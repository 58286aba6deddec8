//! The plugins of the host.

use axum::Json;
use axum::extract::State;

use amends_engine::{IdError, PluginName};

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
    let info = state.runtime.plugins().info(&parse_name(&name)?).ok_or_else(|| {
        Problem::new(404, "plugin_unknown", format!("there is no plugin `{name}`"))
            .with_remedy("GET /v1/plugins lists the plugins of this host")
    })?;
    Ok(Json(PluginView::from(info)))
}

pub(crate) fn parse_name(text: &str) -> Result<PluginName, Problem> {
    text.parse().map_err(|error: IdError| Problem::new(400, "bad_name", error.to_string()))
}

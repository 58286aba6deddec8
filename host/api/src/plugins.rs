//! The plugins of the host, and the way back to a component that served before.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use axum::http::HeaderMap;

use amends_api_types::{Page, PluginView, Problem, PromoteBody, RollbackBody};
use amends_engine::PluginName;
use amends_plugins::{PluginError, PluginInfo, Why};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::JsonBody;
use crate::digest::{SEE_VERSIONS, parse_digest};
use crate::error::ApiError;
use crate::extract::Path;
use crate::ids::parse_name;
use crate::legible::legible;
use crate::plugin_view::plugin_view;
use crate::requester::who;

/// Lists the plugins, by name.
#[utoipa::path(get, path = "/v1/plugins", tag = "plugins",
    responses((status = 200, body = Page<PluginView>)))]
pub(crate) async fn list(State(state): State<ApiState>) -> Json<Page<PluginView>> {
    let items = state.runtime.plugins().list().into_iter().map(plugin_view).collect();
    Json(Page { items, next_cursor: None })
}

/// Reads a plugin.
#[utoipa::path(get, path = "/v1/plugins/{name}", tag = "plugins", params(("name" = String, Path)),
    responses((status = 200, body = PluginView), (status = "default", body = Problem)))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<PluginView>, ApiError> {
    info(&state, &parse_name(&name)?).map(plugin_view).map(Json)
}

/// Has the canary of a plugin serve all sagas: at once, and within a second on every host of the store.
#[utoipa::path(post, path = "/v1/plugins/{name}/promote", tag = "plugins",
    params(("name" = String, Path),
        ("amends-user" = Option<String>, Header, description = "who asks, kept with the address")),
    request_body = PromoteBody,
    responses((status = 200, body = PluginView), (status = 409, body = Problem),
        (status = "default", body = Problem)))]
pub(crate) async fn promote(
    State(state): State<ApiState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(name): Path<String>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<PromoteBody>,
) -> Result<Json<PluginView>, ApiError> {
    let name = parse_name(&name)?;
    info(&state, &name)?;
    let reason = kept_reason(body.reason)?;
    let who = who(&headers, peer)?;
    match state.runtime.plugins().promote(&name, who, reason).await {
        Ok(()) => info(&state, &name).map(plugin_view).map(Json),
        Err(error) => Err(plugin_problem(&error)),
    }
}

/// Why a plugin is not changed.
pub(crate) fn plugin_problem(error: &PluginError) -> ApiError {
    let detail = error.to_string();
    match error {
        PluginError::Canary { .. } => ApiError::new(409, "canary_refused", detail)
            .with_remedy("GET /v1/plugins/NAME has its canaries and the components that served it"),
        PluginError::NoRollback { .. } => {
            ApiError::new(409, "no_rollback", detail).with_remedy(SEE_VERSIONS)
        }
        PluginError::Rejected { .. } => ApiError::new(409, "component_refused", detail),
        PluginError::Folder { .. }
        | PluginError::Cache { .. }
        | PluginError::Sandbox(_)
        | PluginError::Lost { .. }
        | PluginError::Store(_) => ApiError::new(503, "plugin_failed", detail),
    }
}

fn kept_reason(reason: String) -> Result<String, ApiError> {
    if reason.trim().is_empty() {
        return Err(ApiError::new(400, "reason_missing", "the reason is empty")
            .with_remedy("say why: it is kept with the plugin"));
    }
    legible("the reason", reason)
}

/// Takes a running canary back; or, without one or with `to`, goes back to a component that served
/// before: at once, and within a second on every host of the store.
#[utoipa::path(post, path = "/v1/plugins/{name}/rollback", tag = "plugins",
    params(("name" = String, Path),
        ("amends-user" = Option<String>, Header, description = "who asks, kept with the address")),
    request_body = RollbackBody,
    responses((status = 200, body = PluginView), (status = "default", body = Problem)))]
pub(crate) async fn rollback(
    State(state): State<ApiState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(name): Path<String>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<RollbackBody>,
) -> Result<Json<PluginView>, ApiError> {
    let name = parse_name(&name)?;
    info(&state, &name)?;
    let to = body.to.as_deref().map(|to| parse_digest(&state, to)).transpose()?;
    let reason = kept_reason(body.reason)?;
    let who = who(&headers, peer)?;
    let (who, reason, forced) = (Some(who), Some(reason), body.force);
    let why = Why { who, reason, forced, ..Why::default() };
    let done = state.runtime.plugins().rollback(&name, to, why).await;
    match done {
        Ok(_) => info(&state, &name).map(plugin_view).map(Json),
        Err(error) => Err(plugin_problem(&error)),
    }
}

fn info(state: &ApiState, name: &PluginName) -> Result<PluginInfo, ApiError> {
    state.runtime.plugins().info(name).ok_or_else(|| {
        ApiError::new(404, "plugin_unknown", format!("there is no plugin `{name}`"))
            .with_remedy("GET /v1/plugins lists the plugins of this host")
    })
}

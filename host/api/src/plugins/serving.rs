//! The orders of operators about which component serves a plugin.

use axum::extract::State;

use amends_api_types::{PluginView, PromoteBody, RollbackBody};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::JsonBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::extract::Path;
use crate::ids::parse_name;
use crate::legible::legible;
use crate::plugins::digest::parse_digest;
use crate::plugins::plugin_lookup::plugin;
use crate::plugins::plugin_view::plugin_view;

/// Promotes the canary of a plugin to the active component: at once, and within a second on every host of the
/// store.
#[utoipa::path(post, path = "/v1/plugins/{name}/promote", operation_id = "promote_canary", tag = "plugins",
    security(("token" = ["deploy"])),
    params(
        ("name" = String, Path, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$",
            description = "The name of the plugin."),
        ("amends-user" = Option<String>, Header)),
    request_body = PromoteBody,
    responses((status = 200, body = PluginView, description = "The plugin, with the canary active.")))]
pub(crate) async fn promote(
    State(state): State<ApiState>,
    caller: Caller,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<PromoteBody>,
) -> Result<Json<PluginView>, ApiError> {
    let name = parse_name(&name)?;
    plugin(&state, &name)?;
    let reason = kept_reason(body.reason)?;
    state.host.promote(caller.principal(), &name, reason).await?;
    plugin(&state, &name).map(plugin_view).map(Json)
}

/// Takes a running canary back. Without a canary, or with `to`, activates an earlier component again: at once,
/// and within a second on every host of the store.
#[utoipa::path(post, path = "/v1/plugins/{name}/rollback", operation_id = "roll_back_plugin", tag = "plugins",
    security(("token" = ["deploy"])),
    params(
        ("name" = String, Path, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$",
            description = "The name of the plugin."),
        ("amends-user" = Option<String>, Header)),
    request_body = RollbackBody,
    responses(
        (status = 200, body = PluginView, description = "The plugin, with the earlier component active.")))]
pub(crate) async fn rollback(
    State(state): State<ApiState>,
    caller: Caller,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<RollbackBody>,
) -> Result<Json<PluginView>, ApiError> {
    let name = parse_name(&name)?;
    plugin(&state, &name)?;
    let to = body.to.as_deref().map(|to| parse_digest(&state, to)).transpose()?;
    let reason = kept_reason(body.reason)?;
    state.host.rollback(caller.principal(), &name, to, reason, body.force).await?;
    plugin(&state, &name).map(plugin_view).map(Json)
}

/// Checks that a reason says something.
///
/// # Errors
/// 400 when the reason is empty, or is not legible on one line.
fn kept_reason(reason: String) -> Result<String, ApiError> {
    if reason.trim().is_empty() {
        return Err(ApiError::new(400, "reason_missing", "the reason is empty")
            .with_remedy("say why: it is kept with the plugin"));
    }
    legible("the reason", reason)
}

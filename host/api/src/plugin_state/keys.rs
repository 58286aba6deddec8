//! The keys of plugin state, and the values behind them.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::IntoParams;

use amends_api_types::{Page, StateItem};
use amends_engine::{PluginName, StateQuery};
use amends_runtime::{Principal, StateWrite};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::AnyJson;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::extract::{Path, Query};
use crate::ids::parse_name;
use crate::paging::{PAGE_BYTES_MAX, limit};

/// Which keys to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeysQuery {
    /// Only keys that begin with this text.
    #[serde(default)]
    prefix: String,
    /// How many items the page may have: 1 to 1,000, 50 when absent. A page of large values ends earlier.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before this one.
    cursor: Option<String>,
}

/// Lists the state of a plugin, in the order of the keys' bytes.
#[utoipa::path(get, path = "/v1/plugins/{name}/state", operation_id = "list_state", tag = "plugins",
    security(("token" = ["read", "payloads"])),
    params(
        ("name" = String, Path, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$",
            description = "The name of the plugin."),
        KeysQuery),
    responses(
        (status = 200, body = Page<StateItem>,
            description = "A page of the keys of the plugin and their values.")))]
pub(crate) async fn list(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(query): Query<KeysQuery>,
) -> Result<Json<Page<StateItem>>, ApiError> {
    let (name, limit) = (parse_name(&name)?, limit(query.limit)?);
    let host = &state.host;
    let mut query = StateQuery { prefix: query.prefix, after: query.cursor, limit };
    let (mut items, mut bytes) = (Vec::new(), 0);
    for key in host.plugin_state_keys(&name, query.clone()).await? {
        query.after = Some(key.clone());
        // One that was removed meanwhile is not there.
        let Some(value) = host.plugin_state(&name, &key).await? else { continue };
        bytes += key.len() + value.len();
        items.push(StateItem { key, value: raw(&value)? });
        if bytes >= PAGE_BYTES_MAX {
            break;
        }
    }
    let rest = StateQuery { limit: 1, ..query };
    let has_more = !host.plugin_state_keys(&name, rest.clone()).await?.is_empty();
    Ok(Json(Page { items, next_cursor: rest.after.filter(|_| has_more) }))
}

/// Reads the value of a key. The key is the rest of the path, with its slashes.
#[utoipa::path(get, path = "/v1/plugins/{name}/state/{key}", operation_id = "get_state", tag = "plugins",
    security(("token" = ["read", "payloads"])),
    params(
        ("name" = String, Path, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$",
            description = "The name of the plugin."),
        ("key" = String, Path, description = "The key.")),
    responses((status = 200, body = StateItem, description = "The key and its value.")))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    Path((name, key)): Path<(String, String)>,
) -> Result<Json<StateItem>, ApiError> {
    let name = parse_name(&name)?;
    let value = state.host.plugin_state(&name, &key).await?.ok_or_else(|| {
        ApiError::new(404, "no_key", format!("plugin `{name}` keeps nothing under `{key}`"))
            .with_remedy(format!("GET /v1/plugins/{name}/state lists what it keeps"))
    })?;
    Ok(Json(StateItem { value: raw(&value)?, key }))
}

/// Sets the value of a key.
#[utoipa::path(put, path = "/v1/plugins/{name}/state/{key}", operation_id = "put_state", tag = "operators",
    security(("token" = ["operate", "payloads"])),
    params(
        ("name" = String, Path, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$",
            description = "The name of the plugin."),
        ("key" = String, Path, description = "The key."),
        ("amends-user" = Option<String>, Header)),
    request_body = serde_json::Value,
    responses((status = 204, description = "The value is durable.")))]
pub(crate) async fn put(
    State(state): State<ApiState>,
    caller: Caller,
    Path((name, key)): Path<(String, String)>,
    AnyJson(value): AnyJson,
) -> Result<StatusCode, ApiError> {
    let write = StateWrite { key, value: Some(value.as_str().to_owned()) };
    set(&state, &name, caller.principal(), write).await
}

/// Removes a key. The answer is the same when the key is not there.
#[utoipa::path(delete, path = "/v1/plugins/{name}/state/{key}", operation_id = "delete_state", tag = "operators",
    security(("token" = ["operate", "payloads"])),
    params(
        ("name" = String, Path, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$",
            description = "The name of the plugin."),
        ("key" = String, Path, description = "The key."),
        ("amends-user" = Option<String>, Header)),
    responses((status = 204, description = "The key is gone.")))]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    Path((name, key)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    set(&state, &name, caller.principal(), StateWrite { key, value: None }).await
}

async fn set(
    state: &ApiState,
    name: &str,
    principal: &Principal,
    write: StateWrite,
) -> Result<StatusCode, ApiError> {
    let name: PluginName = parse_name(name)?;
    state.host.set_plugin_state(principal, &name, write).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn raw(value: &str) -> Result<Box<RawValue>, ApiError> {
    RawValue::from_string(value.to_owned()).map_err(|error| {
        ApiError::new(500, "state_unreadable", format!("a value in the store is not JSON: {error}"))
    })
}

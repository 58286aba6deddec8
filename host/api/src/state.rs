//! What plugins keep, as operators see and change it.
//!
//! Each change is an event in the plugin's stream, with who asked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::IntoParams;

use amends_api_types::{
    Page, Problem, STATE_IMPORT_BYTES_MAX, StateImportLine, StateImported, StateItem,
};
use amends_engine::{Payload, PluginName};
use amends_plugins::{StateError, StateWrite};
use amends_store::{STATE_KEYS_MAX, StateQuery};

use crate::answer::Json;
use crate::api_state::ApiState;
use crate::body::{HeldBytes, JsonBody, check_ndjson, read, refuse};
use crate::error::ApiError;
use crate::extract::{Path, Query};
use crate::ids::parse_name;
use crate::legible::legible;
use crate::paging::{PAGE_BYTES_MAX, limit};
use crate::requester::who;

/// How long the bytes of an import may take: the largest at a megabit a second.
const IMPORT_TIME_MAX: Duration = Duration::from_mins(3);

/// Bytes of an import's source: a file's name.
const SOURCE_BYTES_MAX: usize = 255;

/// Which keys to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeysQuery {
    /// Keys that begin with it.
    #[serde(default)]
    prefix: String,
    /// From 1 to 1,000; 50 when absent. A page of large values ends earlier.
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// How an import is done.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportQuery {
    /// Where the values are from, kept with who asked: the name of a file.
    #[serde(default)]
    source: String,
    /// True: keys that are there are left as they are.
    #[serde(default)]
    only_new: bool,
}

/// Lists what a plugin keeps, in the order of the keys' bytes.
#[utoipa::path(get, path = "/v1/plugins/{name}/state", tag = "plugins",
    params(("name" = String, Path), KeysQuery),
    responses((status = 200, body = Page<StateItem>), (status = "default", body = Problem)))]
pub(crate) async fn list(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(query): Query<KeysQuery>,
) -> Result<Json<Page<StateItem>>, ApiError> {
    let (name, limit) = (parse_name(&name)?, limit(query.limit)?);
    let plugins = state.runtime.plugins();
    let mut query = StateQuery { prefix: query.prefix, after: query.cursor, limit };
    let (mut items, mut bytes) = (Vec::new(), 0);
    for key in plugins.state_keys(&name, query.clone()).await? {
        query.after = Some(key.clone());
        // One that was removed meanwhile is not there.
        let Some(value) = plugins.state(&name, &key).await? else { continue };
        bytes += key.len() + value.len();
        items.push(StateItem { key, value: raw(&value)? });
        if bytes >= PAGE_BYTES_MAX {
            break;
        }
    }
    let rest = StateQuery { limit: 1, ..query };
    let has_more = !plugins.state_keys(&name, rest.clone()).await?.is_empty();
    Ok(Json(Page { items, next_cursor: rest.after.filter(|_| has_more) }))
}

/// Reads what is behind a key. The key is the rest of the path, its slashes with it.
#[utoipa::path(get, path = "/v1/plugins/{name}/state/{key}", tag = "plugins",
    params(("name" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = StateItem), (status = "default", body = Problem)))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    Path((name, key)): Path<(String, String)>,
) -> Result<Json<StateItem>, ApiError> {
    let name = parse_name(&name)?;
    let value = state.runtime.plugins().state(&name, &key).await?.ok_or_else(|| {
        ApiError::new(404, "no_key", format!("plugin `{name}` keeps nothing under `{key}`"))
            .with_remedy(format!("GET /v1/plugins/{name}/state lists what it keeps"))
    })?;
    Ok(Json(StateItem { value: raw(&value)?, key }))
}

/// Puts a value behind a key.
#[utoipa::path(put, path = "/v1/plugins/{name}/state/{key}", tag = "operators",
    params(("name" = String, Path), ("key" = String, Path),
        ("amends-user" = Option<String>, Header, description = "who asks, kept with the address")),
    request_body = Object,
    responses((status = 204), (status = "default", body = Problem)))]
pub(crate) async fn put(
    State(state): State<ApiState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path((name, key)): Path<(String, String)>,
    headers: HeaderMap,
    JsonBody(value): JsonBody<Payload>,
) -> Result<StatusCode, ApiError> {
    let write = StateWrite { key, value: Some(value.as_str().to_owned()) };
    set(&state, &name, &who(&headers, peer)?, write).await
}

/// Removes a key. One that is not there is answered the same.
#[utoipa::path(delete, path = "/v1/plugins/{name}/state/{key}", tag = "operators",
    params(("name" = String, Path), ("key" = String, Path),
        ("amends-user" = Option<String>, Header, description = "who asks, kept with the address")),
    responses((status = 204), (status = "default", body = Problem)))]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path((name, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    set(&state, &name, &who(&headers, peer)?, StateWrite { key, value: None }).await
}

/// Writes up to 1,000 keys at once, or none when a line is wrong.
#[utoipa::path(post, path = "/v1/plugins/{name}/state:import", tag = "operators",
    params(("name" = String, Path), ImportQuery,
        ("amends-user" = Option<String>, Header, description = "who asks, kept with the address")),
    request_body(content = String, content_type = "application/x-ndjson",
        description = "a key a line: {key, value}; at most 16 MiB"),
    responses((status = 200, body = StateImported), (status = "default", body = Problem)))]
pub(crate) async fn import(
    State(state): State<ApiState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(name): Path<String>,
    Query(query): Query<ImportQuery>,
    request: Request,
) -> Result<Json<StateImported>, ApiError> {
    let name = parse_name(&name)?;
    if let Err(problem) = check_ndjson(request.headers()) {
        return Err(refuse(request, problem).await);
    }
    let who = who(request.headers(), peer)?;
    if query.source.len() > SOURCE_BYTES_MAX {
        let detail = format!("source has more than {SOURCE_BYTES_MAX} bytes");
        return Err(ApiError::new(400, "bad_query", detail));
    }
    let source = legible("source", query.source)?;
    // Both until all is written: what waits for the store is as large as what came.
    let Some(_place) = state.imports.enter().await else {
        let problem = ApiError::new(429, "import_running", "the host takes one import at a time")
            .with_remedy("try again after the time in Retry-After");
        return Err(refuse(request, problem).await);
    };
    let _held = request.extensions().get::<HeldBytes>().cloned();
    let body = tokio::time::timeout(IMPORT_TIME_MAX, read(request, STATE_IMPORT_BYTES_MAX)).await;
    let body = body.unwrap_or_else(|_| {
        let minutes = IMPORT_TIME_MAX.as_secs() / 60;
        let detail = format!("the import has not come within {minutes} minutes");
        Err(ApiError::new(408, "body_too_slow", detail))
    })?;
    let writes = writes(&body)?;
    let told = (who.as_str(), source.as_str());
    let written = state.runtime.plugins().import_state(&name, told, writes, query.only_new).await?;
    Ok(Json(StateImported { written }))
}

async fn set(
    state: &ApiState,
    name: &str,
    who: &str,
    write: StateWrite,
) -> Result<StatusCode, ApiError> {
    let name: PluginName = parse_name(name)?;
    state.runtime.plugins().set_state(&name, who, write).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the lines that are not empty say. Each error names the line.
fn writes(body: &[u8]) -> Result<Vec<StateWrite>, ApiError> {
    let mut writes = Vec::new();
    let mut lines = HashMap::new();
    for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let refused = |what: String| {
            ApiError::new(400, "bad_line", format!("line {number}: {what}"))
                .with_remedy("nothing was written; a line is {\"key\": \"…\", \"value\": …}")
        };
        let StateImportLine { key, value } =
            serde_json::from_slice(line).map_err(|error| refused(error.to_string()))?;
        let write = StateWrite { key, value: Some(value.as_str().to_owned()) };
        write.check().map_err(|error| refused(error.to_string()))?;
        if let Some(earlier) = lines.insert(write.key.clone(), number) {
            return Err(refused(format!("the key `{}` is on line {earlier} as well", write.key)));
        }
        if writes.len() == STATE_KEYS_MAX {
            return Err(refused(format!("there are more than {STATE_KEYS_MAX} lines")));
        }
        writes.push(write);
    }
    Ok(writes)
}

fn raw(value: &str) -> Result<Box<RawValue>, ApiError> {
    RawValue::from_string(value.to_owned()).map_err(|error| {
        ApiError::new(500, "state_unreadable", format!("a value in the store is not JSON: {error}"))
    })
}

impl From<StateError> for ApiError {
    fn from(error: StateError) -> Self {
        let detail = error.to_string();
        match error {
            StateError::NoPlugin(_) => Self::new(404, "no_plugin", detail)
                .with_remedy("GET /v1/plugins lists the plugins of this host"),
            StateError::NotGranted(_) => Self::new(409, "no_state", detail)
                .with_remedy("grant it in the config and start the host again"),
            StateError::Invalid(_) => Self::new(400, "bad_state", detail),
            StateError::Full(..) => Self::new(507, "state_full", detail).with_remedy(
                "remove keys, or set state_max in the config and start the host again",
            ),
            StateError::Store(error) => error.into(),
        }
    }
}
